"""The Sylvester flow, conditioned on a context, with three ways to an orthogonal matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlvm.distributions.flows.base import Flow, OneWay, above_minus_one, shrunk
from dlvm.distributions.flows.householder import reflected
from dlvm.distributions.flows.tanh_inverse import unbent_triangular
from dlvm.distributions.scale import limited, positive
from dlvm.nets.arguments import count, is_count, made, whole


class OrthogonalBasis(nn.Module):
    """Features h -> ``rank`` orthonormal columns: Gram-Schmidt on those of a matrix that is linear in h.

        A = Q U,   U upper triangular with a positive diagonal

    Householder's way to it is exact for columns however close to one another, where the iteration of the paper would
    have to go on and on; a density is only as right as Q is orthogonal. Q is continuous in h wherever A has full rank.

    Args:
        width: number of features.
        dim: rows of Q.
        t: which step of the flow it serves.
        rank: columns of Q; as many as rows unless told.

    Raises:
        ValueError: ``rank`` is not within 1..dim.
    """

    def __init__(self, width: int, dim: int, t: int = 0, rank: int | None = None):
        super().__init__()
        count(width=width, dim=dim)
        whole(t=t, rank=dim if rank is None else rank)
        self.dim, self.rank = dim, dim if rank is None else rank
        if not 0 < self.rank <= dim:
            raise ValueError(f"rank must be within 1 and dim={dim}, got {rank}; leave it out for a square matrix")
        self.linear = shrunk(nn.Linear(width, dim * self.rank))
        with torch.no_grad():
            self.linear.bias.copy_(nn.init.orthogonal_(torch.empty(dim, self.rank)).flatten())

    def forward(self, h: Tensor) -> Tensor:
        q, u = torch.linalg.qr(self.linear(h).unflatten(-1, (self.dim, self.rank)))
        return torch.where(u.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) < 0, -q, q)


class HouseholderBasis(nn.Module):
    """Features h -> a square orthogonal matrix, the product of reflections whose vectors are linear in h.

    Args:
        width, dim, t: see ``OrthogonalBasis``.
        reflections: how many; dim - 1 reach every direction.

    Raises:
        ValueError: ``reflections`` is below 1.
    """

    eye: Tensor

    def __init__(self, width: int, dim: int, t: int = 0, reflections: int = 8):
        super().__init__()
        count(width=width, dim=dim)
        whole(t=t, reflections=reflections)
        if reflections < 1:
            raise ValueError(f"reflections must be at least 1, got {reflections}; for none use PermutedBasis")
        self.rank, self.reflections = dim, reflections
        self.linear = nn.Linear(width, reflections * dim)
        self.register_buffer("eye", torch.eye(dim))

    def forward(self, h: Tensor) -> Tensor:
        q = self.eye
        for v in self.linear(h).unsqueeze(-2).chunk(self.reflections, dim=-1):
            q = reflected(q, v)
        return q


class PermutedBasis(nn.Module):
    """The identity at even steps, the matrix that reverses the order of dimensions at odd ones; the same for any h."""

    q: Tensor

    def __init__(self, width: int, dim: int, t: int = 0):
        super().__init__()
        count(width=width, dim=dim)
        whole(t=t)
        self.rank = dim
        self.register_buffer("q", torch.eye(dim).flip(-1) if t % 2 else torch.eye(dim))

    def forward(self, h: Tensor) -> Tensor:
        return self.q


class Sylvester(OneWay):
    """A planar step with as many directions at once as Q has columns.

        z = y + Q R tanh(S Q'y + b),   log |det dz/dy| = sum_i log(1 + r_ii s_ii tanh'(.)_i),   r_ii s_ii > -1

    With x = S Q'y + b, the inverse goes from the last of M triangular equations to the first:

        y = z - Q R tanh(x),   x + S R tanh(x) = S Q'z + b

    Args:
        q: Q, shape (*batch, D, M), with orthonormal columns.
        r, s: R and S, upper triangular, shape (*batch, M, M).
        b: shape (*batch, M).
    """

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        q, r, s, b = self.parameters
        t = torch.tanh(_times(s, _times(q.mT, y)) + b)
        slope = r.diagonal(dim1=-2, dim2=-1) * s.diagonal(dim1=-2, dim2=-1)
        return y + _times(q, _times(r, t)), torch.log1p(slope * (1 - t.square())).sum(-1)

    def _inverse(self, z: Tensor) -> Tensor:
        q, r, s, b = self.parameters
        x = unbent_triangular(_times(s, _times(q.mT, z)) + b, s @ r)
        return z - _times(q, _times(r, torch.tanh(x)))


class SylvesterStep(nn.Module):
    """Features h -> Sylvester; R and S are linear in h but for diagonals, with r_ii s_ii > -1; R starts near 0."""

    def __init__(self, width: int, dim: int, t: int, basis: Callable[[int, int, int], nn.Module]):
        super().__init__()
        self.basis = made("basis", basis, width, dim, t)
        m = getattr(self.basis, "rank", None)
        if not is_count(m) or m > dim:
            raise TypeError(
                f"basis must make a module with rank, the number of its columns, within 1 and {dim}, got {m!r} from "
                f"{type(self.basis).__name__}; use OrthogonalBasis or set it"
            )
        self.rank, self.linear = m, shrunk(nn.Linear(width, m * m + 2 * m))

    def forward(self, h: Tensor) -> Sylvester:
        flat, raw, b = limited(self.linear(h)).split([self.rank**2, self.rank, self.rank], dim=-1)
        both, diagonal = flat.unflatten(-1, (self.rank, self.rank)), positive(raw)
        slope = above_minus_one(both.diagonal(dim1=-2, dim2=-1))
        r = both.triu(1) + (slope / diagonal).diag_embed()
        return Sylvester(self.basis(h), r, both.tril(-1).mT + diagonal.diag_embed(), b)


class SylvesterNormal(Flow):
    """A diagonal Gaussian followed by ``depth`` Sylvester steps, all given a context.

        z_t = z_{t-1} + Q_t(h) R_t(h) tanh(S_t(h) Q_t(h)'z_{t-1} + b_t(h))

    Args:
        net, dim, depth: see ``Flow``.
        basis: makes Q_t from (width of h, dim, t): ``OrthogonalBasis``, ``HouseholderBasis``, ``PermutedBasis``, or
            one of them with its settings, as ``partial(OrthogonalBasis, rank=8)``.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Sylvester Normalizing Flows for Variational Inference, van den Berg, Hasenclever, Tomczak, Welling, 2018,
        arXiv:1803.05649.

    Example:
        >>> q = SylvesterNormal(nn.Linear(4, 8), 3, basis=PermutedBasis)(torch.zeros(5, 4))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        depth: int = 4,
        basis: Callable[[int, int, int], nn.Module] = OrthogonalBasis,
    ):
        super().__init__(net, dim, depth, lambda width, dim, t: SylvesterStep(width, dim, t, basis))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix @ vector, shapes (*batch, n, m) and (*batch, m); batches broadcast."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
