"""A folder from a stranger: nothing that it names is called, and nothing of the standard library can be named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import saved_pairs
from torch import nn

from dlvm.inference import load, save
from dlvm.inference.saved.files import packed, read, unpacked

FORBIDDEN = [
    *(
        "os:system",
        "posix:system",
        "subprocess:Popen",
        "builtins:eval",
        "builtins:exec",
        "builtins:getattr",
        "pickle:loads",
    ),
    *("importlib:import_module", "runpy:run_path", "webbrowser:open", "shutil:rmtree", "ctypes:CDLL", "operator:call"),
    *(
        "functools:partial",
        "types:FunctionType",
        "antigravity:geohash",
        "this:s",
        "pathlib:Path",
        "tempfile:_TemporaryFileCloser",
    ),
    *("torch:load", "torch.serialization:load", "torch.hub:load", "torch.utils.cpp_extension:load", "torch.jit:load"),
    *(
        "numpy:load",
        "numpy.lib.npyio:load",
        "pyro.params.param_store:ParamStoreDict",
        "pyro.params.param_store:ParamStoreDict.load",
    ),
    *(
        "saved_pairs:json.loads",
        "saved_pairs:Path",
        "dlvm.inference.checkpoints.folder:os.system",
        "saved_pairs:NET.forward",
    ),
    *(
        "dlvm.inference.saved.names:importlib.import_module",
        "no_such_module:f",
        "torch.nn:no_such",
        "",
        ":",
        "torch",
        "torch:",
    ),
]


def part(kind: str, name: str) -> dict:
    """A part of some kind with a name in it."""
    more: dict[str, Any] = {"items": [], "held": {}, "slots": {}, "training": True, "parameters": {}, "buffers": {}}
    more |= {"passing": [], "modules": {}, "parametrized": []}
    return {"kind": kind, "name": name, "class": name, **more}


@pytest.fixture(scope="module")
def crafted(tmp_path_factory) -> Callable:
    """(parts) -> a folder of them, its checksums right, the first of them a module's attribute."""
    folder = tmp_path_factory.mktemp("crafted")
    save(folder, nn.Linear(2, 1), nn.Identity())
    original = read(folder)

    def craft(*parts: dict):
        content, numbers = unpacked(original)
        begin = len(content["parts"])
        content["parts"][0]["held"]["odd"] = {"part": begin}
        for name, held in packed(content["pair"], [*content["parts"], *parts], numbers).items():
            (folder / name).write_bytes(held)
        return folder, begin

    return craft


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_runs_or_reads_cannot_be_named(crafted, name):
    for kind in ("name", "constant", "object", "module", "named", "member"):
        folder, _ = crafted(part(kind, name))
        with pytest.raises(ValueError, match="folder must hold a pair that was saved whole"):
            load(folder)
    assert not {"antigravity", "this"} & set(sys.modules)


def test_nor_called_by_way_of_a_part(crafted):
    at = crafted(part("list", ""))[1]
    name = {"kind": "name", "name": "posix:system"}
    empty = {"kind": "tuple", "items": []}
    wrapped = {
        "kind": "partial",
        "function": {"part": at + 1},
        "arguments": {"part": at + 2},
        "keywords": {"part": at + 3},
    }
    for parts in (
        (wrapped | {"held": {}}, name, empty, {"kind": "dict", "items": []}),
        ({"kind": "method", "name": "system", "of": {"part": at + 1}}, {"kind": "constant", "name": "os:path"}),
        ({"kind": "method", "name": "__init__", "of": {"part": at + 1}}, {"kind": "list", "items": []}),
        ({"kind": "_init__", "parts": [], "files": {}},),
        ({"kind": "items", "items": []},),
        ({"kind": "tuple", "items": [{"part": at}]},),
        ({"kind": "torch", "name": "load"},),
        ({"kind": "default", "factory": {"part": at + 1}, "items": []}, name),
    ):
        with pytest.raises(ValueError, match="folder must hold a pair that was saved whole"):
            load(crafted(*parts)[0])


def test_no_constructor_runs_and_no_setter(crafted, monkeypatch):
    called: list = []
    folder, _ = crafted(part("object", "saved_pairs:Counts") | {"held": {"seen": 7}})
    monkeypatch.setattr(saved_pairs.Counts, "__init__", lambda *args: called.append(args))
    monkeypatch.setattr(saved_pairs.Counts, "__setattr__", lambda *args: called.append(args))
    assert load(folder)[0].odd.seen == 7 and not called
    monkeypatch.setattr(saved_pairs.Counts, "__del__", lambda self: None, raising=False)
    with pytest.raises(ValueError, match="an object of the class saved_pairs.Counts"):
        load(folder)


def test_a_tensor_cannot_reach_beyond_its_memory(crafted):
    facts = {
        "file": "model",
        "name": "weight",
        "dtype": "float32",
        "shape": [9],
        "parameter": False,
        "requires_grad": False,
    }
    for within in ({"offset": 0, "stride": [1]}, {"offset": 10**6, "stride": [0]}, {"offset": -4, "stride": [1]}):
        folder, _ = crafted({"kind": "tensor", "facts": facts | {"within": within}, "held": {}})
        with pytest.raises(ValueError, match="folder must hold a pair that was saved whole"):
            load(folder)
