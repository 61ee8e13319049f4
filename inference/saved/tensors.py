"""Tensors as safetensors hold them: their numbers once, and beside them what makes them the same again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlvm.inference.saved.names import Unwritable

Facts = dict[str, Any]
FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
NATIVE = FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
ALIGNED = 16  # bytes


class Tensors:
    """Tensors on their way to disk, by file and name; those that share memory will share it again."""

    def __init__(self) -> None:
        self.found: list[tuple[Tensor, Facts]] = []

    def facts(self, tensor: Tensor, file: str, name: str) -> Facts:
        """What is to be known of a tensor beside its numbers; ``packed`` adds where they lie.

        Raises:
            Unwritable: it has no numbers in memory, or is of another kind.
        """
        refuse_odd(tensor)
        facts: Facts = {"file": file, "name": name, "dtype": str(tensor.dtype).removeprefix("torch.")}
        facts |= {"shape": list(tensor.shape), "parameter": isinstance(tensor, nn.Parameter)}
        facts |= {"requires_grad": tensor.requires_grad and tensor.is_leaf}
        self.found.append((tensor, facts))
        return facts

    def packed(self) -> dict[str, dict[str, Tensor]]:
        """{file: {name: tensor}}, on the CPU, none of which shares memory with another."""
        groups: dict[int, list[tuple[Tensor, Facts]]] = {}
        for tensor, facts in self.found:
            groups.setdefault(tensor.untyped_storage()._cdata, []).append((tensor, facts))
        files: dict[str, dict[str, Tensor]] = {}
        for group in groups.values():
            (first, facts), *others = group
            if others:
                values = _together(group)
                for _, theirs in others:
                    theirs |= {"file": facts["file"], "name": facts["name"]}
            else:
                values = _alone(first, facts)
            files.setdefault(facts["file"], {})[facts["name"]] = values
        return files


def refuse_odd(tensor: Tensor) -> None:
    """Raises Unwritable where a tensor has no numbers in memory, one after the other, or is of a class of its own."""
    if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
        raise Unwritable("a parameter that has no shape yet; run the program on data once")
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        raise Unwritable(f"a tensor of layout {tensor.layout}; keep it dense, by .to_dense(), or by its parts")
    if tensor.is_meta:
        raise Unwritable("a tensor on the device meta, which has no numbers; give it some, by .to_empty(device='cpu')")
    if type(tensor) not in (Tensor, nn.Parameter):
        raise Unwritable(f"a tensor of the class {type(tensor).__name__}; keep a plain tensor, by .as_subclass(Tensor)")


def _alone(tensor: Tensor, facts: Facts) -> Tensor:
    """The numbers of a tensor that shares its memory with none."""
    value = tensor.detach().resolve_conj().resolve_neg()
    if spread := [i for i, step in enumerate(value.stride()) if step == 0 and value.shape[i] > 1]:
        facts["expanded"] = spread
        for i in spread:
            value = value.narrow(i, 0, 1)
    elif not value.is_contiguous() and _is_dense(value):
        facts["stride"] = list(value.stride())
    value = value.cpu().clone(memory_format=torch.contiguous_format)
    return value if value.dtype in NATIVE else value.reshape(-1).view(torch.uint8)


def _is_dense(value: Tensor) -> bool:
    """Whether it is a contiguous tensor whose dimensions have been exchanged."""
    order = sorted(range(value.dim()), key=value.stride, reverse=True)
    return value.permute(order).is_contiguous()


def _together(group: list[tuple[Tensor, Facts]]) -> Tensor:
    """The bytes that several tensors are views of."""
    places = [(tensor.storage_offset() * tensor.element_size(), tensor) for tensor, _ in group]
    begin = min(place for place, _ in places) // ALIGNED * ALIGNED
    end = max(place + _reach(tensor) * tensor.element_size() for place, tensor in places)
    for (place, tensor), (_, facts) in zip(places, group, strict=True):
        if tensor.is_conj() or tensor.is_neg():
            raise Unwritable("a conjugated view of another tensor; keep a copy, by .clone()")
        facts["within"] = {"offset": (place - begin) // tensor.element_size(), "stride": list(tensor.stride())}
    first = group[0][0]
    whole = torch.empty(0, dtype=torch.uint8, device=first.device)
    return whole.set_(first.untyped_storage(), begin, (end - begin,), (1,)).cpu().clone()


def _reach(tensor: Tensor) -> int:
    """Elements from a tensor's first to behind its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((n - 1) * step for n, step in steps) if tensor.numel() else 0


class Unpacked:
    """Tensors as they come back from files.

    Args:
        files: {file: {name: tensor}}.
    """

    def __init__(self, files: Mapping[str, Mapping[str, Tensor]]):
        self.files = {  # in memory of torch's own, whose alignment decides on rounding
            file: {name: value.clone() for name, value in held.items()} for file, held in files.items()
        }
        self.bytes = {file: {name: value.nbytes for name, value in held.items()} for file, held in files.items()}

    def tensor(self, facts: Facts) -> Tensor:
        """The tensor that ``Tensors.facts`` was asked for; those that shared memory do so again."""
        value, dtype = self.files[facts["file"]][facts["name"]], _dtype(facts["dtype"])
        shape = torch.Size(facts["shape"])
        if "within" in facts:
            whole, within = value.untyped_storage(), facts["within"]
            value = torch.empty(0, dtype=dtype).set_(whole, within["offset"], shape, within["stride"])
            if whole.nbytes() != self.bytes[facts["file"]][facts["name"]]:
                raise ValueError(f"{facts['name']} reaches beyond its memory")
        else:
            if value.dtype != dtype:
                value = value.view(dtype)
            if "expanded" in facts:
                value = value.reshape([1 if i in facts["expanded"] else n for i, n in enumerate(shape)]).expand(shape)
            value = value.reshape(shape)
            if "stride" in facts:
                value = torch.empty_strided(shape, facts["stride"], dtype=dtype).copy_(value)
        if facts["parameter"]:
            return nn.Parameter(value, facts["requires_grad"])
        return value.requires_grad_() if facts["requires_grad"] else value


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no type of tensors")
    return found


def same_bits(first: Mapping[str, Mapping[str, Tensor]], second: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether two sets of files hold the same, to the last bit."""
    ours, theirs = (
        {(f, n): value for f, held in files.items() for n, value in held.items()} for files in (first, second)
    )
    return ours.keys() == theirs.keys() and all(_bits(value) == _bits(theirs[key]) for key, value in ours.items())


def _bits(value: Tensor) -> bytes:
    return value.reshape(-1).view(torch.uint8).numpy().tobytes()
