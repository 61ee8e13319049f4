"""What makes a training run that run, so that its checkpoints are told from another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from dlvm.inference.checkpoints.folder import fingerprint
from dlvm.inference.programs.batches import length_of, tensors_of
from dlvm.inference.programs.parameters import declared
from dlvm.inference.training.run_state import Schedule, schedule_state
from dlvm.inference.training.svi import SVI

SCALARS = (bool, int, float, str)
COUNTERS = {"last_epoch", "_step_count", "_last_lr", "T_cur", "T_i"}


def settings_of(
    svi: SVI,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None,
    first: tuple,
    train: Iterable,
    valid: Iterable | None,
    **others: object,
) -> dict:
    """What has to be the same for a run to go on, {word: value in the types of JSON}.

    Args:
        svi: prepared.
        optimizer: of its parameters.
        schedule: of the learning rate, before its first step.
        first: the arguments of one batch.
        train, valid: the data; of a loader, a DataLoader or a list their numbers count, of anything else their number.
        others: as they are; of NumPy's numbers Python's.
    """
    named = {
        f"{word}.{name}": [str(value.dtype), *value.shape]
        for word, owner in svi.pair.owners.items()
        for name, value in ((owner.state_dict() if isinstance(owner, nn.Module) else {}) | declared(owner)).items()
    }
    steps = {} if schedule is None else schedule_state(schedule)
    return {
        "objective": _described(svi.objective),
        "optimizer": {"kind": type(optimizer).__name__, **_scalars(optimizer.defaults)},
        "scheduler": None
        if schedule is None
        else {"kind": type(schedule).__name__, **_scalars({k: v for k, v in steps.items() if k not in COUNTERS})},
        "parameters": named,
        "batch": [[str(a.dtype), *a.shape] for a in first if isinstance(a, Tensor)],
        "train": _data(train),
        "valid": None if valid is None else _data(valid),
        **{name: value.item() if hasattr(value, "item") else value for name, value in others.items()},
    }


def differences(there: object, here: object, name: str = "") -> Iterator[str]:
    """What differs between two such settings, in words, down to the single number."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for word in dict.fromkeys((*there, *here)):
            inner = f"{name}.{word}" if name else word
            yield from differences(there.get(word), here.get(word), inner)
    elif there != here:
        yield f"{name}: {there!r} there, {here!r} here"


def _described(objective: object) -> str:
    """As it is written; of one that has no such form its class and numbers."""
    if type(objective).__repr__ not in (object.__repr__, nn.Module.__repr__):
        return repr(objective)
    numbers = ", ".join(f"{name}={value}" for name, value in _scalars(vars(objective)).items())
    return f"{type(objective).__name__}({numbers})"


def _scalars(held: Mapping) -> dict:
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}
    plain = {
        name: value.item() if isinstance(value, Tensor) and not value.dim() else value for name, value in lists.items()
    }
    return {name: value for name, value in plain.items() if isinstance(value, SCALARS) or _is_plain_list(value)}


def _is_plain_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, SCALARS) for item in value)


def _data(data: Iterable) -> dict:
    batches = length_of(data)
    flags = {
        name: getattr(data, name) for name in ("shuffle", "dynamic") if isinstance(getattr(data, name, None), bool)
    }
    return {"batches": batches, "numbers": [fingerprint(x) for x in tensors_of(data)], **flags}
