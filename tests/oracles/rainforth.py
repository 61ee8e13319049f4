"""The toy of Rainforth et al. 2018 ("Tighter variational bounds are not necessarily better", 1802.04537).

z ~ N(mu, I), x | z ~ N(z, I), q(z|x) = N(A x + b, 2/3 I) in D dimensions. The posterior N((x + mu) / 2, I / 2) is
narrower than q on purpose, so the gradients keep their noise at the optimum A = I / 2, b = mu / 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracles.gaussians import Gaussian, kl, renyi


class Toy(NamedTuple):
    """mu (D,), A (D, D), b (D,); x is (*batch, D), results are (*batch,) in nats."""

    mu: Tensor
    A: Tensor
    b: Tensor

    @classmethod
    def optimum(cls, mu: Tensor) -> Toy:
        """The best q of this form for the given mu, whatever x and K."""
        return cls(mu, 0.5 * torch.eye(len(mu), dtype=mu.dtype), mu / 2)

    def perturbed(self, size: float = 0.01, seed: int = 0) -> Toy:
        """Each parameter moved by independent N(0, size^2)."""
        rng = np.random.default_rng(seed)
        return Toy(*(value + size * torch.from_numpy(rng.normal(size=tuple(value.shape))) for value in self))

    def log_px(self, x: Tensor) -> Tensor:
        return Gaussian(self.mu, 2 * self._eye).log_prob(x)

    def posterior(self, x: Tensor) -> Gaussian:
        return Gaussian((x + self.mu) / 2, self._eye / 2)

    def q(self, x: Tensor) -> Gaussian:
        return Gaussian(x @ self.A.T + self.b, self._eye * 2 / 3)

    def elbo(self, x: Tensor) -> Tensor:
        return self.log_px(x) - kl(self.q(x), self.posterior(x))

    def log_w(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) - log q(z|x); the batch dimensions of x and z broadcast."""
        joint = Gaussian(self.mu, self._eye).log_prob(z) + Gaussian(z, self._eye).log_prob(x)
        return joint - self.q(x).log_prob(z)

    @property
    def _eye(self) -> Tensor:
        return torch.eye(len(self.mu), dtype=self.mu.dtype)


def toy_data(n: int = 1024, dim: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """mu ~ N(0, I) of shape (dim,), and n draws of x from the toy, (n, dim)."""
    rng = np.random.default_rng(seed)
    mu, noise = rng.normal(size=dim), rng.normal(size=(2, n, dim))
    return torch.from_numpy(mu), torch.from_numpy(mu + noise.sum(0))


class Gradients(NamedTuple):
    """Independent estimates of the gradient of L_K for one x, each (n, D): in b by three routes, and in mu."""

    iwae: Tensor
    dreg: Tensor
    stl: Tensor
    mu: Tensor


def gradients(toy: Toy, x: Tensor, num_particles: int, n: int, seed: int = 0, chunk: int = 200_000) -> Gradients:
    """n estimates for one x (D,), derived by hand. With w~ the normalised weights and m = A x + b:

    iwae sum w~ (mu + x - 2 z), the total derivative in b; dreg and stl the sums with w~^2 and w~ of dlog w/dz
    = mu + x - 2 z + 3/2 (z - m), q's parameters held; mu sum w~ (z - mu).
    """
    generator, parts = torch.Generator().manual_seed(seed), []
    m = toy.A @ x + toy.b
    for rows in torch.arange(n).split(max(1, chunk // num_particles)):
        noise = torch.randn(len(rows), num_particles, len(m), generator=generator, dtype=torch.float64)
        z = m + math.sqrt(2 / 3) * noise
        total = toy.mu + x - 2 * z
        path = total + 1.5 * (z - m)
        log_w = 0.5 * (noise.square() - (z - toy.mu).square() - (x - z).square()).sum(-1)
        w = log_w.softmax(-1).unsqueeze(-1)
        parts.append(torch.stack([(w * total).sum(1), (w.square() * path).sum(1), (w * path).sum(1), (w * z).sum(1)]))
    iwae, dreg, stl, mean = torch.cat(parts, 1)
    return Gradients(iwae, dreg, stl, mean - toy.mu)


def snr(estimates: Tensor, mean: Tensor | None = None) -> Tensor:
    """|mean| / standard deviation of estimates (n, D), per coordinate (D,).

    The mean over n floors this at .8 / sqrt(n); where a steadier estimator of the same mean is at hand (dreg for
    iwae), give its `mean` (D,).
    """
    return (estimates.mean(0) if mean is None else mean).abs() / estimates.std(0)


def snr_rates(toy: Toy, x: Tensor) -> dict[str, Tensor]:
    """For K to infinity SNR(iwae) sqrt(K), SNR(dreg) / sqrt(K) and SNR(mu) / sqrt(K) in closed form, each (D,).

    By the delta method in r = p(z|x) / q(z|x): every E_q r^k f(z) with f quadratic is a Gaussian moment.
    """
    p, q = toy.posterior(x), toy.q(x)
    a, m = p.loc, q.loc

    def tilted(k: int) -> tuple[Tensor, Tensor, float]:
        """Mass, mean and variance of p^k q^(1 - k)."""
        precision = 2 * k - 1.5 * (k - 1)
        mass = torch.exp((k - 1) * renyi(p, q, float(k)))
        return mass, (2 * k * a - 1.5 * (k - 1) * m) / precision, 1 / precision

    def path(z: Tensor) -> Tensor:
        return 2 * a - 1.5 * m - 0.5 * z

    (mass2, mean2, var2), (mass3, mean3, _), (mass4, mean4, var4) = tilted(2), tilted(3), tilted(4)
    first = mass2 * path(mean2)
    second = mass4 * (path(mean4).square() + 0.25 * var4)
    dreg_variance = second - first.square() - 4 * first * (mass3 * path(mean3) - first) + 4 * first**2 * (mass2 - 1)
    spread = (mass2 * ((mean2 - a).square() + var2)).sqrt()
    return {
        "iwae": first.abs() / (2 * spread),
        "dreg": first.abs() / dreg_variance.sqrt(),
        "mu": (a - toy.mu).abs() / spread,
    }


# SNR averaged over the coordinates of b and of mu, D = 5, for K = 1, 4, 16, 64, 256.
GOLDEN_SNR = {
    "iwae": (0.472, 0.290, 0.158, 0.0786, 0.0430),
    "dreg": (1.89, 1.66, 1.86, 2.83, 5.22),
    "mu": (1.52, 2.01, 3.14, 5.66, 10.9),
}


def golden_toy() -> tuple[Toy, Tensor]:
    """A toy and an x (5,) that stand in for the unrecorded draw (perturbation N(0, .1^2)) behind `GOLDEN_SNR`.

    For one x all depends on E_q z - E_p z and E_q z - mu alone, whose sizes follow from the values at K = 1: those of
    iwae are |E_q z - E_p z| / sqrt(2/3), four times as much by dreg, those of mu |E_q z - mu| / sqrt(2/3). How they
    lie over the coordinates is chosen to fit: the first as .2 .4 .7 1 1.5, all of one sign, the second evenly.
    With n = 40 000 for K <= 16, 20 000 for 64, 10 000 for 256 and dreg's mean as the signal of both estimators in b,
    dreg agrees within 3 % at every K, iwae within 3 % (7 % at K = 256) and mu within 6 %.
    """
    shift = torch.tensor([0.2, 0.4, 0.7, 1, 1.5], dtype=torch.float64)
    shift *= math.sqrt(2 / 3) * GOLDEN_SNR["iwae"][0] / shift.mean()
    mu = torch.zeros(5, dtype=torch.float64)
    toy = Toy.optimum(mu)._replace(b=shift)
    return toy, 2 * (math.sqrt(2 / 3) * GOLDEN_SNR["mu"][0] - shift)
