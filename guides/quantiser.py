"""The point mass on codes: each vector of an encoder becomes the nearest one of a codebook."""

from __future__ import annotations

import math
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import Codebook
from dlvm.distributions.priors.codebook import NearestCode, check_codebook
from dlvm.guides.sites.arguments import encoder_width
from dlvm.nets.arguments import real


class Quantiser(PyroModule):
    """Guide of ``VQVAE``: the codes whose vectors are nearest to those of an encoder, without any doubt.

        q(z | x) = 1 where z_m = vector of the code nearest to h_m,   h = encoder(x)

    It holds the model's codebook, which learns from it, as does the encoder, by ``NearestCode``: the gradients are
    biased, the bound is one.

    Sites:
        z: shape (batch, M, D), vectors of the codebook.

    Args:
        codebook: that of the model's prior.
        encoder: from the guide's arguments to M vectors in a row, shape (batch, M D), with ``out_features`` = M D.
        commitment: how much the encoder is held to the codebook, where the codebook is to the encoder by 1.

    Raises:
        ValueError: the encoder's width is no multiple of the codebook's D, or ``commitment`` negative or not finite;
            when called, features are of another shape.
        TypeError: ``codebook`` is no Codebook, the encoder has no ``out_features``, or ``commitment`` is no number.

    References:
        Neural Discrete Representation Learning, van den Oord, Vinyals, Kavukcuoglu, 2017, arXiv:1711.00937.

    Example:
        >>> import torch
        >>> from dlvm.nets import MLP
        >>> Quantiser(Codebook(8, 2), MLP(64, 16, 4 * 2)).codes(torch.zeros(5, 64)).shape
        torch.Size([5, 4])
    """

    def __init__(self, codebook: Codebook, encoder: nn.Module, commitment: float = 0.25):
        super().__init__("guide")
        dim, width = check_codebook(codebook).vectors.shape[1], encoder_width(encoder)
        if width % dim:
            raise ValueError(
                f"encoder gives {width} numbers, which make no whole vectors of {dim}, those of the codebook; make its "
                "last width a multiple of that"
            )
        real(commitment=commitment)
        if not 0 <= commitment < math.inf:
            raise ValueError(f"commitment must be at least 0 and finite, got {commitment}; 0.25 is usual")
        self.codebook, self.encoder, self.commitment, self.shape = codebook, encoder, commitment, (width // dim, dim)

    def extra_repr(self) -> str:
        return f"commitment={self.commitment}"

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Runs the program on the model's arguments; returns {site: value}."""
        h = self.vectors(*args, **kwargs)
        with pyro.plate("data", len(h)):
            return {"z": pyro.sample("z", NearestCode(self.codebook, h, self.commitment))}

    def codes(self, *args: Any, **kwargs: Any) -> Tensor:
        """k(x), shape (batch, M), whole numbers."""
        return self.codebook.nearest(self.vectors(*args, **kwargs))

    def vectors(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the encoder makes of the data, shape (batch, M, D)."""
        h = self.encoder(*args, **kwargs)
        if not isinstance(h, Tensor) or h.dim() != 2 or h.shape[1] != self.shape[0] * self.shape[1]:
            got = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
            raise ValueError(f"encoder returned {got}; expected a tensor (batch, {self.shape[0] * self.shape[1]})")
        return h.unflatten(-1, self.shape)
