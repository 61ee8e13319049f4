"""A state-space model with a recurrent guide, by hand: only what depends on the last state is done step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.twins.images import limited, loc_and_log_scale, relu, stack


class SequenceTwin(nn.Module):
    """Frames given states given the states before; the guide reads the frames backwards."""

    def __init__(self, x_dim: int, z_dim: int, hidden: int):
        super().__init__()
        self.transition = stack(z_dim, hidden, 2 * z_dim)
        self.decoder = stack(z_dim, hidden, x_dim)
        self.encoder = nn.GRU(x_dim, hidden, batch_first=True)
        self.posterior = stack(hidden + z_dim, hidden, 2 * z_dim)
        self.z_dim, self.hidden = z_dim, hidden

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x.flip(1))[0].flip(1)
        z, eps, log_scale = self.draw(h)
        p_layer, p_head = self.transition
        prior_loc, prior_log_scale = loc_and_log_scale(p_head, relu(p_layer, z[:-1]))
        standard = (z[1:] - prior_loc) * (-prior_log_scale).exp()
        log_p = 0.5 * (z[0].square().sum() + standard.square().sum()) + prior_log_scale.sum()
        kl = log_p - 0.5 * eps.square().sum() - log_scale.sum()
        layer, last = self.decoder
        out = F.linear(relu(layer, z), last.weight, last.bias)
        return kl + F.binary_cross_entropy_with_logits(out, x.transpose(0, 1), reduction="sum")

    def draw(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States, their noise and their log-scales, shape (T, batch, z_dim) each; h is (batch, T, hidden)."""
        layer, head = self.posterior
        from_h, from_z = layer.weight.split([self.hidden, self.z_dim], dim=1)
        seen = F.linear(h, from_h, layer.bias).unbind(1)
        states: list[Tensor] = []
        noises: list[Tensor] = []
        raws: list[Tensor] = []
        for t, fixed in enumerate(seen):
            inner = fixed + F.linear(states[-1], from_z) if t else fixed
            loc, raw = F.linear(inner.relu(), head.weight, head.bias).chunk(2, dim=-1)
            noises.append(torch.randn_like(loc))
            raws.append(limited(raw))
            states.append(torch.addcmul(loc, raws[-1].exp(), noises[-1]))
        return torch.stack(states), torch.stack(noises), torch.stack(raws)
