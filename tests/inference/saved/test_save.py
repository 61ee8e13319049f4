"""What is saved comes back to the last bit in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import saved_pairs
import torch
from safetensors.torch import save_file
from torch import nn

from dlvm.inference import load, save

TESTS = Path(__file__).parent


@pytest.mark.parametrize("pairs, count", [("few", 9), pytest.param("made", 55, marks=pytest.mark.slow)])
def test_pairs_come_back_in_another_process(tmp_path, pairs, count):
    expected = {}
    for name, (model, guide, args) in getattr(saved_pairs, pairs)():
        saved_pairs.moved(model, guide)
        save(tmp_path / name, model, guide, *args)
        save_file({str(i): value for i, value in enumerate(args)}, tmp_path / name / "args.safetensors")
        expected[name] = json.loads(json.dumps(saved_pairs.seen(model, guide, args)))
        pyro.clear_param_store()
    assert len(expected) == count
    code = f"import saved_pairs; saved_pairs.told_again({str(tmp_path)!r})"
    path = os.pathsep.join([str(TESTS), str(TESTS.parents[2])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {name for name in expected if found[name] != expected[name]} == set() and found.keys() == expected.keys()


OF_TORCH = [
    nn.LSTM(3, 4, 2, bidirectional=True),
    nn.TransformerEncoderLayer(8, 2, 16, activation=nn.functional.gelu),
    nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last),
    nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    nn.ParameterDict({"a": nn.Parameter(torch.ones(2, dtype=torch.complex64))}),
    nn.Sequential(),
    nn.GRU(2, 3).bfloat16(),
    nn.AdaptiveLogSoftmaxWithLoss(5, 6, [2, 4]),
]


@pytest.mark.parametrize("module", OF_TORCH, ids=lambda module: type(module).__name__)
def test_modules_of_torch_come_back(tmp_path, module):
    save(tmp_path, module, nn.Identity())
    found, _ = load(tmp_path)
    assert repr(found) == repr(module)
    ours, theirs = ({name: value for name, value in m.state_dict().items()} for m in (module, found))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype
        assert value.stride() == theirs[name].stride()
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in module.parameters()]
