"""The table of noise: who is least noisy at equal cost, and who is biased, on a pair small enough to run at once."""

from __future__ import annotations

import pytest

from dlvm.experiments.measures.gradient_arms import noise_of_estimators
from dlvm.experiments.objective_table import stages
from dlvm.experiments.setups.discrete_vae import DiscreteVAESetup


@pytest.mark.slow
def test_twins_take_more_noise_than_the_other_particles_at_equal_cost():
    tiny = {"tiny": (DiscreteVAESetup(6, (16,)), "diagonal", 1, 6)}
    rows = list(noise_of_estimators(stages(tiny, epochs=1), repeats=40, times=3))
    assert len(rows) == 2 * 2 * 11  # stages, programs, estimators
    share = {(row["estimator"], row["stage"]): row["share"] for row in rows if row["group"] == "guide"}
    for stage in ("start", "trained"):
        assert share["VIMCO", stage] == 1.0
        assert share["DisARM", stage] < 0.9 and share["ScoreFunction", stage] > 10
    unbiased = ("VIMCO", "DisARM", "REBAR", "RELAX", "RELAX(temperature=None)", "ScoreFunction", "ScoreFunction(NVIL)")
    assert not any(row["biased"] for row in rows if row["estimator"] in unbiased)
