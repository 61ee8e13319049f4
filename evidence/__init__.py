"""What log p(x) is, how far to trust the number, and where the rest of the bound went."""

from evidence.annealed import annealed, reverse_annealed
from evidence.bernoulli_decoder import BernoulliDecoder
from evidence.calibrate_scale import ScaleChange, calibrate_scale
from evidence.calibration import calibration
from evidence.calibration_record import Calibration
from evidence.decoder import decoder_report
from evidence.defensive import defensive
from evidence.enumerated import enumerated
from evidence.estimate import Estimate
from evidence.exact import exact
from evidence.exact_gaps import exact_gaps
from evidence.freed import Freed, free
from evidence.gap_record import Difference, Gaps
from evidence.gaps import gaps
from evidence.gaussian_decoder import GaussianDecoder
from evidence.path import linear, sigmoid
from evidence.quadrature import quadrature
from evidence.sandwich import Sandwich, sandwich
from evidence.simple import importance, prior_sampling
from evidence.simulate import Simulated, simulate
from evidence.view_record import Views
from evidence.views import views

__all__ = [
    "BernoulliDecoder",
    "Calibration",
    "Difference",
    "Estimate",
    "Freed",
    "Gaps",
    "GaussianDecoder",
    "Sandwich",
    "ScaleChange",
    "Simulated",
    "Views",
    "annealed",
    "calibrate_scale",
    "calibration",
    "decoder_report",
    "defensive",
    "enumerated",
    "exact",
    "exact_gaps",
    "free",
    "gaps",
    "importance",
    "linear",
    "prior_sampling",
    "quadrature",
    "reverse_annealed",
    "sandwich",
    "sigmoid",
    "simulate",
    "views",
]
