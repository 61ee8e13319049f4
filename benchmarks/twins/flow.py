"""A variational autoencoder with an inverse autoregressive flow, by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.twins.images import limited, loc_and_log_scale, logits, relu, stack

BIAS = 2.0  # of the gates' logits


class Step(nn.Module):
    """One gated step given a context: a masked network of one hidden layer of ELUs."""

    first_mask: Tensor
    last_mask: Tensor

    def __init__(self, dim: int, context: int, hidden: int, reverse: bool):
        super().__init__()
        self.first, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, 2 * dim)
        self.context, self.film = nn.Linear(context, hidden, bias=False), nn.Linear(context, hidden, bias=False)
        order = torch.arange(dim, 0, -1) if reverse else torch.arange(1, dim + 1)
        degrees = torch.linspace(0, dim - 1, hidden).round()
        self.register_buffer("first_mask", (degrees[:, None] >= order).float())
        self.register_buffer("last_mask", (order.repeat(2)[:, None] > degrees).float())

    def forward(self, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |dz/dy|, the latter not yet summed."""
        inner = F.linear(y, self.first.weight * self.first_mask, self.first.bias)
        inner = torch.addcmul(inner, inner, F.linear(h, self.film.weight)) + F.linear(h, self.context.weight)
        m, s = F.linear(F.elu(inner), self.last.weight * self.last_mask, self.last.bias).chunk(2, dim=-1)
        s = limited(s + BIAS)
        return torch.lerp(m, y, torch.sigmoid(s)), F.logsigmoid(s)


class FlowTwin(nn.Module):
    """One latent vector, whose posterior is a diagonal Gaussian followed by ``depth`` steps."""

    def __init__(self, x_dim: int, hidden: int, context: int, z_dim: int, depth: int, made_hidden: int):
        super().__init__()
        self.decoder = stack(z_dim, hidden, hidden, x_dim)
        self.encoder = stack(x_dim, hidden, hidden, context)
        self.head = nn.Linear(context, 2 * z_dim)
        self.steps = nn.ModuleList(Step(z_dim, context, made_hidden, bool(t % 2)) for t in range(depth))
        self.log_widening = depth * math.log1p(math.exp(-BIAS))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.encoder
        h = relu(third, relu(second, relu(first, x)))
        loc, log_scale = loc_and_log_scale(self.head, h)
        log_scale = log_scale + self.log_widening
        eps = torch.randn_like(loc)
        z = torch.addcmul(math.exp(self.log_widening) * loc, log_scale.exp(), eps)
        log_jacobian = log_scale
        for step in self.steps:
            z, gained = step(z, h)
            log_jacobian = log_jacobian + gained
        kl = (0.5 * (z.square() - eps.square()) - log_jacobian).sum()
        return kl + F.binary_cross_entropy_with_logits(logits(self.decoder, z), x, reduction="sum")
