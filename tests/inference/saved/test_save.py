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
from safetensors.torch import save_file

from dlvm.inference import save

TESTS = Path(__file__).parent


@pytest.mark.parametrize("pairs, count", [("few", 8), pytest.param("made", 54, marks=pytest.mark.slow)])
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
