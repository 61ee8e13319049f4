"""Variational autoencoders of one latent site and of several, by hand."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIMIT = 10.0
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


Layers = Any  # an nn.ModuleList, of whose elements torch's types know only that they are modules


def stack(*sizes: int) -> Layers:
    """Linear layers from each size to the next."""
    return nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))


def relu(layer: nn.Linear, h: Tensor) -> Tensor:
    return F.linear(h, layer.weight, layer.bias).relu_()


def limited(raw: Tensor) -> Tensor:
    """The log-scale of every Gaussian here: never beyond -10 and 10."""
    return torch.tanh(raw / LIMIT) * LIMIT


def logits(layers: Layers, z: Tensor) -> Tensor:
    first, second, last = layers
    return F.linear(relu(second, relu(first, z)), last.weight, last.bias)


def loc_and_log_scale(head: nn.Linear, h: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw = F.linear(h, head.weight, head.bias).chunk(2, dim=-1)
    return loc, limited(raw)


class VAETwin(nn.Module):
    """One latent vector; K particles of the importance-weighted bound, or the ELBO, by drawn latents or closed form."""

    def __init__(self, x_dim: int, hidden: int, z_dim: int, num_particles: int = 1, analytic: bool = False):
        super().__init__()
        self.decoder = stack(z_dim, hidden, hidden, x_dim)
        self.encoder = stack(x_dim, hidden, hidden)
        self.head = nn.Linear(hidden, 2 * z_dim)
        self.num_particles, self.analytic = num_particles, analytic

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encode(x)
        if self.num_particles > 1:
            return -(torch.logsumexp(self.log_w(x, loc, log_scale, self.num_particles), 0) - self.log_count).sum()
        eps = torch.randn_like(loc)
        scale = log_scale.exp()
        z = torch.addcmul(loc, scale, eps)
        nll = F.binary_cross_entropy_with_logits(logits(self.decoder, z), x, reduction="sum")
        if self.analytic:
            return nll + 0.5 * (loc.square() + scale.square() - 1).sum() - log_scale.sum()
        return nll + 0.5 * (z.square() - eps.square()).sum() - log_scale.sum()

    @property
    def log_count(self) -> float:
        return math.log(self.num_particles)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and log-scale of q(z | x), shape (batch, z_dim) each."""
        first, second = self.encoder
        return loc_and_log_scale(self.head, relu(second, relu(first, x)))

    def log_w(self, x: Tensor, loc: Tensor, log_scale: Tensor, num_particles: int) -> Tensor:
        """log p(x, z) / q(z | x) of drawn z, shape (num_particles, batch)."""
        eps = torch.randn(num_particles, *loc.shape, dtype=loc.dtype)
        z = torch.addcmul(loc, log_scale.exp(), eps)
        out = logits(self.decoder, z)
        log_likelihood = (out * x).sum(-1) - F.softplus(out).sum(-1)
        return log_likelihood + 0.5 * (eps.square() - z.square()).sum(-1) + log_scale.sum(-1)

    @torch.no_grad()
    def log_px(self, x: Tensor, num_particles: int, rows: int = 1000) -> Tensor:
        """log p(x) by importance sampling, shape (batch,), with ``rows`` particles at a time: they stay in cache."""
        loc, log_scale = self.encode(x)
        parts = [min(rows, num_particles - start) for start in range(0, num_particles, rows)]
        log_w = torch.stack(
            [torch.cat([self.log_w(*datum, part) for part in parts]) for datum in zip(x, loc, log_scale, strict=True)]
        )
        return torch.logsumexp(log_w, 1) - math.log(num_particles)


class HierarchyTwin(nn.Module):
    """A chain of latent vectors; each posterior is given all vectors above its own."""

    def __init__(self, x_dim: int, hidden: int, z_dim: int, site_hidden: int, sites: int):
        super().__init__()
        self.conditionals: Layers = nn.ModuleList(stack(z_dim, site_hidden, 2 * z_dim) for _ in range(sites - 1))
        self.decoder = stack(z_dim, hidden, hidden, x_dim)
        self.encoder = stack(x_dim, hidden, hidden)
        self.posteriors: Layers = nn.ModuleList(
            stack(hidden + above * z_dim, site_hidden, 2 * z_dim) for above in range(sites)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.encoder
        h = relu(second, relu(first, x))
        (q_layer, q_head), *posteriors = self.posteriors
        loc, log_scale = loc_and_log_scale(q_head, relu(q_layer, h))
        eps = torch.randn_like(loc)
        z = torch.addcmul(loc, log_scale.exp(), eps)
        kl = 0.5 * (z.square() - eps.square()).sum() - log_scale.sum()
        known = [h, z]
        for (p_layer, p_head), (q_layer, q_head) in zip(self.conditionals, posteriors, strict=True):
            prior_loc, prior_log_scale = loc_and_log_scale(p_head, relu(p_layer, z))
            loc, log_scale = loc_and_log_scale(q_head, relu(q_layer, torch.cat(known, -1)))
            eps = torch.randn_like(loc)
            z = torch.addcmul(loc, log_scale.exp(), eps)
            standard = (z - prior_loc) * (-prior_log_scale).exp()
            kl = kl + (0.5 * (standard.square() - eps.square()) + prior_log_scale - log_scale).sum()
            known.append(z)
        return kl + F.binary_cross_entropy_with_logits(logits(self.decoder, z), x, reduction="sum")
