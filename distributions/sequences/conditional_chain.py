"""Chains of latent vectors whose next one is drawn given the last: dynamics a priori, and guides over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pyro.distributions
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from dlvm.distributions.sequences.lengths import Ragged, check_lengths
from dlvm.nets.arguments import count
from dlvm.nets.recurrences.scan import scan

GAUSSIANS = Normal, pyro.distributions.Normal
Drawn = tuple[Tensor, Callable[[], Tensor]]  # a path, and what gives the log-densities of its steps


class ConditionalChain(Ragged):
    """Real vectors z_1..z_T, each by a distribution that a net makes of the one before it.

        p(z_1..z_T) = prod_t p(z_t | z_t-1, inputs_t),   z_0 = start

    The density is computed of all steps at once; drawing goes step by step, and the last draw has the densities of its
    own steps, as cheap as the steps have them: those of flows are free. Without inputs it is the dynamics of a state
    space, with the features of an encoder a guide over time. Steps behind a sequence's length count nothing, whatever
    numbers stand there, and are drawn as 0.

    Args:
        step: makes p(z_t | z_t-1, inputs_t), of event shape (D,) and over any leading dimensions, from z_t-1, shape
            (*batch, D), or from it and inputs_t, shape (*batch, H), where there are inputs. Gaussian steps of a module,
            or of a callable with a ``module`` whose step it is, are drawn by ``scan``, far faster where there are many.
        start: z_0, shape (*batch, D).
        steps: how many, T.
        inputs: what each step sees beside the last, shape (*batch, T, H); nothing unless told.
        lengths: how many steps count, from 1 to T, shape (*batch,); all unless told.
        validate_args: as in every Pyro distribution.

    Raises:
        TypeError: ``step`` is not callable, or makes no distribution.
        ValueError: shapes do not go together, a length is below 1 or above T, or a step's distribution is of another
            shape.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.

    Example:
        >>> import pyro.distributions as dist
        >>> walk = ConditionalChain(lambda z: dist.Normal(z, 1.0).to_event(1), torch.zeros(2), steps=3)
        >>> walk.log_prob(torch.zeros(5, 3, 2)).shape
        torch.Size([5])
    """

    arg_constraints: dict = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True
    _draw: Drawn | None = None

    def __init__(
        self,
        step: Callable[..., Distribution],
        start: Tensor,
        steps: int,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        count(steps=steps)
        if not callable(step) or isinstance(step, type):
            raise TypeError(f"step must make a distribution of z_t from z_t-1, got {step!r}; pass a net or a function")
        for name, value, least in (("start", start, 1), ("inputs", inputs, 2)):
            if value is None and name == "inputs":
                continue
            if (
                not isinstance(value, Tensor)
                or value.dim() < least
                or not (value.is_floating_point() and value.numel())
            ):
                got = f"{tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{name} must be a tensor of real numbers with {least} dimensions or more, got {got}")
        batch = [start.shape[:-1]]
        if inputs is not None:
            if inputs.shape[-2] != steps:
                raise ValueError(f"inputs must have shape (..., {steps}, H), one for each step, got {inputs.shape}")
            batch.append(inputs.shape[:-2])
        if lengths is not None:
            check_lengths(lengths, steps)
            batch.append(lengths.shape)
        self.step, self.start, self.inputs, self.lengths = step, start, inputs, lengths
        event = torch.Size([steps, start.shape[-1]])
        super().__init__(torch.broadcast_shapes(*batch), event, validate_args=validate_args)

    def of_step(self, previous: Tensor, t: int | slice) -> Distribution:
        """p(z_t | z_t-1) over the shape (*shape, D) of z_t-1, t from 0; of several steps, (*shape, steps, D).

        Raises:
            TypeError, ValueError: the step makes something else.
        """
        return self._made(previous, None if self.inputs is None else self.inputs[..., t, :])

    def _made(self, previous: Tensor, inputs: Tensor | None = None) -> Distribution:
        shape, event = previous.shape[:-1], previous.shape[-1:]
        made = self.step(previous) if inputs is None else self.step(previous, inputs.expand(*shape, inputs.shape[-1]))
        if not isinstance(made, Distribution):
            raise TypeError(f"step must make a distribution, got {type(made).__name__}; return one of Pyro's")
        fits = zip(reversed(made.batch_shape), reversed(shape), strict=False)
        if made.event_shape != event or len(made.batch_shape) > len(shape) or any(a not in (1, b) for a, b in fits):
            raise ValueError(
                f"step must make a distribution of batch shape {tuple(shape)} and event shape {tuple(event)} from "
                f"z_t-1 of shape {tuple(previous.shape)}, got {tuple(made.batch_shape)} and {tuple(made.event_shape)}; "
                "declare dimensions with to_event(1), and let a net act on the last dimension alone"
            )
        return made if made.batch_shape == shape else made.expand(shape)

    def densities(self, value: Tensor) -> Tensor:
        """log p(z_t | z_t-1) of each step, shape (*shape, T), for z of shape (*shape, T, D); 0 where none counts."""
        within, draw = self.within, self._draw
        # A value drawn by sample() carries no graph: only the usual way has the parameters' whole gradient.
        if draw is not None and draw[0] is value and (value.requires_grad or not torch.is_grad_enabled()):
            each = draw[1]()
            return each if within is None else torch.where(within, each, 0)
        if within is not None:
            value = torch.where(within.unsqueeze(-1), value, 0)
        start = self.start.unsqueeze(-2).expand(*value.shape[:-2], 1, value.shape[-1])
        each = self.of_step(torch.cat([start, value[..., :-1, :]], -2), slice(None)).log_prob(value)
        return each if within is None else torch.where(within, each, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        value = value if value.shape == shape else value.expand(shape)
        return self.densities(value).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        start = self.start.expand(*sample_shape, *self.batch_shape, self.event_shape[1])
        path, densities = _scanned(self, start) or _stepped(self, start)
        path = path if self.within is None else torch.where(self.within.unsqueeze(-1), path, 0)
        self._draw = path, densities
        return path

    def expand(self, batch_shape: Sequence[int], _instance: ConditionalChain | None = None) -> ConditionalChain:
        batch, (steps, dim) = tuple(batch_shape), self.event_shape
        return ConditionalChain(
            self.step,
            self.start.expand(*batch, dim),
            steps,
            None if self.inputs is None else self.inputs.expand(*batch, *self.inputs.shape[-2:]),
            None if self.lengths is None else self.lengths.expand(batch),
            validate_args=self._validate_args,
        )


def _scanned(chain: ConditionalChain, start: Tensor) -> Drawn | None:
    """A draw by ``scan``, of Gaussian steps that a module makes; None of others: a function may close over anything."""
    owner = chain.step if isinstance(chain.step, nn.Module) else getattr(chain.step, "module", None)
    if owner is None:
        return None
    times = () if chain.inputs is None else (chain.inputs.movedim(-2, 0),)
    with torch.no_grad():
        if _gaussian(chain._made(start, *(of_time[0] for of_time in times))) is None:
            return None

    def step(last: Tensor, noise: Tensor, *seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = cast(Normal, _gaussian(chain._made(last, *(s.expand(*last.shape[:-1], s.shape[-1]) for s in seen))))
        return torch.addcmul(made.loc, made.scale, noise), made.loc, made.scale

    noise = torch.randn(chain.event_shape[0], *start.shape, dtype=start.dtype, device=start.device)
    between = start.dim() - chain.start.dim() if chain.inputs is None else start.dim() - chain.inputs.dim() + 1
    beside = tuple(s.reshape(len(s), *[1] * between, *s.shape[1:]) for s in times)
    found = scan(owner, step, start, (noise, *beside))
    if found is None:
        return None
    z, loc, scale = found
    return z.movedim(0, -2), lambda: Normal(loc, scale, validate_args=False).log_prob(z).sum(-1).movedim(0, -1)


def _stepped(chain: ConditionalChain, start: Tensor) -> Drawn:
    """A draw step by step."""
    last, made, drawn = start, [], []
    # The gradient of inputs[..., t, :] would be a tensor of all steps at each: quadratic in their number.
    seen = [None] * chain.event_shape[0] if chain.inputs is None else chain.inputs.unbind(-2)
    for inputs in seen:
        made.append(chain._made(last, inputs))
        last = made[-1].rsample()
        drawn.append(last)
    return torch.stack(drawn, -2), lambda: _of_draw(made, drawn)


def _gaussian(made: Distribution) -> Normal | None:
    """The Gaussians of a step whose dimensions are independent; None of another step."""
    return made.base_dist if isinstance(made, Independent) and type(made.base_dist) in GAUSSIANS else None


def _of_draw(made: list[Distribution], drawn: list[Tensor]) -> Tensor:
    """log-densities of drawn steps, shape (*shape, T); of Gaussians with independent dimensions all at once."""
    single = [found for step in made if (found := _gaussian(step)) is not None]
    if len(single) < len(made):
        return torch.stack([step.log_prob(z) for step, z in zip(made, drawn, strict=True)], -1)
    loc, scale = (torch.stack([getattr(step, name) for step in single], -2) for name in ("loc", "scale"))
    return Normal(loc, scale, validate_args=False).log_prob(torch.stack(drawn, -2)).sum(-1)
