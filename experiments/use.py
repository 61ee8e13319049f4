"""Puts a finished run to use: codes, reconstructions, samples, scores, missing entries filled in, of a new file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.data.ragged import LENGTHS
from dlvm.experiments.options.command_line import check_options, start
from dlvm.experiments.runs.asked import MANY, Asked
from dlvm.experiments.runs.new_data import description_of, given_of, inputs_of, lacking, read_for, reported_of
from dlvm.experiments.runs.of_sequences import OfSteps, codes_of_steps, drawn_lengths, of_as_many_steps
from dlvm.experiments.runs.restore import restore
from dlvm.experiments.runs.results_file import Results, check_out, columns_of, write
from dlvm.inference import decode, encode, generate, impute, interpolate, log_px, predict, reconstruct, traverse
from dlvm.inference.console import tell
from dlvm.inference.programs.beside import observes_everything
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.use.asking import data_site

Call = Literal["encode", "reconstruct", "score", "impute", "predict", "interpolate", "generate", "traverse"]
OF_DATA = ("encode", "reconstruct", "score", "impute", "predict", "interpolate")
OF_OBSERVED = ("score", "predict", "generate")


@dataclasses.dataclass(frozen=True)
class Config:
    """Encode, reconstruct, score or fill in the rows of a new file by a run of train, or generate new ones."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    call: tyro.conf.Positional[Call]
    """What is asked for: encode (mean and sd of q(z | x), or probabilities), reconstruct (E p(x | z)), score (log
    p(x) of each row, or log p(y | x)), impute (missing entries), predict (--site given x), interpolate (from one of
    --rows to the other), generate (--n draws), traverse (one number of --site at a time)."""
    data: tyro.conf.Positional[Path | None] = None
    """File with new rows, read as the training data were; the run's own test data where there is none."""
    out: Path | None = None
    """File to write, .csv, .tsv, .npy, .npz, .parquet, or .png for images; the terminal unless told."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace that file."""
    num_particles: int | None = None
    """Draws of z per datum; as many as the call takes by itself unless told."""
    n: int = 64
    """How many data to generate."""
    given: tuple[str, ...] = ()
    """What generate conditions on, by name: y=3."""
    site: str = "z"
    """Which site predict and traverse are about."""
    rows: tuple[str, str] = ("0", "1")
    """From which row to which interpolate goes: ids, or numbers from 0."""
    steps: int = 8
    """Of interpolate, and of traverse on the way from -3 to 3."""
    length: int | None = None
    """Steps of each sequence that generate draws; unless told as many as one of the training data has."""
    seed: int = 0
    """Of all draws."""


def encoded(asked: Asked) -> Results:
    """The means and spreads of q(z | x), or the probabilities of classes, of all sites side by side."""
    names: list[str] = []
    parts: list[Tensor] = []
    arrays: dict[str, Any] = {}
    codes = encode(asked.model, asked.guide, asked.args, **asked.options)
    if asked.lengths is not None and (steps := codes_of_steps(codes, asked.args[0].shape[1])) is not None:
        return asked.steps_of(*steps, asked.lengths, asked.index)
    for site, code in codes.items():
        part = code.probabilities if code.mean is None else code.mean
        parts.append(part.reshape(len(part), -1).cpu())
        found = columns_of(site, parts[-1].shape[1], None if code.mean is not None else code.values)
        names += found
        if code.mean is not None:
            parts.append(code.sd.reshape(len(part), -1).cpu())
            names += [f"{name}_sd" for name in found]
        words = ("mean", "sd", "mean_se", "sd_se", "draws", "probabilities")
        arrays |= {f"{site}_{word}": _plain(getattr(code, word)) for word in words}
    return Results(torch.cat(parts, 1), names, asked.index, arrays)


def reconstructed(asked: Asked) -> Results:
    """E p(x | z) of each row; a picture has each datum above its reconstruction."""
    x = reconstruct(asked.model, asked.guide, asked.args, **asked.options)
    found = asked.like_x(x, asked.index)
    count = min(MANY // 4, len(x))
    both = torch.cat([asked.args[0][:count], x[:count]])
    return dataclasses.replace(found, images=found.images and (both, count))


def scored(asked: Asked) -> Results:
    """log p(x) of each row with its error, or log p(y | x)."""
    found = log_px(asked.model, asked.guide, asked.args, **asked.options)
    reported = reported_of(asked.config.run)
    words = ("log_px", "log_px_se", "ess", "khat")
    names = [word.replace("log_px", "bound") for word in words] if reported.startswith("bound") else words
    arrays = {name: _plain(getattr(found, word)) for name, word in zip(names, words, strict=True)}
    bad = int((found.khat > 0.7).sum())
    doubt = f"; k-hat above 0.7 for {bad}, whose number cannot be trusted" if bad else ""
    mean = f"{found.log_px.mean().item():.3f} nats on average over {len(found.log_px)} rows"
    if asked.lengths is not None:
        mean += f", {(found.log_px.sum() / asked.lengths.sum()).item():.3f} per time step"
    tell(f"{reported}: {mean}{doubt}")
    return Results(torch.stack([getattr(found, word) for word in words], 1).cpu(), names, asked.index, arrays)


def imputed(asked: Asked) -> Results:
    """The rows with their missing entries filled in: by means, and classes and counts by a draw."""
    if not asked.args[0].isnan().any():
        tell("no entry is missing, so that the rows come back as they are")
        if asked.lengths is not None:
            return asked.like_x(asked.args[0], asked.index)
    found = impute(asked.model, asked.guide, asked.args, progress=True, **asked.options)
    filled = found.draws[0]
    if found.mean is not None:  # classes and counts, whose draws are whole, keep them: a mean is none of their values
        filled = torch.where((filled == filled.round()).all(0), filled, found.mean)
    scale = asked.scale
    others = {} if found.sd is None else {"sd": _plain(found.sd * scale), "mean_se": _plain(found.mean_se * scale)}
    return asked.like_x(filled, asked.index, draws=_plain(found.draws * scale), **others)


def predicted(asked: Asked) -> Results:
    """The mean of p(site | x), or the probabilities of its classes."""
    found = predict(asked.model, asked.guide, asked.args, asked.config.site, **asked.options)
    part = found.probabilities if found.mean is None else found.mean
    numbers = part.reshape(len(part), -1).cpu()
    words = ("mean", "sd", "mean_se", "draws", "probabilities", "ess", "khat")
    arrays = {word: _plain(getattr(found, word)) for word in words}
    site = asked.config.site
    if found.mean is not None and _draws_by_itself(asked.model) and site == data_site(asked.model):
        return dataclasses.replace(asked.like_x(numbers, asked.index), arrays=arrays)
    names = columns_of(site, numbers.shape[1], None if found.mean is not None else found.values)
    classes = asked.description.get("label_names")
    if classes and site in inputs_of(asked.config.run) and len(classes) == len(names):
        names = [f"{site}={word}" for word in classes]
    return Results(numbers, names, asked.index, arrays)


def interpolated(asked: Asked) -> Results:
    """The way from one row to another."""
    a, b = (tuple(_row(value, place) for value in asked.args) for place in _places(asked))
    model = asked.model if asked.lengths is None else of_as_many_steps(asked.model, a, b)
    x = interpolate(model, asked.guide, a, b, asked.config.steps, **asked.options)[0]
    way = tuple(f"step {i}" for i in range(len(x)))
    return asked.like_x(x, way, side=len(x), **({} if asked.lengths is None else {LENGTHS: a[-1].expand(len(x))}))


def generated(asked: Asked) -> Results:
    """Draws of x; a picture has the means of p(x | z) that they come from, where the likelihood knows them."""
    given = given_of(asked.config.given, asked.config.n)
    model, lengths = asked.model, {}
    if LENGTHS in inputs_of(asked.config.run):
        lengths = {LENGTHS: drawn_lengths(asked.description, asked.config.n, asked.config.length, asked.config.seed)}
        model = OfSteps(model, int(lengths[LENGTHS].max()))
        lengths = lengths if asked.description.get("vocabulary") is None else {}  # text ends by itself
    drawn = generate(model, asked.config.n, {**lengths, **given} or None, **asked.options)
    if LENGTHS in inputs_of(asked.config.run):
        return asked.like_x(drawn[data_site(asked.model)], lengths=lengths.get(LENGTHS))
    name = data_site(asked.model, asked.config.n, given)
    found = asked.like_x(drawn[name], **{site: _plain(value) for site, value in drawn.items() if site != name})
    if found.images is None or len(drawn) == 1:
        return found
    latent = {site: value for site, value in {**drawn, **given}.items() if site != name}
    return dataclasses.replace(found, images=(decode(asked.model, latent)[:MANY], found.images[1]))


def traversed(asked: Asked) -> Results:
    """One number of a site at a time, from -3 to 3, a row of images each."""
    values = torch.linspace(-3, 3, asked.config.steps).tolist()
    x = traverse(asked.model, asked.config.site, values=values, seed=asked.config.seed)
    index = tuple(f"{asked.config.site}_{i} = {value:.3g}" for i in range(len(x)) for value in values)
    return asked.like_x(x.flatten(0, 1), index, side=len(values))


CALLS: dict[str, Callable[[Asked], Results]] = {
    "encode": encoded,
    "reconstruct": reconstructed,
    "score": scored,
    "impute": imputed,
    "predict": predicted,
    "interpolate": interpolated,
    "generate": generated,
    "traverse": traversed,
}


def _draws_by_itself(model: nn.Module) -> bool:
    return "n" in signature_of(model).parameters


def _plain(value: Any) -> Any:
    return None if value is None else value.cpu().numpy()


def _row(value: Any, place: int) -> Any:
    return value[place : place + 1] if isinstance(value, Tensor) else value


def _places(asked: Asked) -> list[int]:
    """The two rows by their ids or numbers."""
    ids = list(asked.index or ())
    count = len(asked.args[0])
    found = []
    for word in asked.config.rows:
        place = ids.index(word) if word in ids else int(word) if word.isdecimal() else count
        if place >= count:
            raise ValueError(f"rows (--rows) must be ids, or numbers from 0 to {count - 1}, got {word!r}")
        found.append(place)
    return found


def main(config: Config) -> None:
    check_options(config)
    check_out(config.out, config.overwrite)
    if config.data is not None and config.call not in OF_DATA:
        raise ValueError(f"{config.call} needs no data, got {config.data}; leave the file out")
    model, guide = restore(config.run)
    description = description_of(config.run, config.data)
    data = read_for(config.run, config.data) if config.call in OF_DATA else None
    args = () if data is None else tuple(_tensor(data, name) for name in inputs_of(config.run))
    known = config.call == "impute" and callable(getattr(model, "imputed", None))  # by what it has summed out
    if config.call not in OF_OBSERVED and args and not known and observes_everything(Pair(model, guide), args, {}):
        raise ValueError(
            f"call must be {' or '.join(OF_OBSERVED)} for a model without latent sites, got {config.call}; there "
            "is nothing to infer"
        )
    if config.call not in OF_DATA and not _draws_by_itself(model):
        raise ValueError(
            f"{config.call} needs a model that draws data by itself, as forward(self, x=None, n=1) does; this one says "
            "what follows from data: dlvm use RUN predict FILE --site y"
        )
    asked = Asked(config, model, guide, description, data, args)
    try:
        found = CALLS[config.call](asked)
    except (TypeError, ValueError) as error:
        absent = [
            name for name, value in zip(inputs_of(config.run), args, strict=False) if value is None and name != LENGTHS
        ]
        if said := lacking(config.run, config.call, absent, config.given, str(error)):
            raise ValueError(said) from error
        raise
    if found.index is not None and found.index is asked.index:  # rows of the file, under the name of its own ids
        reading = description["reading"]
        name = reading.get("sequence_column") or reading.get("index_column") or "id"
        found = dataclasses.replace(found, index_name=name)
    write(found, config.out)
    if config.out is not None:
        print(f"written to {config.out}")


def _tensor(data: Loader, name: str) -> Tensor | None:
    """A tensor of the data by its name; None where the new file has none, as without labels."""
    return data[name] if name in data.rows.names else None


if __name__ == "__main__":
    start(main, Config, "use")
