"""Vectors of a learned list: the list, a prior over rows of it, and the point mass on the row nearest to a vector."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.priors.discrete import start
from dlvm.nets.arguments import count, is_count, module

CLOSE = 1e-4  # of a vector to its code, where rounding has been between


class Codebook(nn.Module):
    """K vectors of D numbers, which are learned: codes are whole numbers 0, ..., K - 1, each standing for its vector.

    Args:
        codes: how many there are, K, at least 2.
        dim: numbers in each, D.

    Raises:
        ValueError: ``codes`` is below 2, or ``dim`` below 1.

    Example:
        >>> book = Codebook(8, 2)
        >>> bool((book.nearest(book(torch.arange(8))) == torch.arange(8)).all())
        True
    """

    def __init__(self, codes: int, dim: int):
        super().__init__()
        if not is_count(codes, 2):
            raise ValueError(f"codes must be an integer of at least 2, got {codes!r}; one code says nothing of a datum")
        count(dim=dim)
        self.vectors = nn.Parameter(torch.randn(codes, dim))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes, shape (*batch), -> their vectors, shape (*batch, D)."""
        return self.vectors[codes]

    def distances(self, z: Tensor) -> Tensor:
        """Squared distances of vectors, shape (*batch, D), to every code, shape (*batch, K)."""
        return z.square().sum(-1, keepdim=True) - 2 * z @ self.vectors.T + self.vectors.square().sum(-1)

    def nearest(self, z: Tensor) -> Tensor:
        """The codes whose vectors are nearest to these, shape (*batch, D) -> (*batch)."""
        return self.distances(z.detach()).argmin(-1)


class CodePrior(nn.Module):
    """A prior over arrays of vectors, each of a codebook: of M positions, each has a code.

        p(z) = p(k_1, ..., k_M),   z_m = vector of code k_m

    Args:
        codebook: the vectors; the guide's own, which learns them.
        positions: M; the event shape is (M, D).
        codes: p(k_1, ..., k_M), a module without inputs to a distribution of M whole numbers below K, as
            ``ChainRule(CausalTransformer(M, K, K), Tokens(K))``; all equally likely unless told.

    Raises:
        ValueError: ``positions`` is below 1, or ``codes`` is no distribution of so many whole numbers.
        TypeError: ``codebook`` is no Codebook, or ``codes`` no module.

    References:
        Neural Discrete Representation Learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.

    Example:
        >>> CodePrior(Codebook(8, 2), 4)().sample((5,)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(self, codebook: Codebook, positions: int, codes: nn.Module | None = None):
        super().__init__()
        check_codebook(codebook)
        count(positions=positions)
        found = IndependentCodes(positions, len(codebook.vectors)) if codes is None else codes
        module(codes=found)
        p = found()
        if tuple(p.event_shape) != (positions,) or p.batch_shape or not p.support.is_discrete:
            raise ValueError(
                f"codes must be a distribution of {positions} whole numbers, got event shape {tuple(p.event_shape)}, "
                f"batch shape {tuple(p.batch_shape)}; as ChainRule(net, Tokens({len(codebook.vectors)}))"
            )
        self.codebook, self.positions, self.codes = codebook, positions, found

    def forward(self) -> CodeVectors:
        return CodeVectors(self.codebook, self.codes())


class IndependentCodes(nn.Module):
    """Codes of several positions, each by itself: all equally likely, or with learned probabilities.

        p(k) = prod_m softmax(logits_m)_{k_m},   logits = 0 at the start

    Args:
        positions: how many codes there are.
        codes: how many different ones, K.
        learned: whether the logits are trained.

    Example:
        >>> IndependentCodes(4, 8)().event_shape
        torch.Size([4])
    """

    logits: Tensor

    def __init__(self, positions: int, codes: int, learned: bool = False):
        super().__init__()
        start(self, torch.zeros(positions, codes), learned)

    def forward(self) -> dist.Distribution:
        return dist.Categorical(logits=self.logits).to_event(1)


class _OfCodebook(constraints.Constraint):
    """Vectors of a codebook, but for rounding."""

    is_discrete, event_dim = True, 2

    def __init__(self, codebook: Codebook):
        self.codebook = codebook

    def check(self, value: Tensor) -> Tensor:
        """Which arrays, shape (*batch, M, D), hold vectors of the codebook alone, shape (*batch)."""
        code = self.codebook(self.codebook.nearest(value))
        return ((value - code).abs() <= CLOSE * (1 + code.abs())).flatten(-2).all(-1)


class CodeVectors(dist.TorchDistribution):
    """Arrays of vectors of a codebook, by a distribution of their codes; the probability is that of the codes.

    Args:
        codebook: the vectors.
        codes: distribution of whole numbers, event shape (M,).
        validate_args: as in every distribution.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = False

    def __init__(self, codebook: Codebook, codes: dist.TorchDistribution, validate_args: bool | None = None):
        self.codebook, self.codes = codebook, codes
        shape = torch.Size((*codes.event_shape, codebook.vectors.shape[1]))
        super().__init__(codes.batch_shape, shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=2)
    def support(self) -> constraints.Constraint:
        return _OfCodebook(self.codebook)

    def expand(self, batch_shape: Sequence[int], _instance: CodeVectors | None = None) -> CodeVectors:
        return CodeVectors(self.codebook, self.codes.expand(torch.Size(batch_shape)), self._validate_args)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self.codebook(self.codes.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.codes.log_prob(self.codebook.nearest(value))


class NearestCode(dist.TorchDistribution):
    """The point mass on the vectors of a codebook that are nearest to given ones; its gradients are not its own.

        q(z) = 1 where z_m = vector of the code nearest to h_m,   log q = 0 there

    log q is 0 in value, for codes are discrete, and its gradient is that of the losses by which a VQ-VAE learns:

        sum_m |sg(h_m) - z_m|^2 + commitment |h_m - sg(z_m)|^2

    where sg holds its argument constant; a draw's gradient is passed on to h as it is (straight-through), and none to
    the codebook. Codes that no row picks are drawn to the h nearest to them, so that none is lost for good. A bound is
    not changed by this, and its gradient is biased.

    Args:
        codebook: the vectors.
        h: shape (*batch, M, D).
        commitment: what the distance counts for h, where it counts 1 for the codebook.
        validate_args: as in every distribution.

    References:
        Neural Discrete Representation Learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, codebook: Codebook, h: Tensor, commitment: float = 0.25, validate_args: bool | None = None):
        self.codebook, self.h, self.commitment = codebook, h, commitment
        self.codes = codebook.nearest(h)
        self._drawn: Tensor | None = None
        super().__init__(h.shape[:-2], h.shape[-2:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=2)
    def support(self) -> constraints.Constraint:
        return _OfCodebook(self.codebook)

    @property
    def mean(self) -> Tensor:
        return self.codebook(self.codes).detach()

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.h)

    def expand(self, batch_shape: Sequence[int], _instance: NearestCode | None = None) -> NearestCode:
        h = self.h.expand(torch.Size((*batch_shape, *self.event_shape)))
        return NearestCode(self.codebook, h, self.commitment, self._validate_args)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        z = self.h + (self.mean - self.h).detach()
        self._drawn = z.expand(torch.Size(sample_shape) + z.shape).clone()
        return self._drawn

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if value is not self._drawn:
            if torch.is_grad_enabled() and self.h.requires_grad:
                raise ValueError(
                    "a point mass on codes has no score: log q cannot be differentiated at given values, as wake-sleep,"
                    " RWS, STL, DReG, VIMCO and score functions of all sites do, and the guide would not learn; use "
                    "ELBO() with estimator=Total()"
                )
            same = (self.codebook.nearest(value) == self.codes).all(-1)
            return torch.where(same, 0.0, -torch.inf).to(self.h.dtype)
        zero = self._losses() if torch.is_grad_enabled() else self.h.new_zeros(self.batch_shape)
        return (zero - zero.detach()).expand(value.shape[:-2])

    def _losses(self) -> Tensor:
        """What the codebook and h learn from, shape (*batch)."""
        z, h = self.codebook(self.codes), self.h
        apart = (h.detach() - z).square() + self.commitment * (h - z.detach()).square()
        rows = h.detach().reshape(-1, h.shape[-1])
        gaps, places = self.codebook.distances(rows).detach().min(0)
        idle = (self.codebook.nearest(rows)[:, None] != torch.arange(len(gaps), device=h.device)).all(0)
        lost = ((rows[places] - self.codebook.vectors).square().sum(-1) * idle).sum()
        return (
            apart.flatten(-2).sum(-1) + lost / self.batch_shape[-1:].numel()
        )  # of the data, each of which counts once in all its particles


def check_codebook(codebook: object) -> Codebook:
    """It, if it is one."""
    if not isinstance(codebook, Codebook):
        got = f"the class {codebook.__name__}" if isinstance(codebook, type) else type(codebook).__name__
        raise TypeError(f"codebook must be a Codebook, got {got}; write Codebook(64, 8)")
    return codebook
