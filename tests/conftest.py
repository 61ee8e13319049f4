"""For every test: one thread (the tensors are small), a clean parameter store and a fixed seed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pyro
import pytest
import torch

for folder in (Path(__file__).parent, Path(__file__).parent.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background, which programs that tests start inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_start():
    """No test sees another's parameters, random state or default dtype."""
    dtype = torch.get_default_dtype()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()


@pytest.fixture
def float64():
    """Double precision as the default dtype, where exactness is claimed."""
    torch.set_default_dtype(torch.float64)
