"""Grey and colour levels as mixtures of rounded logistic variables, the channels of a pixel conditioned in turn."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.likelihoods.greys import GreyLevel, RoundedLogistic, checked_levels
from dlvm.distributions.likelihoods.location_scale import Units
from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count
from dlvm.nets.mlp import last_layer


class MixedLevels(TorchDistribution):
    """The levels of the channels of one pixel: a mixture whose components go from channel to channel.

        p(x) = sum_k softmax(logits)_k prod_c P(the level nearest to y_c is x_c),   y_c ~ Logistic(m_kc, scale_kc),
        m_kc = loc_kc + sum_{b < c} tanh(slope_kcb) (x_b - 1/2)

    One number for an event without channels, as a grey pixel or a column is.

    Args:
        logits: shape (*batch, K).
        loc, scale: shape (*batch, C, K); scale positive.
        slope: shape (*batch, C (C - 1) / 2, K), for the pairs (c, b) = (1, 0), (2, 0), (2, 1), ...
        levels: how many levels a channel has.
        alone: the event is the single number of the one channel.
        validate_args: as in every distribution.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
            Salimans, Karpathy, Chen, Kingma, 2017, arXiv:1701.05517.

    Example:
        >>> p = MixedLevels(torch.zeros(2), torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(0, 2), 4, alone=True)
        >>> round(p.log_prob(torch.arange(4) / 3).exp().sum().item(), 4)
        1.0
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        slope: Tensor,
        levels: int = 256,
        alone: bool = False,
        validate_args: bool | None = None,
    ):
        self.logits, self.loc, self.scale, self.slope = logits, loc, scale, slope
        self.levels, self.alone = levels, alone
        event = torch.Size([]) if alone else loc.shape[-2:-1]
        super().__init__(logits.shape[:-1], event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        level = GreyLevel(self.levels)
        return level if self.alone else constraints.independent(level, 1)

    def component(self, c: int, before: Sequence[Tensor]) -> RoundedLogistic:
        """Channel c given those before it, each of shape (*shape, 1 or K); batch shape (*shape, K)."""
        loc, start = self.loc[..., c, :], c * (c - 1) // 2
        for b, x in enumerate(before):
            loc = loc + self.slope[..., start + b, :].tanh() * (x - 0.5)
        return RoundedLogistic(loc, self.scale[..., c, :], self.levels, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: MixedLevels | None = None) -> MixedLevels:
        new = self._get_checked_instance(MixedLevels, _instance)
        shape = torch.Size(batch_shape)
        new.levels, new.alone = self.levels, self.alone
        new.logits = self.logits.expand(*shape, -1)
        for name in ("loc", "scale", "slope"):
            setattr(new, name, getattr(self, name).expand(*shape, -1, -1))
        super(MixedLevels, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Each channel about the means of those before it, which is exact but for what is rounded at 0 and 1."""
        before: list[Tensor] = []
        for c in range(self.loc.shape[-2]):
            before.append(self.component(c, before).mean)
        found = (self.logits.softmax(-1).unsqueeze(-2) * torch.stack(before, -2)).sum(-1)
        return found.squeeze(-1) if self.alone else found

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape)
        which = dist.Categorical(logits=self.logits).sample(shape).unsqueeze(-1)
        drawn: list[Tensor] = []
        for c in range(self.loc.shape[-2]):
            every = self.component(c, drawn)
            loc, scale = (part.expand(*which.shape[:-1], -1).gather(-1, which) for part in (every.loc, every.scale))
            drawn.append(RoundedLogistic(loc, scale, self.levels, validate_args=False).sample())
        found = torch.cat(drawn, -1)
        return found.squeeze(-1) if self.alone else found

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        x = list((value.unsqueeze(-1) if self.alone else value).unsqueeze(-1).unbind(-2))
        total = self.logits.log_softmax(-1)
        for c, each in enumerate(x):
            total = total + self.component(c, x[:c]).log_prob(each)
        return total.logsumexp(-1)


class ChannelsFirst(TorchDistribution):
    """A distribution of pixels, each an event of C channels, over the rows of images: channel after channel.

    Args:
        pixels: batch shape (*batch, P), event shape (C,).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, pixels: MixedLevels):
        self.pixels = pixels
        self.channels = pixels.event_shape[0]
        shape = pixels.batch_shape
        super().__init__(shape[:-1], torch.Size([self.channels * shape[-1]]), validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        return constraints.independent(GreyLevel(self.pixels.levels), 1)

    @property
    def mean(self) -> Tensor:
        return self._flat(self.pixels.mean)

    def expand(self, batch_shape: Sequence[int], _instance: ChannelsFirst | None = None) -> ChannelsFirst:
        return ChannelsFirst(self.pixels.expand((*batch_shape, self.pixels.batch_shape[-1])))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self._flat(self.pixels.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.pixels.log_prob(value.unflatten(-1, (self.channels, -1)).transpose(-1, -2)).sum(-1)

    def _flat(self, value: Tensor) -> Tensor:
        return value.transpose(-1, -2).flatten(-2)


class LogisticMixture(nn.Module):
    """Levels given a context, each pixel a mixture of rounded logistic variables, its channels conditioned in turn.

        p(x | z) = prod_j p(x_j | z),   p(x_j | z) as in ``MixedLevels``

    A mixture has sharp and several modes where ``DiscretisedLogistic`` has one, and neighbouring channels of a pixel
    agree, as colours do. Grey images and columns have one channel, and then all numbers are independent.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: numbers of a datum, channel after channel.
        channels: of a pixel, 3 for colours; they divide ``dim``.
        components: of the mixture.
        levels: how many levels a channel has, at least 2.
        units: of the data, of ``dim`` numbers; loc 1/2 and scale 1/4 unless told.

    Raises:
        ValueError: a number is below 1, ``levels`` below 2, ``channels`` do not divide ``dim``, or the units are of
            another number of columns.
        TypeError: the net has no ``out_features``.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
            Salimans, Karpathy, Chen, Kingma, 2017, arXiv:1701.05517.

    Example:
        >>> LogisticMixture(nn.Linear(2, 8), 3 * 16, channels=3)(torch.zeros(5, 2)).event_shape
        torch.Size([48])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        channels: int = 1,
        components: int = 5,
        levels: int = 256,
        units: Units | None = None,
    ):
        super().__init__()
        count(dim=dim, channels=channels, components=components)
        self.levels = checked_levels(levels)
        if dim % channels:
            raise ValueError(f"channels must divide dim, got {channels} and {dim}; 1 for columns and grey images")
        units = Units(torch.full((dim,), 0.5), torch.full((dim,), 0.25)) if units is None else units
        if not isinstance(units, Units) or len(units.loc) != dim:
            got = f"units of {len(units.loc)}" if isinstance(units, Units) else type(units).__name__
            raise ValueError(f"units must be Units of dim={dim} columns, got {got}; pass Units(x.mean(0), x.std(0))")
        self.pixels, self.channels, self.components = dim // channels, channels, components
        pairs = channels * (channels - 1) // 2
        self.parts = [1, channels, channels, pairs]
        self.net = net
        self.head = last_layer(net, self.pixels, sum(self.parts) * components, last=True)
        for name, value in (("loc", units.loc), ("scale", units.scale)):
            self.register_buffer(name, value.unflatten(0, (channels, -1)).T.unsqueeze(-1).clone())
        with torch.no_grad():  # components start side by side, each about as wide as its share
            bias = self.head.bias.view(self.pixels, sum(self.parts), components)
            bias[:, 1 : 1 + channels] += torch.linspace(-1.5, 1.5, components) if components > 1 else 0
            bias[:, 1 + channels : 1 + 2 * channels] -= 1.5

    def forward(self, *context: Tensor) -> dist.Distribution:
        raw = self.head(self.net(*context)).unflatten(-1, (self.pixels, sum(self.parts), self.components))
        logits, loc, scale, slope = raw.split(self.parts, -2)
        loc, scale = self.loc + self.scale * loc, self.scale * positive(scale)
        alone = self.channels == 1
        made = MixedLevels(logits.squeeze(-2), loc, scale, slope, self.levels, alone)
        return made.to_event(1) if alone else ChannelsFirst(made)
