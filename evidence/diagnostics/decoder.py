"""Whether a decoder is as sharp as the data, and as sure of itself as it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from dlvm.evidence.diagnostics.decoder_record import BernoulliDecoder, GaussianDecoder
from dlvm.evidence.diagnostics.decoder_sums import BernoulliSums, GaussianSums, decoded
from dlvm.evidence.diagnostics.guide_draws import draw_each
from dlvm.inference.particles.particles import Particles
from dlvm.inference.programs.pair import Pair
from dlvm.nets.arguments import widths


def decoder_report(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int = 10,
    image_shape: tuple[int, ...] | None = None,
    site: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> GaussianDecoder | BernoulliDecoder:
    """Holds predictions E[x | z], z ~ q(z | x), against the data.

        Gaussian:   scale*^2 = E_q (x - E[x | z])^2,   gain = E_q log p*(x | z) - E_q log p(x | z)
        Bernoulli:  p = E[x | z] against how often x = 1 where p was predicted

    A scale larger than the residuals makes a decoder blurry, and lets it leave latents unused: p* has the best constant
    scale, at the present means. Both kinds: the power of the means over data against that of the data.

    Returns:
        a ``GaussianDecoder`` or a ``BernoulliDecoder``, by the likelihood of the observed site.

    Args:
        model, guide: Pyro programs of the same signature, x | z independent Normal or Bernoulli variables.
        data: a tensor x, or an iterable of batches (tuples of arguments).
        num_particles: draws of z per datum.
        image_shape: (height, width) or (channels, height, width) of a datum, to compare power at frequencies above half
            of the Nyquist frequency.
        site: the observed site, where there are several.
        rows: how many data at once; picked from the width of x unless told.
        seed: of the draws.
        progress: show a bar with the time left. After Ctrl-C the record is of the data that were done.

    Raises:
        ValueError: ``image_shape`` does not fit, ``site`` is not observed, or as for ``evaluate``.
        TypeError: the likelihood is of another kind.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.8.2, arXiv:1906.02691.
        Simple and Effective VAE Training with Calibrated Decoders, Rybkin, Daniilidis, Levine, 2021, arXiv:2006.13202.

    Example:
        >>> import torch
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.randn(50, 3)
        >>> decoder_report(model, Diagonal(latents(model, x), MLP(3, 8)), x).scale_per_dim.shape
        torch.Size([3])
    """
    _check(image_shape, site)
    sums: list[GaussianSums | BernoulliSums] = []

    def take(found: Particles, args: tuple) -> None:
        part = decoded(found, site)
        if not sums:
            sums.append(BernoulliSums(part, image_shape) if part.scale is None else GaussianSums(part, image_shape))
        sums[0].add(part)

    complete = draw_each(Pair(model, guide), data, num_particles, take, rows, seed, progress, "decoding")
    return sums[0].result(complete)


def _check(image_shape: object, site: object) -> None:
    widths(image_shape=() if image_shape is None else image_shape)
    if site is not None and not isinstance(site, str):
        raise TypeError(f"site must be the name of an observed site, got {site!r}; pass a string such as 'x'")
