"""All that a run's next step depends on, as tensors and numbers that can be written down, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from dlvm.inference.programs.modules import module_of
from dlvm.inference.programs.parameters import declared
from dlvm.inference.programs.randomness import generator_state, restore_generators
from dlvm.inference.training.snapshot import put_back
from dlvm.inference.training.svi import SVI

Tensors = dict[str, Tensor]
Schedule = torch.optim.lr_scheduler.LRScheduler
BASELINE = "__baseline"  # what Pyro calls its own
RATES = {"lr", "initial_lr", "max_lr", "min_lr", "base_lrs", "max_lrs"}


def svi_state(svi: SVI, optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict]:
    """Parameters, buffers, what the objective keeps, and the optimizer's state.

    Returns:
        tensors by name, not copied; and numbers in the types of JSON.
    """
    tensors: Tensors = {}
    for word, module in _modules(svi).items():
        tensors |= prefixed(word, module.state_dict())
    for word, owner in _owners(svi).items():
        tensors |= prefixed(f"declared/{word}", declared(owner))
    tensors |= prefixed("store", _declared(svi, optimizer))
    state = optimizer.state_dict()
    numbers: dict[str, dict] = {}
    for index, held in state["state"].items():
        for name, value in held.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    groups = [{name: _plain(value) for name, value in group.items()} for group in state["param_groups"]]
    return tensors, {"groups": groups, "numbers": numbers}


@torch.no_grad()
def restore_svi(svi: SVI, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], record: Mapping) -> None:
    """Puts back what ``svi_state`` gave, in place."""
    for word, module in _modules(svi).items():
        module.load_state_dict(under(tensors, word))
    for word, owner in _owners(svi).items():
        put_back(declared(owner), under(tensors, f"declared/{word}"))
    stored, known = under(tensors, "store"), _declared(svi, optimizer)
    with svi.store():
        store = pyro.get_param_store()
        for name in known.keys() - stored.keys():
            del store[name]
        for name, value in stored.items():
            if name in known:
                known[name].copy_(value)
            else:
                store.setdefault(name, value.clone())
    state: dict[int, dict] = {int(index): dict(held) for index, held in record["numbers"].items()}
    for name, value in under(tensors, "optimizer").items():
        index, _, word = name.partition("/")
        state.setdefault(int(index), {})[word] = value
    groups = [
        {name: _as(value, now.get(name)) for name, value in group.items()}
        for group, now in zip(record["groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def schedule_state(schedule: Schedule) -> dict:
    """Where a schedule stands, and those that it is made of, in the types of JSON."""
    own = {name: _plain(value) for name, value in vars(schedule).items() if name != "_schedulers"}
    plain = {name: value for name, value in own.items() if _is_plain(value)}
    return plain | {"_schedulers": [schedule_state(part) for part in getattr(schedule, "_schedulers", ())]}


def restore_schedule(schedule: Schedule, record: Mapping) -> None:
    """Puts back what ``schedule_state`` gave."""
    vars(schedule).update({name: deepcopy(value) for name, value in record.items() if name != "_schedulers"})
    for part, state in zip(getattr(schedule, "_schedulers", ()), record["_schedulers"], strict=True):
        restore_schedule(part, state)


def slow_down(optimizer: torch.optim.Optimizer, schedule: Schedule | None, factor: float) -> None:
    """Multiplies the learning rates from now on, those of the schedule too."""
    for group in optimizer.param_groups:
        for name in RATES & group.keys():
            group[name] = group[name] * factor
    for part in _parts(schedule):
        for name in RATES & vars(part).keys():
            setattr(part, name, [rate * factor for rate in getattr(part, name)])


def _parts(schedule: Schedule | None) -> Iterator[Schedule]:
    if schedule is not None:
        yield schedule
        for part in getattr(schedule, "_schedulers", ()):
            yield from _parts(part)


def random_state() -> tuple[Tensors, dict]:
    """Where the process's generators stand."""
    states, cuda = generator_state()
    kind, keys, *rest = states["numpy"]
    tensors = {"torch": states["torch"], "numpy": torch.from_numpy(keys.astype(np.int64))}
    tensors |= {f"cuda{i}": value for i, value in enumerate(cuda or ())}
    version, internal, gauss = states["random"]
    return tensors, {"numpy": [kind, *rest], "python": [version, list(internal), gauss]}


def restore_random(tensors: Mapping[str, Tensor], record: Mapping) -> None:
    """Puts back what ``random_state`` gave."""
    kind, *rest = record["numpy"]
    version, internal, gauss = record["python"]
    states = {
        "torch": tensors["torch"],
        "numpy": (kind, tensors["numpy"].numpy().astype(np.uint32), *rest),
        "random": (version, tuple(internal), gauss),
    }
    cuda = [tensors[f"cuda{i}"] for i in range(sum(name.startswith("cuda") for name in tensors))]
    restore_generators((states, cuda or None))


def loader_state(data: object) -> Tensors:
    """Where a loader's own random stream stands; empty where it has none.

    Raises:
        TypeError: its ``state_dict`` holds something else than tensors.
    """
    if hasattr(data, "state_dict"):
        state = dict(data.state_dict())
        if other := [name for name, value in state.items() if not isinstance(value, Tensor)]:
            raise TypeError(
                f"the state_dict of a loader must hold tensors, to be written down without pickle, and {other[0]!r} "
                "holds something else; turn it into a tensor"
            )
        return state
    return {name: generator.get_state() for name, generator in _generators(data).items()}


def restore_loader(data: object, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what ``loader_state`` gave."""
    if hasattr(data, "load_state_dict"):
        data.load_state_dict(dict(tensors))
    else:
        for name, generator in _generators(data).items():
            generator.set_state(tensors[name])


def _generators(data: object) -> dict[str, torch.Generator]:
    """Those that a DataLoader and its sampler draw from."""
    held = {"generator": data, "sampler": getattr(data, "sampler", None)}
    found = {name: getattr(owner, "generator", None) for name, owner in held.items()}
    return {name: generator for name, generator in found.items() if isinstance(generator, torch.Generator)}


def prefixed(word: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """{word/name: tensor}."""
    return {f"{word}/{name}": value for name, value in tensors.items()}


def under(tensors: Mapping[str, Tensor], word: str) -> Tensors:
    """What ``prefixed`` put under a word."""
    return {name[len(word) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{word}/")}


def _modules(svi: SVI) -> dict[str, nn.Module]:
    return {word: owner for word, owner in _owners(svi).items() if isinstance(owner, nn.Module)}


def _owners(svi: SVI) -> dict[str, object]:
    objective = module_of(svi.objective)
    return svi.pair.owners | ({} if objective is None else {"objective": objective})


def _declared(svi: SVI, optimizer: torch.optim.Optimizer) -> Tensors:
    """What was declared by ``pyro.param``: in a store that others share, the run's own parameters and baselines."""
    found = {name: value for store in svi.stores() for name, value in store.items()}
    if not svi.pair.shows:
        return found
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: value for name, value in found.items() if id(value) in trained or name.startswith(BASELINE)}


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, Tensor) else value


def _is_plain(value: object) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, int | float | str | None)


def _as(value: Any, like: object) -> Any:
    """A value from JSON in the type that the optimizer has for it."""
    if isinstance(like, tuple):
        return tuple(value)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device) if isinstance(like, Tensor) else value
