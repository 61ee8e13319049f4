"""The linear-Gaussian state space model over sequences of several lengths: Kalman's answers, and EM."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import GaussianChain
from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.distributions.sequences.steps import State, Steps
from dlvm.models.arguments import fitting, sequences, sequences_to_draw
from dlvm.nets.arguments import count

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class LinearGaussianSSM(PyroModule):
    """A state that moves linearly, seen through a linear map, with Gaussian noise in both: every answer is known.

        p(x, z) = N(z_1; first_loc, first_scale^2) prod_t N(z_t; A z_t-1, drift^2) prod_t N(x_t; W z_t + loc, scale^2)

    Noise is diagonal. Of one step it is factor analysis. Steps behind a sequence's length count nothing; numbers that
    are NaN were not seen, and are summed out.

    Sites:
        z: shape (batch, steps, z_dim), real; latent.
        x: shape (batch, steps, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        z_dim: dimensions of the state.
        x_dim: number of observed variables.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    References:
        A New Approach to Linear Filtering and Prediction Problems, Kalman, 1960.
        Parameter Estimation for Linear Dynamical Systems, Ghahramani, Hinton, 1996.

    Example:
        >>> LinearGaussianSSM(2, 3)(n=5, steps=7).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, z_dim: int, x_dim: int):
        super().__init__("model")
        count(z_dim=z_dim, x_dim=x_dim)
        self.z_dim, self.x_dim = z_dim, x_dim
        self.first_loc, self.first_log_scale = nn.Parameter(torch.zeros(z_dim)), nn.Parameter(torch.zeros(z_dim))
        self.transition = nn.Parameter(0.9 * torch.linalg.qr(torch.randn(z_dim, z_dim))[0])
        self.log_drift = nn.Parameter(torch.full((z_dim,), -1.0))
        self.weight, self.loc = nn.Parameter(torch.randn(x_dim, z_dim)), nn.Parameter(torch.zeros(x_dim))
        self.log_scale = nn.Parameter(torch.zeros(x_dim))

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps, x_dim), or None to draw.
            lengths: of the sequences, shape (batch,); ``steps`` for each unless told.
            n: how many sequences to draw where x is None.
            steps: of them.

        Returns:
            x.
        """
        n, steps = sequences_to_draw(n, steps, lengths) if x is None else self._checked(x, lengths)
        with pyro.plate("data", n):
            z = pyro.sample("z", self.prior(steps, lengths))
            likelihood = self.likelihood(z, lengths)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def likelihood(self, z: Tensor, lengths: Tensor | None = None) -> dist.TorchDistribution:
        """p(x | z), event shape (steps, x_dim), for z of shape (*batch, steps, z_dim)."""
        single = self._seen_through(z)
        if lengths is not None:
            single = single.mask(steps_within(lengths, z.shape[-2]).unsqueeze(-1))
        return single.to_event(2)

    def _seen_through(self, z: Tensor) -> dist.TorchDistribution:
        return PartlyObserved(dist.Normal(z @ self.weight.T + self.loc, self.log_scale.exp()))

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The program one step at a time, as a particle filter needs it."""
        self._checked(x, lengths)

        def z_given(before: State, t: int) -> dist.TorchDistribution:
            if not t:
                return dist.Normal(self.first_loc, self.first_log_scale.exp()).to_event(1)
            return dist.Normal(before @ self.transition.T, self.log_drift.exp()).to_event(1)

        return Steps(
            start=x.new_zeros(len(x), self.z_dim),
            z_given=z_given,
            after=lambda before, z, t: z,
            x_given=lambda before, z, t: self._seen_through(z).to_event(1),
            x=x,
            lengths=lengths,
            missing=True,
        )

    def prior(self, steps: int, lengths: Tensor | None = None) -> GaussianChain:
        """p(z), event shape (steps, z_dim)."""
        transition, drift = self.transition.expand(steps - 1, -1, -1), self.log_drift.exp().expand(steps - 1, -1)
        first = self.first_loc, self.first_log_scale.exp()
        return GaussianChain.dynamics(*first, transition, drift, lengths=lengths)

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> GaussianChain:
        """Exact p(z | x), smoothed: its mean and covariances are those of Rauch, Tung and Striebel."""
        self._checked(x, lengths)
        return self.prior(x.shape[1], lengths).given(x, self.weight, self.loc, self.log_scale.exp())

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The exact posterior as a program: every log-weight is log p(x)."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x, lengths))

    def log_px(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Exact log p(x) in nats, shape (batch,): log p(x, z) - log p(z | x) at the posterior's mean."""
        posterior = self.posterior(x, lengths)
        z = posterior.mean
        seen = self.likelihood(z, lengths).log_prob(x)
        return self.prior(x.shape[1], lengths).log_prob(z) + seen - posterior.log_prob(z)

    def imputed(self, x: Tensor, lengths: Tensor | None = None, num_draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """What x is where it was not seen, given all that was, exactly: see ``Imputing``."""
        posterior = self.posterior(x, lengths)
        spread = torch.einsum("di,ntij,dj->ntd", self.weight, posterior.covariances[0], self.weight)
        drawn = self.likelihood(posterior.sample((num_draws,)), lengths).sample()
        return posterior.mean @ self.weight.T + self.loc, spread + (2 * self.log_scale).exp(), drawn

    def filtered(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Kalman's filter, for x of shape (batch, steps, x_dim).

        Returns:
            mean of p(z_t | x_1..x_t), shape (batch, steps, z_dim); its covariance, shape (batch, steps, z_dim, z_dim);
            log p(x_t | x_1..x_t-1), shape (batch, steps), nats, 0 behind a sequence's length.
        """
        self._checked(x, lengths)
        within = None if lengths is None else steps_within(lengths, x.shape[1])
        mean: Tensor = self.first_loc
        covariance: Tensor = (2 * self.first_log_scale).exp().diag()
        drift, found = (2 * self.log_drift).exp().diag(), []
        for t in range(x.shape[1]):
            if t:
                mean, covariance = mean @ self.transition.T, self.transition @ covariance @ self.transition.T + drift
            seen = ~x[:, t].isnan() if within is None else ~x[:, t].isnan() & within[:, t, None]
            mean, covariance, log_p = self._updated(mean, covariance, x[:, t], seen)
            found.append((mean, covariance, log_p))
        means, covariances, log_ps = zip(*found, strict=True)
        return torch.stack(means, 1), torch.stack(covariances, 1), torch.stack(log_ps, 1)

    def _updated(self, mean: Tensor, covariance: Tensor, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is known of the state once a step has been seen, and the log-density of that."""
        weight = self.weight * seen.unsqueeze(-1)
        noise = torch.where(seen, (2 * self.log_scale).exp(), 1)
        away = torch.where(seen, x - mean @ self.weight.T - self.loc, 0)
        root = torch.linalg.cholesky(weight @ covariance @ weight.mT + noise.diag_embed())
        white = torch.linalg.solve_triangular(root, away.unsqueeze(-1), upper=False)
        gain = torch.linalg.solve_triangular(root, weight @ covariance, upper=False)
        log_p = -0.5 * white.square().sum((-2, -1)) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_p = log_p - seen.sum(-1).to(log_p.dtype) * HALF_LOG_2PI
        return mean + (gain.mT @ white).squeeze(-1), covariance - gain.mT @ gain, log_p

    @torch.no_grad()
    def expected_statistics(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data: log p(x) of each, and sums over data that ``maximise`` takes; with a = (z, 1)."""
        posterior = self.posterior(x, lengths)
        mean, (singles, pairs) = posterior.mean, posterior.covariances
        within = x.new_ones(x.shape[:2]) if lengths is None else steps_within(lengths, x.shape[1]).to(x.dtype)
        seconds = (singles + mean.unsqueeze(-1) * mean.unsqueeze(-2)) * within[..., None, None]
        moved = (pairs + mean[:, 1:].unsqueeze(-1) * mean[:, :-1].unsqueeze(-2)) * within[:, 1:, None, None]
        seen = (~x.isnan()) * within.unsqueeze(-1)
        filled, a = torch.where(seen > 0, x, 0), nn.functional.pad(mean, (0, 1), value=1.0)
        squares = nn.functional.pad(singles, (0, 1, 0, 1)) + a.unsqueeze(-1) * a.unsqueeze(-2)
        return self.log_px(x, lengths), {
            "aa": torch.einsum("ntd,ntij->dij", seen, squares),
            "xa": torch.einsum("ntd,nti->di", filled, a),
            "xx": filled.square().sum((0, 1)),
            "before": (seconds[:, :-1] * within[:, 1:, None, None]).sum((0, 1)),
            "moved": moved.sum((0, 1)),
            "after": seconds[:, 1:].sum((0, 1)),
            "first": mean[:, 0].sum(0),
            "first_square": seconds[:, 0].diagonal(dim1=-2, dim2=-1).sum(0),
            "steps": within[:, 1:].sum(),
            "sequences": within[:, 0].sum(),
        }

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: least squares of each variable on the state, and of the state on the one before it.

        Raises:
            ValueError: a variable was never seen, no sequence has two steps, or no noise is left.
        """
        s = statistics
        if not s["steps"] > 0 or not (s["aa"][:, -1, -1] > 0).all():
            raise ValueError("x must have sequences of two steps and more, and see each variable somewhere")
        found = torch.linalg.solve(s["aa"], s["xa"].unsqueeze(-1)).squeeze(-1)
        noise = (s["xx"] - (found * s["xa"]).sum(-1)) / s["aa"][:, -1, -1]
        moves = torch.linalg.solve(s["before"], s["moved"], left=False)
        drift = (s["after"] - moves @ s["moved"].T).diagonal() / s["steps"]
        first = s["first"] / s["sequences"]
        spread = s["first_square"] / s["sequences"] - first.square()
        for name, value in (("noise", noise), ("drift", drift), ("first state", spread)):
            if not (value > 0).all():
                left = value.min().item()
                raise ValueError(f"{name} has no variance left, got {left:.2g}; give a smaller z_dim, or more data")
        self.weight.copy_(found[:, :-1])
        self.loc.copy_(found[:, -1])
        self.log_scale.copy_(noise.log() / 2)
        self.transition.copy_(moves)
        self.log_drift.copy_(drift.log() / 2)
        self.first_loc.copy_(first)
        self.first_log_scale.copy_(spread.log() / 2)

    def _checked(self, x: Tensor, lengths: Tensor | None) -> tuple[int, int]:
        """How many sequences and steps there are."""
        return sequences(x, lengths, self.x_dim, self.loc.dtype)
