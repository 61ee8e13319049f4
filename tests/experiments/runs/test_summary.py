"""Nats of a part of a datum, as a time step: all nats over all parts."""

from __future__ import annotations

from dataclasses import replace

import pyro
import pytest
import torch

from dlvm.distributions import StandardNormal
from dlvm.experiments.runs.summary import each_part, summary
from dlvm.guides import FullyObserved
from dlvm.inference import evaluate


def test_nats_per_part_are_those_of_all_data_over_all_parts():
    prior, x = StandardNormal(2), torch.zeros(5, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(), obs=x)

    result = evaluate(model, FullyObserved(), x, num_particles=2)
    lengths = torch.tensor([1.0, 2, 3, 4, 5])
    per = each_part(result, {"time step": lengths.mean().item()})
    assert per["time step"]["log_px"] == pytest.approx(5 * result.log_px / lengths.sum().item())
    table = summary(result, "log p(x)", 1, 0.1, {}, per)
    assert (
        table.columns[:2] == ["log p(x)", "log p(x) per time step"] and table.rows[0][1] == per["time step"]["log_px"]
    )
    drawn = summary(replace(result, units=2, rate=1.0), "log p(x)", 1, 0.1, {}, per)
    assert "ELBO per time step" in drawn.columns and len(drawn.rows[0]) == len(drawn.columns)
