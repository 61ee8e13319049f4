"""Copies of parameters, to go back to."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from inference.ownership import modules_of


class Snapshot:
    """Two programs as they were at the last ``take``: states of modules, and Pyro's store where one is a function."""

    def __init__(self, model: Callable, guide: Callable):
        self.modules = modules_of(model, guide)
        self.functions = len(self.modules) < 2
        self.take()

    def take(self) -> None:
        self.states = [{k: v.detach().clone() for k, v in m.state_dict().items()} for m in self.modules]
        if self.functions:
            store = pyro.get_param_store()
            self.store = {name: value.detach().clone() for name, value in store.named_parameters()}

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What was taken, by program, to be written down or replaced."""
        taken = {f"program{i}": state for i, state in enumerate(self.states)}
        return taken | ({"store": self.store} if self.functions else {})

    @torch.no_grad()
    def put_back(self) -> None:
        for module, state in zip(self.modules, self.states, strict=True):
            module.load_state_dict(state)
        if self.functions:
            for name, value in pyro.get_param_store().named_parameters():
                if name in self.store:
                    value.copy_(self.store[name])
