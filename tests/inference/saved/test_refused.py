"""What cannot be written down is refused by the name of the place where it lies, and nothing is written."""

from __future__ import annotations

import datetime
import importlib
import os
import random
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pyro
import pytest
import saved_pairs
import torch
from saved_pairs import Both, X, function, its_guide, vae
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import load, save
from dlvm.nets import MLP

ROOT = Path(__file__).parents[3]


class Holder(nn.Module):
    """Holds what it is given."""

    def __init__(self, odd: object = None):
        super().__init__()
        self.net, self.odd = nn.Linear(2, 2), odd

    def forward(self, x):
        return self.net(x)


class Whole(int):
    pass


class Stateful:
    def __getstate__(self):
        return {}


class Closing:
    def __del__(self):
        pass


class Unsteady:
    """Its attributes are not what they were set to."""

    def __init__(self):
        self.value = 1

    def __setattr__(self, name, value):
        vars(self)[name] = value


def local_class() -> type:
    class Local(nn.Module):
        pass

    return Local


def hooked() -> nn.Module:
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *_: None)
    return net


ODD = {
    "lambda": (lambda h: h, "is a lambda; write it as a class or a def at the top of a module"),
    "class inside": (local_class(), "class local_class.<locals>.Local, which lies inside a function"),
    "object of it": (local_class()(), "class local_class.<locals>.Local, which lies inside a function"),
    "generator": ((i for i in ()), "object of the class generator; keep numbers, text"),
    "file": (open(os.devnull), "object of the class _io.TextIOWrapper; keep"),  # noqa: SIM115
    "lock": (threading.Lock(), "object of the class _thread.lock; keep"),
    "module": (types, "object of the class module; keep"),
    "date": (datetime.date(2000, 1, 1), "object of the class datetime.date; keep"),
    "random": (random.Random(0), "object of the class random.Random; keep"),
    "library": (os.path.join, "function join of posixpath, which no folder may name; call it from a def of your own"),
    "loader": (torch.load, "function load of torch.serialization, which no folder may name"),
    "number": (Whole(3), "object of the class .*Whole; keep numbers"),
    "state": (Stateful(), "object of the class .*Stateful, which has a state of its own making"),
    "finalizer": (Closing(), "object of the class .*Closing; keep"),
    "words": (np.array(["a"]), "an array of <U1; keep numbers, or a list of text"),
    "keys": ({object(): 1}, "keyed by an object of the class object; use text"),
    "sparse": (torch.eye(2).to_sparse(), "a tensor of layout torch.sparse_coo; keep it dense"),
    "meta": (torch.ones(2, device="meta"), "a tensor on the device meta, which has no numbers"),
    "unmade": (nn.LazyLinear(2), "weight is a parameter that has no shape yet; run the program on data once"),
    "hook": (hooked(), "_forward_hooks\\[[0-9]+\\] is a lambda"),
}


@pytest.mark.parametrize("word", ODD)
def test_what_cannot_be_written_down_is_named(tmp_path, word):
    odd, said = ODD[word]
    with pytest.raises(
        TypeError, match=rf"guide cannot be written down: guide.odd\['deep'\]\[1\]\.?.*{said}.* nothing was"
    ):
        save(tmp_path / "new", nn.Linear(2, 2), Holder({"deep": [1, odd]}))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_compiled_module_is_refused(tmp_path):
    with pytest.raises(
        TypeError, match="model is a compiled module; save the one that was compiled, as module._orig_mod"
    ):
        save(tmp_path, torch.compile(nn.Linear(2, 2)), nn.Identity())


def test_a_program_that_runs_is_refused(tmp_path):
    model = vae()
    guide = Diagonal(latents(model, X), MLP(5, 4))
    with guide._pyro_context, pytest.raises(TypeError, match="guide.*_pyro_context is in a program that is running"):
        save(tmp_path / "new", model, guide)


def test_what_another_store_holds_is_not_written_over(tmp_path):
    """Functions take their parameters from Pyro's store, so that two of a name would meet."""
    function(X), its_guide(X)
    save(tmp_path, function, its_guide)
    pyro.get_param_store()["noise"] = torch.tensor(0.5)
    with pytest.raises(ValueError, match="store holds another parameter 'noise', .*call pyro.clear_param_store"):
        load(tmp_path)
    pyro.clear_param_store()
    load(tmp_path)
    assert pyro.param("noise").item() == pytest.approx(0.9)


def test_what_pyro_would_put_into_a_loaded_module_is_refused(tmp_path):
    """A module's constrained parameters are taken from Pyro's store, if it has one of their name."""
    model = saved_pairs.Own()
    save(tmp_path, model, nn.Identity())
    model(X)  # outside of dlvm, so that the store has its parameters from now on
    load(tmp_path)
    with torch.no_grad():
        model.noise_unconstrained += 1
    with pytest.raises(ValueError, match="holds another parameter 'model.noise', which Pyro would put into the module"):
        load(tmp_path)


SCRIPT = """
import sys
import torch
from torch import nn
from dlvm.inference import load, save
class Net(nn.Linear):
    pass
if __name__ == "__main__":
    torch.manual_seed(0)
    net = Net(2, 1)
    save("saved", net, nn.Identity())
    print(torch.equal(load("saved")[0].weight, net.weight), type(load("saved")[0]) is Net)
"""


@pytest.mark.slow
def test_a_class_of_a_script_is_told_where_another_process_loads_it(tmp_path):
    (tmp_path / "script16.py").write_text(SCRIPT)
    settings = dict(cwd=tmp_path, capture_output=True, text=True, check=True)
    done = subprocess.run([sys.executable, "script16.py"], env=os.environ | {"PYTHONPATH": str(ROOT)}, **settings)
    assert done.stdout.split() == ["True", "True"]
    with pytest.raises(ValueError, match="it needs __main__:Net, which lay in a script .*names={path: class"):
        load(tmp_path / "saved")
    assert isinstance(load(tmp_path / "saved", {"__main__:Net": nn.Linear})[0], nn.Linear)


def test_a_module_that_has_changed_since_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module16.py").write_text(SCRIPT)
    net = importlib.import_module("module16").Net(2, 1)
    save(tmp_path / "saved", net, nn.Identity())
    with caplog.at_level("INFO", logger="dlvm"):
        load(tmp_path / "saved")
        assert not caplog.records
        (tmp_path / "module16.py").write_text(SCRIPT.replace("pass", "bias = None"))
        load(tmp_path / "saved")
    assert "module16 reads otherwise than when the pair was saved" in caplog.text


def test_parameters_of_a_stranger_are_told_apart_by_a_batch(tmp_path):
    function(X), its_guide(X)
    pyro.module("stranger", nn.Linear(1, 1))
    with pytest.raises(TypeError, match="parameters of the module 'stranger', and neither program .* call save"):
        save(tmp_path, function, its_guide)
    save(tmp_path, function, its_guide, X)
    pyro.clear_param_store()
    load(tmp_path)
    assert set(pyro.get_param_store().keys()) == {"noise", "loc", "scale"}


def test_a_module_that_is_held_and_named_is_refused(tmp_path):
    with pytest.raises(TypeError, match="the module saved_pairs:NET is both held by the pair and used by its name"):
        save(tmp_path, function, saved_pairs.NET)


def test_a_module_known_by_name_gets_its_weights_back_in_place(tmp_path):
    net = saved_pairs.NET
    before = net.weight.detach().clone()
    save(tmp_path, function, its_guide)
    with torch.no_grad():
        net.weight += 1
    load(tmp_path)
    assert saved_pairs.NET is net and torch.equal(net.weight, before)


def test_methods_share_their_object(tmp_path):
    both = Both()
    save(tmp_path, both.model, both.guide)
    model, guide = load(tmp_path)
    assert model.__self__ is guide.__self__ is not both
    assert torch.equal(model.__self__.decoder.weight, both.decoder.weight)
