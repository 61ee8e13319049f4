"""The one place that imports torchvision, and only to download."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from types import ModuleType

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a Library withdraws its schemas when it is collected


def datasets() -> ModuleType:
    """torchvision.datasets, also beside a torch that torchvision's compiled operators were not built for.

    Returns: the module. torchvision describes two of its operators to torch while it is imported; where its
    library does not load (a CUDA build beside a CPU-only torch) their schemas are declared here first.

    Example:
        >>> datasets().MNIST.__name__
        'MNIST'
    """
    if not (_declared or _operators_load()):
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + _BOXES)
        _declared.append(library)
    import torchvision.datasets

    return torchvision.datasets


def download(name: str, folder: Path, timeout: float = 30.0) -> None:
    """Download the idx files of `name` ("MNIST" or "FashionMNIST") into folder/name/raw, checked by md5.

    Raises: OSError or RuntimeError where they cannot be had; `timeout` is in seconds per connection.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        getattr(datasets(), name)(root=folder, download=True)
    finally:
        socket.setdefaulttimeout(before)


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to declare schemas for: the import itself says what is missing
    try:
        for path in Path(spec.origin).parent.glob("_C*"):
            torch.ops.load_library(path)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
