"""What importing the laboratory does not load: compilers, plots and data libraries come when they are used."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"torch._inductor", "torch._dynamo", "sympy", "matplotlib", "sklearn", "torchvision", "joblib"}
PROGRAM = """
import json, sys
import torch, pyro
before = set(sys.modules)
import dlvm.nets, dlvm.distributions, dlvm.models, dlvm.guides, dlvm.inference, dlvm.evidence
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_rooms_load_no_compiler_no_plots_and_no_data_library():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = json.loads(ran.stdout)
    assert "dlvm.inference.engine.backends" in loaded and "dlvm.evidence.log_px.importance" in loaded
    assert not HEAVY & set(loaded)
    assert len([name for name in loaded if not name.startswith("dlvm")]) < 140  # torch and pyro alone bring some 1300
