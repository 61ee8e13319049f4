"""The total correlation of the aggregate posterior, weighed more than the rest of the KL."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Independent

from dlvm.inference.distributed.job import Job, joint_sum, sharing
from dlvm.inference.objectives.aided import Aided, refuse_aided
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.rate_control import data_count
from dlvm.inference.objectives.schedules import Schedule, as_schedule
from dlvm.inference.particles.particles import Particles


def total_correlation(objective: Objective, beta: float | Schedule, site: str | None = None) -> Aided:
    """Penalises dependence between latent dimensions while training (beta-TC-VAE).

        bound - (beta - 1) KL(q(z) || prod_d q(z_d)),   q(z) = mean of q(z | x) over data

    q(z) is estimated from the batch itself, by minibatch-weighted sampling: a biased estimate, whose constant part (the
    number of data) has no gradient and is left out. What is reported stays the bound. With ``beta=1`` the training is
    that of the bound itself.

    Returns:
        an objective.

    Args:
        objective: a bound whose draws are reparametrised.
        beta: weight of the total correlation in the KL; a number or a schedule.
        site: the latent site; may be left out where there is only one.

    Raises:
        TypeError: ``objective`` is none of ours.
        ValueError: a negative ``beta``; an objective that is aided already; when used, a site that is unknown, has
            dependent dimensions in the guide, or lies in more than one plate.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen, Li, Grosse, Duvenaud, 2018,
        arXiv:1802.04942.
    """
    return Aided(objective, TotalCorrelation(beta, site))


class TotalCorrelation(nn.Module):
    """The aid of ``total_correlation``."""

    name = "total_correlation"

    def __init__(self, beta: float | Schedule, site: str | None):
        super().__init__()
        if not isinstance(site, str | None):
            raise TypeError(f"site must be the name of a latent site, as 'z', or None, got {site!r}")
        self.beta, self.site = as_schedule(beta, "beta"), site
        self.speaks = isinstance(beta, Schedule) or beta != 1

    def __repr__(self) -> str:
        return f"beta={self.beta!r}" + ("" if self.site is None else f", site={self.site!r}")

    def accept(self, objective: Objective) -> None:
        refuse_aided(objective, self.name)

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        if particles.detached:
            raise ValueError(f"total_correlation goes through the draws, which {objective!r} treats as constants")
        site = _site(particles, self.site)
        trained = objective.surrogate(particles, value)
        if not self.speaks:
            return trained
        job = sharing()
        correlation = estimate(site) if job is None else share_of_estimate(job, site)
        return trained - (self.beta().to(correlation) - 1) * joint_sum(data_count(particles)) * correlation


def estimate(site: dict) -> Tensor:
    """The total correlation of a guide's site over the batch, a 0-d tensor in nats, up to a constant.

        mean_i [ log sum_j q(z_i | x_j) - sum_d log sum_j q(z_id | x_j) ]

    Args:
        site: from the guide's trace, with batch shape (batch,) or (num_particles, batch).
    """
    joint, marginals = _log_sums(site["fn"], _draws(site))
    return (joint - marginals.sum(-1)).mean()


def share_of_estimate(job: Job, site: dict) -> Tensor:
    """In a step of a job, a 0-d tensor whose gradient is this rank's share of that of the estimate over all data.

    Each rank has the densities of all draws under q(. | x_j) of its own data j. What these pull at a draw z_i is added
    up over ranks, and goes on where z_i was drawn.

    Args:
        job: this rank's.
        site: of this rank's part of the batch, see ``estimate``.
    """
    own = _draws(site)
    z, mine = job.gathered(own)
    joint, marginals = _log_sums(site["fn"], z.requires_grad_())
    share = (_part(job, joint) * joint).sum() - (_part(job, marginals) * marginals).sum()
    pull = torch.autograd.grad(share, z, retain_graph=True)[0].contiguous()
    job.add(pull)
    if not job.weight:
        return 0.0 * share
    return (share + (pull[mine] * own).sum()) / (joint.numel() * job.weight)


def _draws(site: dict) -> Tensor:
    """The draws i of a batch, set against its data j: shape (batch i, [num_particles], 1, dim)."""
    z = site["value"]
    return z.flatten(z.dim() - site["fn"].event_dim).movedim(-2, 0).unsqueeze(-2)


def _log_sums(fn: dist.Independent, z: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_j q(z_i | x_j), shape (batch i, [num_particles]), and log sum_j q(z_id | x_j), with dim on the right."""
    each = fn.base_dist.log_prob(z.reshape(*z.shape[:-2], 1, *fn.event_shape)).flatten(-fn.event_dim)
    return each.sum(-1).logsumexp(-1), each.logsumexp(-2)


def _part(job: Job, log_sums: Tensor) -> Tensor:
    """This rank's terms in sums over the data of all ranks, as a share of the whole: its derivative by ``log_sums``."""
    all_ranks = torch.zeros(job.size, *log_sums.shape).to(log_sums)
    all_ranks[job.rank] = log_sums.detach() if job.weight else -torch.inf
    job.add(all_ranks)
    return all_ranks.softmax(0)[job.rank]


def _site(particles: Particles, name: str | None) -> dict:
    sites = {site["name"]: site for site in particles.drawn}
    if name is None and len(sites) > 1:
        raise ValueError(f"total_correlation needs a site, since there are several: {list(sites)}")
    if not sites:
        raise ValueError(
            "total_correlation needs a latent site, and the guide draws none; train on its objective alone"
        )
    name = next(iter(sites)) if name is None else name
    if name not in sites:
        raise ValueError(f"total_correlation names {name!r}, but the latent sites are {list(sites)}; name one of them")
    fn = sites[name]["fn"]
    rank = fn.event_dim
    if not isinstance(fn, Independent) or fn.reinterpreted_batch_ndims != rank or not fn.has_rsample:
        raise ValueError(
            f"total_correlation needs the marginals q(z_d | x) of {name!r}, which {type(fn).__name__} does not give; "
            "use a guide with independent, reparametrised dimensions, as Diagonal"
        )
    if len(particles.layout.plates) != 1 or len(fn.batch_shape) != 1 + (particles.layout.num_particles > 1):
        raise ValueError(
            f"total_correlation needs {name!r} in one plate over data and no other, at dim=-1; write both programs "
            "with one pyro.plate around the sites of a datum, or train on its objective alone"
        )
    return sites[name]
