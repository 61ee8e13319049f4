"""A guide to which the classes of some data are known."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dlvm.distributions.priors.labels import Labels, labels_of
from dlvm.nets.arguments import module


class Labelled(PyroModule):
    """Any guide that draws a class, shown labels: it draws the class where there is none.

        q(y, z | x) = q(y | x) q(z | x, y)   without a label,   1[y = label] q(z | x, y)   with one

    q(y | x) is what classifies; labels train it by ``supervised``, since a class that is known is not drawn from it.

    Sites:
        those of the guide.

    Args:
        guide: draws ``site`` as a one-hot vector, or leaves it out; as ``Diagonal(latents(model, x), encoder)``.
        site: the class.

    Raises:
        TypeError: ``guide`` is no module, or ``site`` no word; when called, the site is not one-hot, or labels are no
            tensor.
        ValueError: when called, a label is no class, or there is not one for each datum.

    References:
        Semi-supervised Learning with Deep Generative Models, Kingma, Rezende, Mohamed, Welling, 2014, arXiv:1406.5298.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> from dlvm.guides import Diagonal, Latent
        >>> from dlvm.nets import MLP
        >>> sites = {"y": Latent(torch.Size([3]), constraints.one_hot), "z": Latent(torch.Size([2]))}
        >>> guide = Labelled(Diagonal(sites, MLP(4, 8)))
        >>> guide(torch.zeros(2, 4), torch.tensor([2, 0]))["y"]
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    def __init__(self, guide: nn.Module, site: str = "y"):
        super().__init__("guide")
        module(guide=guide)
        if not isinstance(site, str):
            raise TypeError(f"site must be the name of the class's site, as 'y', got {site!r}")
        self.guide, self.site = guide, site

    def extra_repr(self) -> str:
        return f"site={self.site!r}"

    def forward(self, x: Tensor, y: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Runs the program.

        Args:
            x: the data, with one row each.
            y: labels, shape (batch,), -1 or NaN where there is none; None where no datum has one.
            *args, **kwargs: what else the guide takes.
        """
        rest = (None, *args) if args else ()
        if y is None:
            return self.guide(x, *rest, **kwargs)
        with _Knowing(self.site, y, len(x)):
            return self.guide(x, *rest, **kwargs)


class _Knowing(Messenger):
    """Inside, a class is what its label says where there is one.

    What the guide says of the labels is kept as ``site["infer"]["log_q_label"]``, shape (*batch).
    """

    def __init__(self, site: str, y: Tensor, rows: int):
        super().__init__()
        self.site, self.y, self.rows = site, y, rows

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != self.site or msg["is_observed"]:
            return
        if not isinstance(msg["fn"], dist.OneHotCategorical):
            raise TypeError(
                f"site {self.site!r} must be one class as a one-hot vector, which is what labels are of, got "
                f"{type(msg['fn']).__name__}; name the class's site"
            )
        logits = msg["fn"].logits
        labels: Labels = labels_of(self.y, logits.shape[-1], self.rows)
        msg["fn"] = labels.given(logits)
        msg["infer"] = {**(msg["infer"] or {}), "log_q_label": labels.log_prob(logits)}
