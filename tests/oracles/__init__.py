"""Exact answers, by closed form or quadrature, in float64 and independent of the rooms they judge."""

from oracles.compare import assert_close, inverse, normal
from oracles.energies import ENERGIES, LOG_Z_BOX, LOG_Z_CONFINED, log_z_simpson
from oracles.gaussians import Gaussian, chi2, kl, renyi, renyi_bound
from oracles.importance import iwae, iwae_asymptote, iwae_monte_carlo
from oracles.linear_gaussian import GOLDEN_1, GOLDEN_2, X_1, X_2, LinearGaussian, Q, ppca_optimum
from oracles.quadrature import (
    best_gaussian,
    elbo_hermite,
    gauss_hermite,
    grid,
    log_px_grid,
    log_px_hermite,
    posterior_grid,
)
from oracles.two_layer import TWO_LAYER, LinearConditional, TwoLayer

__all__ = [
    "ENERGIES",
    "GOLDEN_1",
    "GOLDEN_2",
    "Gaussian",
    "LOG_Z_BOX",
    "LOG_Z_CONFINED",
    "LinearConditional",
    "LinearGaussian",
    "Q",
    "TWO_LAYER",
    "TwoLayer",
    "X_1",
    "X_2",
    "best_gaussian",
    "chi2",
    "assert_close",
    "elbo_hermite",
    "gauss_hermite",
    "grid",
    "inverse",
    "iwae",
    "iwae_asymptote",
    "iwae_monte_carlo",
    "kl",
    "log_px_grid",
    "log_px_hermite",
    "log_z_simpson",
    "normal",
    "posterior_grid",
    "ppca_optimum",
    "renyi",
    "renyi_bound",
]
