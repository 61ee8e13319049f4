"""What log p(x) is, how far to trust the number, and where the rest of the bound went."""

from dlvm.evidence.annealing.annealed import annealed, reverse_annealed
from dlvm.evidence.annealing.path import linear, sigmoid
from dlvm.evidence.decomposition.record import Views
from dlvm.evidence.decomposition.views import views
from dlvm.evidence.diagnostics.calibrate_scale import ScaleChange, calibrate_scale
from dlvm.evidence.diagnostics.calibration import calibration
from dlvm.evidence.diagnostics.calibration_record import Calibration
from dlvm.evidence.diagnostics.decoder import decoder_report
from dlvm.evidence.diagnostics.decoder_record import BernoulliDecoder, GaussianDecoder
from dlvm.evidence.estimate import Estimate
from dlvm.evidence.inference_gap.exact import exact_gaps
from dlvm.evidence.inference_gap.gaps import gaps
from dlvm.evidence.inference_gap.record import Difference, Gaps
from dlvm.evidence.inference_gap.unamortized import Freed, free
from dlvm.evidence.log_px.defensive import defensive
from dlvm.evidence.log_px.enumeration import enumerated
from dlvm.evidence.log_px.exact import exact
from dlvm.evidence.log_px.importance import importance, prior_sampling
from dlvm.evidence.log_px.particle_filter import particle_filter
from dlvm.evidence.log_px.quadrature import quadrature
from dlvm.evidence.log_px.sandwich import sandwich
from dlvm.evidence.log_px.sandwich_record import Sandwich
from dlvm.evidence.sampling.mcmc_em import MCMCEMEpoch, fit_mcmc_em
from dlvm.evidence.sampling.posterior_chains import PosteriorChains
from dlvm.evidence.simulate import Simulated, simulate
from dlvm.evidence.weights.laplace import LaplaceFit, laplace
from dlvm.evidence.weights.linear import WeightPosterior, weight_posterior
from dlvm.evidence.weights.locally_reparametrised import LocallyReparametrised, locally_reparametrised
from dlvm.evidence.weights.posterior_predictive import PosteriorPredictive, posterior_predictive
from dlvm.evidence.weights.predictive import Predictive, predictive

__all__ = [
    "BernoulliDecoder",
    "Calibration",
    "Difference",
    "Estimate",
    "Freed",
    "Gaps",
    "GaussianDecoder",
    "MCMCEMEpoch",
    "PosteriorChains",
    "LaplaceFit",
    "LocallyReparametrised",
    "PosteriorPredictive",
    "Predictive",
    "Sandwich",
    "ScaleChange",
    "Simulated",
    "Views",
    "WeightPosterior",
    "annealed",
    "calibrate_scale",
    "calibration",
    "decoder_report",
    "defensive",
    "enumerated",
    "exact",
    "exact_gaps",
    "free",
    "fit_mcmc_em",
    "gaps",
    "importance",
    "linear",
    "particle_filter",
    "laplace",
    "locally_reparametrised",
    "posterior_predictive",
    "predictive",
    "prior_sampling",
    "quadrature",
    "reverse_annealed",
    "sandwich",
    "sigmoid",
    "simulate",
    "views",
    "weight_posterior",
]
