"""A deep Markov model and its smoother by hand: only what depends on the last state is done step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.twins.images import limited, loc_and_log_scale, relu, stack


class ChainTwin(nn.Module):
    """Frames given states given the states before; the guide reads the frames backwards, and adds the last state."""

    def __init__(self, x_dim: int, z_dim: int, hidden: int):
        super().__init__()
        # Lists, since a module's own parameters would all come before those of its layers.
        self.prior_start = nn.ParameterList([torch.zeros(z_dim)])
        self.decoder = stack(z_dim, hidden, x_dim)
        self.transition = stack(z_dim, hidden, 2 * z_dim)
        self.guide_start = nn.ParameterList([torch.zeros(z_dim)])
        self.encoder = nn.GRU(x_dim, hidden, batch_first=True)
        self.encoder_start = nn.ParameterList([torch.zeros(1, 1, hidden)])
        self.posterior = stack(z_dim, hidden, 2 * z_dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x.flip(1), self.encoder_start[0].expand(-1, len(x), -1).contiguous())[0].flip(1)
        z, eps, log_scale = self.draw(h)
        p_layer, p_head = self.transition
        before = torch.cat([self.prior_start[0].expand(1, *z.shape[1:]), z[:-1]])
        prior_loc, prior_log_scale = loc_and_log_scale(p_head, relu(p_layer, before))
        standard = (z - prior_loc) * (-prior_log_scale).exp()
        log_p = 0.5 * standard.square().sum() + prior_log_scale.sum()
        kl = log_p - 0.5 * eps.square().sum() - log_scale.sum()
        layer, last = self.decoder
        out = F.linear(relu(layer, z), last.weight, last.bias)
        return kl + F.binary_cross_entropy_with_logits(out, x.transpose(0, 1), reduction="sum")

    def draw(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States, their noise and their log-scales, shape (T, batch, z_dim) each; h is (batch, T, hidden)."""
        of_last, head = self.posterior
        z = self.guide_start[0].expand(len(h), -1)
        noise = torch.randn(h.shape[1], *z.shape)
        states: list[Tensor] = []
        raws: list[Tensor] = []
        for read, eps in zip(h.unbind(1), noise, strict=True):
            inner = (torch.tanh(F.linear(z, of_last.weight, of_last.bias)) + read) / 2
            loc, raw = F.linear(inner, head.weight, head.bias).chunk(2, dim=-1)
            raws.append(limited(raw))
            z = torch.addcmul(loc, raws[-1].exp(), eps)
            states.append(z)
        return torch.stack(states), noise, torch.stack(raws)
