"""The parameters of a pair as they were at one moment, to be put back."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from torch import Tensor

from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.parameters import declared


class Snapshot:
    """Two programs as they were at the last ``take``: states of modules, and Pyro's store where one is a function."""

    def __init__(self, pair: Pair):
        self.modules, self.owners = [*pair.roots.values()], [*pair.owners.values()]
        self.functions = pair.has_functions
        self.take()

    def take(self) -> None:
        self.states = [_copied(module.state_dict()) for module in self.modules]
        self.declared = [_copied(declared(owner)) for owner in self.owners]
        if self.functions:
            self.store = _copied(dict(pyro.get_param_store().named_parameters()))

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What was taken, by program, to be written down or replaced."""
        taken = {f"program{i}": state for i, state in enumerate(self.states)}
        taken |= {f"declared{i}": state for i, state in enumerate(self.declared)}
        return taken | ({"store": self.store} if self.functions else {})

    @torch.no_grad()
    def put_back(self) -> None:
        for module, state in zip(self.modules, self.states, strict=True):
            module.load_state_dict(state)
        for owner, others in zip(self.owners, self.declared, strict=True):
            put_back(declared(owner), others)
        if self.functions:
            put_back(dict(pyro.get_param_store().named_parameters()), self.store)


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def put_back(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into the parameters of the same names."""
    for name in parameters.keys() & values.keys():
        parameters[name].copy_(values[name])
