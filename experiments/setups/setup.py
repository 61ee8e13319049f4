"""What a model is to scripts: a dataclass whose fields are its options, with all else that a script must know of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.measures.draws import NOISE, latent_sites
from dlvm.experiments.options.fitting import levels_of
from dlvm.experiments.options.guides import own
from dlvm.experiments.options.words import told
from dlvm.guides import Dequantiser, FullyObserved, latents
from dlvm.inference import Objective
from dlvm.inference.programs.randomness import untouched
from dlvm.models import Dequantised
from dlvm.nets import MLP

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing

LOG_PX = "log p(x)"


class Setup:
    """A model as scripts train it: a frozen dataclass whose fields are its options, all of them with defaults.

    Only ``model`` must be written; the rest suits real numbers in one matrix x until told otherwise.

    Attributes:
        binary: whether its data are binary, so that grey levels are binarised unless asked for as they are.
        nonlinearity: of its nets, and of a flow in its guide.
        inputs: names of the data's tensors that make a batch, in the order of the model's arguments.
        summed_out: latent sites that the model marks to be summed out, and that no guide is to draw.
        defaults: {option of a script: value} where this model needs another than the script's, as
            ``{"estimator": "vimco"}`` for discrete latents. An option that is given goes before.
        encoder_layers, decoder_layers: the fields with the hidden layers of the encoder and of p(x | z), if any.
        reported: what "log p(x)" is of this model, as "log p(y | x)".
        exact: what is known exactly of the model, in a phrase for the catalogue, as "log p(x), in closed form".
        command: options of a run that suits it, as "--data digits --z-dim 8".

    Example:
        >>> from dataclasses import dataclass
        >>> from dlvm.distributions import DiagonalNormal
        >>> from dlvm.models import VAE
        >>> @dataclass(frozen=True)
        ... class MySetup(Setup):
        ...     z_dim: int = 2
        ...     def model(self, data):
        ...         return VAE(self.z_dim, DiagonalNormal(MLP(self.z_dim, 16), data.x_dim))
        >>> MySetup(z_dim=3).binary
        False
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    encoder_layers: ClassVar[str | None] = None
    decoder_layers: ClassVar[str | None] = None
    reported: ClassVar[str] = LOG_PX
    exact: ClassVar[str] = ""
    command: ClassVar[str] = ""

    @property
    def binary(self) -> bool:
        return False

    @property
    def nonlinearity(self) -> Callable:
        return nn.Tanh

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ()

    @property
    def dequantise(self) -> str:
        """Whether its data are grey levels and its density is of numbers in their cells: none, uniform, variational."""
        return "none"

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x",)

    def shown(self, data: Splits) -> Splits:
        """The data in batches of what the model takes, those of ``inputs`` unless told otherwise."""
        return data if self.inputs == ("x",) else Splits(*(loader.giving(*self.inputs) for loader in data))

    def model(self, data: Loader) -> nn.Module:
        """A fresh p(x, z) for these data."""
        raise NotImplementedError(f"{type(self).__name__} must define model(self, data), which returns a Pyro program")

    def encoder(self, data: Loader) -> nn.Module:
        """The net from x to features that a guide of this model takes."""
        return MLP(data.x_dim, 100, 100, activation=self.nonlinearity)

    def joined(self, model: nn.Module, guide: nn.Module, data: Loader) -> None:
        """Gives a fresh model what it needs of its guide, as a prior that is made of posteriors does; nothing here."""

    def completed(self, guide: nn.Module) -> nn.Module:
        """The guide of a family with what this model needs around it; as it is unless told otherwise."""
        return guide

    def aided(self, objective: Objective, data: Loader) -> Objective:
        """What trains the pair where a bound is asked for: the bound, or the bound with an aid; never another bound."""
        return objective

    def guide(self, model: nn.Module, data: Loader) -> nn.Module:
        """The guide that belongs to this model alone, which ``--guide own`` asks for.

        Raises:
            ValueError: it has none.
        """
        raise ValueError("guide must be a family, as diagonal, for a model without a guide of its own, got own")

    def guided(self, model: nn.Module, sites: Mapping[str, Any], family: Callable, data: Loader, net: nn.Module) -> Any:
        """A fresh guide of these latent sites: of a family, or the model's own."""
        return self.guide(model, data) if family is own else self.completed(family(sites, net))

    def evaluated(self, model: nn.Module, guide: nn.Module, data: Loader) -> tuple[nn.Module, nn.Module]:
        """The pair that is reported and kept: these two, or what a trained pair says of data to come."""
        return model, guide

    def settled(self, model: nn.Module, guide: nn.Module, judged: tuple[nn.Module, nn.Module], data: Loader) -> None:
        """What is done to the pair that is reported once the other is trained, as to find its q(w); nothing here."""

    def cell_noise(self, data: Loader) -> nn.Module | None:
        """q(u | x) of the noise within cells where ``dequantise`` asks for one; None where it is uniform."""
        return None

    def trained(self, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The programs whose steps train the pair: these two, or others that hold their parameters."""
        return model, guide

    def optimum(self, data: Loader) -> nn.Module | None:
        """The model of highest likelihood, where it is known in closed form."""
        return None

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Further numbers by which a trained pair is judged, {name: value}, as the accuracy of predicted classes."""
        return {}

    def parts(self, data: Loader) -> Mapping[str, float]:
        """Of how many parts a datum consists on average, {part: number}: nats are told of each as well."""
        return {}

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """What is worth seeing of a trained pair: the name of each picture, what draws it, and its caption."""
        from dlvm.experiments.setups.pictures import pictures

        yield from pictures(model, guide, data)


def fresh_pair(
    setup: Setup, data: Loader, family: Callable, encoder: Setup | None = None, observed: bool = False
) -> tuple[nn.Module, nn.Module]:
    """A fresh model and a fresh guide of it, where the data lie.

    Args:
        setup: of the model.
        data: gives the width, the start, and an example to trace the model with.
        family: (latents, encoder) -> guide; ``own`` for the model's own.
        encoder: the setup whose encoder is taken; the model's own unless told.
        observed: whether a model without latent sites to be drawn will do, whose guide draws nothing.

    Raises:
        ValueError: a setup of one's own raises an exception, or returns no module; or the model has no latent sites,
            and is not to be ``observed``.
    """
    inner = made(setup, "model", data).to(data.device)
    model = inner if setup.dequantise == "none" else Dequantised(inner, levels_of(data))
    found = latent_sites(model, data, noise=inner is model)  # a setup may put noise within cells by itself
    sites = {name: site for name, site in found.items() if name not in setup.summed_out}
    if not sites and not observed:
        refuse_observed(model, data, setup.summed_out)
    guide: nn.Module = FullyObserved()
    if sites:
        net = made(encoder or setup, "encoder", data)
        guide = setup.guided(inner, sites, family, data, net).to(data.device)
        setup.joined(inner, guide, data)
    if inner is model:
        return model, guide
    noise = latents(model, *data.examples)[NOISE]
    return model, Dequantiser(guide, noise, setup.cell_noise(data)).to(data.device)


def check_latent(setup: Setup, data: Loader) -> None:
    """Refuses a model without latent sites, or whose batches hold more than x, where guides are compared.

    Raises:
        ValueError: it is one of these.
    """
    check_x_alone(setup)
    with untouched():
        model = made(setup, "model", data).to(data.device)
    refuse_observed(model, data, setup.summed_out)


def refuse_observed(model: nn.Module, data: Loader, summed_out: tuple[str, ...] = ()) -> None:
    """Raises ValueError for a model without latent sites, or all of whose sites are to be summed out."""
    if not latent_sites(model, data).keys() - set(summed_out):
        instead = ", or let a guide draw what is summed out: --no-sum-out" if summed_out else ""
        raise ValueError(
            f"model {type(model).__name__} has no latent sites{' to be drawn' if summed_out else ''}, so that there is "
            f"nothing for a guide to infer, and log p(x) is exact: train it with dlvm.experiments.train{instead}"
        )


def made(setup: Setup, part: str, data: Loader) -> nn.Module:
    """The model, or the encoder, of a setup; what a setup of one's own does wrong is said with its line."""
    if type(setup).__module__.startswith(f"{__package__}."):
        return getattr(setup, part)(data)
    what = f"model: {type(setup).__module__}:{type(setup).__name__}.{part}(data)"
    found = told(what, getattr(setup, part), data)
    if not isinstance(found, nn.Module):
        raise ValueError(f"{what} must return a module, got {type(found).__name__}; return a PyroModule or nn.Module")
    return found


def with_layers(setup: Setup, field: str | None, layers: tuple[int, ...]) -> Setup:
    """The setup with other hidden layers, those of ``encoder_layers`` or ``decoder_layers``."""
    return replace(setup, **{str(field): layers})  # type: ignore[type-var]  # a dataclass


def encoder_layers(setup: Setup) -> tuple[int, ...] | None:
    """The hidden layers of its encoder; None for a model that does not say which option holds them."""
    return None if setup.encoder_layers is None else tuple(getattr(setup, setup.encoder_layers))


def check_x_alone(setup: Setup) -> None:
    """Refuses a model whose batches hold more than x, where a script knows no other.

    Raises:
        ValueError: it takes others as well.
    """
    if setup.inputs != ("x",):
        raise ValueError(
            f"model must take x alone here, got one that takes {', '.join(setup.inputs)}; use train or gaps"
        )


def check_whole(data: Loader) -> None:
    """Raises ValueError where entries are missing, of which a plain network makes NaN."""
    if data.has_missing:
        raise ValueError(
            "data have missing entries, which this model's network cannot take; fill them first (dlvm use RUN impute, "
            "of --model vae), leave the columns out by --drop-columns, or give rows without holes"
        )


def num_parameters(*modules: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(math.prod(p.shape) for module in modules for p in module.parameters() if p.requires_grad)
