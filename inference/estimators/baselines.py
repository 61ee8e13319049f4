"""What a score function's learning signal is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


class MovingAverage(nn.Module):
    """The average signal of earlier steps, per particle and datum, in nats.

    It moves after it has been used, and only where gradients are computed, so that the estimate stays unbiased.

    Args:
        decay: weight of the past, at least 0 and below 1.

    Raises:
        ValueError: ``decay`` is out of range.
    """

    sum: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.9):
        super().__init__()
        real(decay=decay)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.register_buffer("sum", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def __repr__(self) -> str:
        return f"MovingAverage(decay={self.decay})"

    def forward(self, signals: Tensor, particles: Particles) -> tuple[Tensor, None]:
        """Signals, (num_particles, batch), less the baseline; and nothing to train."""
        average = (self.sum / self.weight.clamp_min(1 - self.decay)).to(signals)
        if torch.is_grad_enabled():
            with torch.no_grad():
                mean = signals.mean().to(self.sum)
                known = mean.isfinite()  # a weight of zero has no signal to remember
                share = (1 - self.decay) * known.to(self.sum)
                self.sum.mul_(1 - share).add_(share * torch.where(known, mean, 0.0))
                self.weight.mul_(1 - share).add_(share)
        return signals - average, None


class NVIL(nn.Module):
    """A moving average and a network of the data, trained beside model and guide to predict the signal.

        baseline(x) = average + net(x),   trained on (signal - baseline(x))^2

    Args:
        net: called with the programs' arguments, as an encoder is; returns (batch,) or (batch, 1), nats.
        decay: of the average, see ``MovingAverage``.

    References:
        Neural Variational Inference and Learning in Belief Networks, Mnih, Gregor, 2014, arXiv:1402.0030.
    """

    def __init__(self, net: nn.Module, decay: float = 0.9):
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be a module, as MLP(x_dim, hidden, 1), got {net!r}")
        self.net, self.average = net, MovingAverage(decay)

    def __repr__(self) -> str:
        return f"NVIL({type(self.net).__name__}, decay={self.average.decay})"

    def forward(self, signals: Tensor, particles: Particles) -> tuple[Tensor, Tensor]:
        """Signals, (num_particles, batch), less the baseline; and minus the squared error of the prediction."""
        centred, _ = self.average(signals, particles)
        predicted = self.net(*particles.programs.args, **particles.programs.kwargs)
        if predicted.numel() != signals.shape[1]:
            raise ValueError(
                f"NVIL's net returned shape {tuple(predicted.shape)}; expected one number for each of the "
                f"{signals.shape[1]} data, as MLP(x_dim, hidden, 1) gives"
            )
        predicted = predicted.reshape(-1).expand_as(signals)
        error = F.mse_loss(predicted, centred, reduction="none").mean(0).sum()
        return centred - predicted.detach(), -error
