"""What the table says of what was measured, and that everything runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import peers
from benchmarks.attempts import ready
from benchmarks.cases.epoch import synthetic
from benchmarks.catalogue import CASES, ONE_SITE, SMALL, catalogue
from benchmarks.child import ROOT, launch
from benchmarks.config import Config
from benchmarks.report import markdown, shown, table
from benchmarks.results import Results
from benchmarks.targets import TARGETS, Target
from benchmarks.timing import Spread, Timings
from benchmarks.variants import batches, stepper


def test_a_target_is_reached_on_its_own_side_only():
    assert Target(0.85).reached(0.85) and not Target(0.85).reached(0.86)
    assert Target(0.65, at_most=False).reached(0.65) and not Target(0.65, at_most=False).reached(0.64)


def test_the_median_is_judged_and_shown_beside_the_target():
    results = Results()
    timings = Timings({"compiled": [0.8, 0.9, 2.0], "hand-written": [1.0, 1.0, 1.0]})
    results.add("another case", "compiled / hand-written", 0.5)
    results.add_timings(ONE_SITE, timings, [("compiled", "hand-written"), ("compiled", "absent")])
    assert table(results).text == [
        [ONE_SITE, "compiled / hand-written", "0.90 [0.80-2.00]", "<= 0.85", "no"],
        ["another case", "compiled / hand-written", "0.50", "", ""],
    ]
    assert f"| {ONE_SITE} | compiled | 900.000 [800.000-2000.000] |" in markdown(results, Config())


def test_a_quick_run_is_not_judged():
    results = Results(judged=False)
    results.add(ONE_SITE, "compiled / hand-written", 0.5)
    assert results.rows[0].target is None and results.rows[0].verdict == ""


def test_units_are_shown():
    results = Results()
    results.add(ONE_SITE, "capture time", Spread(0.1234, 0.1, 0.2), "s")
    assert shown(results.rows[0]) == "0.123 [0.1-0.2] s" and results.rows[0].verdict == "yes"


def test_every_target_names_a_case_that_exists():
    others = {case for case, _ in TARGETS} - {case.name for case in CASES}
    assert all(case.startswith(("epoch", "importance", "MADE")) for case in others)


def test_a_variant_that_fails_is_left_out_and_said():
    def broken():
        raise RuntimeError("no compiler\nat all")

    results = Results()
    made = ready("a case", {"good": lambda: lambda: 1, "bad": lambda: broken}, results)
    assert list(made) == ["good"]
    assert results.notes == ["a case: bad did not run (RuntimeError: no compiler)"]


def test_a_peer_that_is_absent_is_a_remark(monkeypatch):
    results = Results()
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert not peers.installed("numpyro", results)
    assert results.notes[0].startswith("numpyro: not installed")


@pytest.mark.parametrize("wrong", [dict(only="step,epochs"), dict(engines="jit"), dict(repetitions=0)])
def test_a_word_that_is_not_known_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_a_part_of_no_name_is_refused():
    with pytest.raises(ValueError, match="cases: none holds .'7 sites'"):
        catalogue(only=["7 sites"])


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant must be one of"):
        stepper(catalogue(SMALL)[ONE_SITE], "jit")


def test_stock_steps_are_those_of_a_fresh_program():
    case = catalogue(SMALL)[ONE_SITE]
    x = batches(case, 1)[0]
    losses = []
    for _ in range(2):
        step = stepper(case, "stock SVI")
        losses.append([step(x) for _ in range(3)])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][2]


@pytest.mark.slow
def test_the_twin_is_measured_without_pyro_in_its_process():
    code = (
        "import sys; from benchmarks.child import observe; "
        f"seen = observe({ONE_SITE!r}, 'hand-written', 8, quick=True, threads=1, programs=2); "
        "print('pyro' in sys.modules, sorted(seen), len(seen['first']), min(seen['step']) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "False ['first', 'growth', 'peak', 'step'] 2 True"


@pytest.mark.slow
def test_a_variant_runs_in_a_process_of_its_own():
    seen = launch(ONE_SITE, "stock SVI", 8, quick=True, threads=1)
    assert {name: len(values) for name, values in seen.items()} == dict(first=1, step=1, peak=1, growth=1)
    assert 150 < seen["peak"][0] < 5000


@pytest.mark.slow
def test_a_failing_process_is_an_error():
    with pytest.raises(RuntimeError, match="variant must be one of"):
        launch(ONE_SITE, "jit", 8, quick=True, threads=1)


@pytest.mark.slow
def test_one_command_measures_and_writes(tmp_path):
    threads = torch.get_num_threads()
    config = Config(
        only="step", cases=f"{ONE_SITE};T = 5", engines="eager,captured", repetitions=2, block_seconds=1e-9,
        threads=threads, quick=True, out=tmp_path,
    )  # fmt: skip
    results = command.main(config)
    record = json.loads((tmp_path / "benchmarks.json").read_text())
    assert set(record["seconds"]["sequence, T = 5"]) == {"stock SVI", "hand-written", "eager", "captured"}
    assert all(len(values) == 2 and min(values) > 0 for values in record["seconds"][ONE_SITE].values())
    assert {"case": ONE_SITE, "quantity": "captured / hand-written"}.items() <= record["rows"][0].items()
    assert record["environment"]["torch"] == torch.__version__
    assert "eager / stock SVI" in (tmp_path / "benchmarks.md").read_text()
    assert not [note for note in results.notes if "did not run" in note]


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["numpyro", "pythae"])
def test_an_epoch_of_a_peer_returns_its_mean_loss(peer, tmp_path):
    pytest.importorskip(peer)
    greys = synthetic(40, SMALL.x_dim)
    if peer == "numpyro":
        from benchmarks.peers import numpyro_vae

        run = numpyro_vae.epoch(greys.numpy(), 20, SMALL, 0.05)
    else:
        from benchmarks.peers import pythae_vae

        run = pythae_vae.epoch(greys, 20, SMALL, 0.05, str(tmp_path))
    losses = [run() for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert 0 < losses[0] < SMALL.x_dim


def test_greys_are_mostly_black_and_never_beyond_white():
    greys = synthetic(500, 20)
    assert 0.77 < (greys == 0).float().mean() < 0.83
    assert greys.min() == 0 and 0.9 < greys.max() <= 1
