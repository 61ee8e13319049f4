"""A folder of checkpoints: written whole or not at all, damage is named and skipped, other runs are refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import optim
from torch.optim import lr_scheduler as schedules
from training_cases import CASES, bits, train

from dlvm.inference import IWAE, fit
from dlvm.inference.checkpoints.folder import RECORD, TENSORS, CheckpointFailed, Checkpoints, fingerprint

TENSORS_OF_2 = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(2.5, dtype=torch.float64)}
RECORD_OF_2 = {"steps": 2, "best": float("-inf"), "third": 1 / 3}


def two(folder, **how) -> Checkpoints:
    """A folder with the states of steps 1 and 2."""
    kept = Checkpoints(folder, **how)
    kept.write(1, {"a": torch.zeros(2)}, {"steps": 1})
    kept.write(2, TENSORS_OF_2, RECORD_OF_2)
    return kept


def newest(folder):
    return sorted(folder.glob("step-*"))[-1]


def test_what_is_read_is_what_was_written(tmp_path):
    saved = two(tmp_path).latest()
    assert saved.record == RECORD_OF_2
    assert saved.tensors.keys() == TENSORS_OF_2.keys()
    assert all(torch.equal(saved.tensors[name], value) for name, value in TENSORS_OF_2.items())
    assert saved.tensors["b"].dtype == torch.float64


def test_tensors_that_share_memory_or_are_strided_are_written(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    kept = Checkpoints(tmp_path)
    kept.write(1, {"whole": whole, "turned": whole.T, "row": whole[1], "none": whole[:0]}, {})
    found = kept.latest().tensors
    assert torch.equal(found["turned"], whole.T) and torch.equal(found["row"], whole[1])
    assert found["none"].shape == (0, 4)


def test_the_last_few_are_kept_and_nothing_else_goes(tmp_path):
    (tmp_path / "step-xyz").mkdir()
    (tmp_path / ".mine.part").write_text("not a draft")
    kept = Checkpoints(tmp_path, keep=2)
    for number in range(1, 6):
        kept.write(number, {}, {})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-0000000004", "step-0000000005", "step-xyz", ".mine.part"}


def test_a_step_written_again_takes_the_place_of_what_followed(tmp_path):
    kept = two(tmp_path)
    for turn in range(12):
        kept.write(1, {}, {"turn": turn})
    assert len(list(tmp_path.iterdir())) == 1
    assert kept.latest().record == {"turn": 11}


def cut(path, size=7):
    path.write_bytes(path.read_bytes()[:size])


def turn_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def other_format(path):
    content = json.loads(path.read_text())
    text = content["text"].replace('"format": 1', '"format": 9')
    path.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text}))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


DAMAGE = {
    "tensors cut": (TENSORS, cut, "does not match its checksum"),
    "tensors empty": (TENSORS, partial(cut, size=0), "does not match its checksum"),
    "a bit turned in the tensors": (TENSORS, turn_bit, "does not match its checksum"),
    "tensors gone": (TENSORS, os.remove, "No such file"),
    "record cut": (RECORD, cut, "Unterminated string|Expecting"),
    "a bit turned in the record": (RECORD, turn_bit, ""),
    "record of another kind": (RECORD, lambda path: path.write_text("[1, 2]"), "does not match its checksum"),
    "record gone": (RECORD, os.remove, "No such file"),
    "other format": (RECORD, other_format, "its format is 9, expected 1"),
    "a pickle for tensors": (TENSORS, lambda p: p.write_bytes(pickle.dumps(Bomb())), "does not match its checksum"),
    "a pickle for the record": (RECORD, lambda path: path.write_bytes(pickle.dumps(Bomb())), ""),
    "deeply nested": (RECORD, lambda path: path.write_text("[" * 100_000), ""),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_skipped(tmp_path, caplog, name):
    kept, (file, damage, said) = two(tmp_path), DAMAGE[name]
    damage(newest(tmp_path) / file)
    with caplog.at_level("INFO", "dlvm"):
        assert kept.latest().record == {"steps": 1}
    (line,) = caplog.messages
    assert line.startswith(f"checkpoint {newest(tmp_path)} is skipped: ")
    assert any(word in line for word in said.split("|"))
    assert kept.last_good == f"the last good checkpoint is {tmp_path / 'step-0000000001'}"


def test_each_damaged_or_foreign_one_is_named_and_all_damaged_is_none(tmp_path, caplog):
    kept = two(tmp_path)
    for path in tmp_path.glob("step-*"):
        cut(path / RECORD)
    (tmp_path / "step-xyz").mkdir()
    (tmp_path / "step-0000000009").write_text("a file")
    with caplog.at_level("INFO", "dlvm"):
        assert kept.latest() is None
    assert len(caplog.messages) == 4
    assert kept.last_good == "there is no good checkpoint"


def test_states_after_a_damaged_one_are_not_taken_for_too_old(tmp_path):
    kept = two(tmp_path, keep=2)
    kept.write(3, {}, {})
    for path in tmp_path.glob("step-000000000[23]"):
        cut(path / RECORD)
    kept.write(1, {}, {"steps": "one again"})
    assert kept.latest().record == {"steps": "one again"}


@pytest.mark.slow
@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.sampled_from([TENSORS, RECORD]), st.data())
def test_bytes_changed_anywhere_never_give_a_wrong_state(tmp_path_factory, file, data):
    folder = tmp_path_factory.mktemp("damaged")
    kept = two(folder)
    path = newest(folder) / file
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 8)))
    content[start:end] = data.draw(st.binary(max_size=8))
    path.write_bytes(content)
    found = kept.latest()
    if found.record != {"steps": 1}:
        assert found.record == RECORD_OF_2
        assert all(torch.equal(found.tensors[name], value) for name, value in TENSORS_OF_2.items())
    shutil.rmtree(folder)


class Disk:
    """Lets so many calls pass, and refuses the next."""

    def __init__(self, monkeypatch, passes: int, error: OSError):
        self.left, self.error, self.failed = passes, error, False
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "open"), (Path, "mkdir"), (Path, "open")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, act):
        def passing(*args, **kwargs):
            self.left -= 1
            if self.left < 0 and not self.failed:
                self.failed = True
                raise self.error
            return act(*args, **kwargs)

        return passing


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "denied")])
def test_a_disk_that_refuses_at_any_point_leaves_what_was_there(tmp_path, error):
    points = 0
    while True:
        folder = tmp_path / str(points)
        kept = two(folder)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, points, error)
            try:
                kept.write(3, TENSORS_OF_2, {"steps": 3})
            except CheckpointFailed as failure:
                said = str(failure)
        if not disk.failed:
            break
        assert said.startswith(f"no checkpoint could be written to {folder}: ")
        assert error.strerror in said and "; the last good checkpoint is " in said
        assert said.endswith("make room there or choose another folder, and run again to go on")
        assert not list(folder.glob(".*"))
        assert kept.latest().record["steps"] in (2, 3)
        points += 1
    assert points >= 7 and kept.latest().record == {"steps": 3}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("file", [TENSORS, RECORD])
def test_a_full_disk(tmp_path, monkeypatch, file):
    def full(path, *mode, **how):
        return opened(Path("/dev/full") if path.name == file and mode == ("wb",) else path, *mode, **how)

    kept, opened = two(tmp_path), Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointFailed, match=r"No space left on device; the last good checkpoint is .*0000000002: "):
        kept.write(3, {"large": torch.zeros(10_000)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000001", "step-0000000002"]


@pytest.mark.parametrize("name", ["kept", "kept/inside"])
def test_a_file_in_the_place_of_the_folder(tmp_path, name):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises((ValueError, CheckpointFailed), match="is a file; choose another name|Not a directory"):
        Checkpoints(tmp_path / name)
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    monkeypatch.setattr("dlvm.inference.training.svi.SVI.step", lambda *args: pytest.fail("a step was made"))
    with pytest.raises(CheckpointFailed, match="Permission denied; there is no good checkpoint: make room there or"):
        train("functions", tmp_path / "kept")


@pytest.mark.parametrize("keep", [0, -1, True, 1.5, "3"])
def test_keep_must_be_a_count(tmp_path, keep):
    with pytest.raises(ValueError, match="keep must be an integer of at least 1, got"):
        Checkpoints(tmp_path, keep)


def test_all_damaged_starts_anew_and_says_so(tmp_path, caplog):
    first = train("functions", tmp_path)
    for path in tmp_path.glob("step-*"):
        cut(path / TENSORS)
    with caplog.at_level("INFO", "dlvm"):
        assert train("functions", tmp_path) == first
    assert sum("is skipped" in line for line in caplog.messages) == 3
    assert "no checkpoint there is whole: training starts anew" in caplog.messages[-1]


OTHERS = {
    "other numbers": (dict(train=[(1 - bits(),)] * 5), "train.numbers"),
    "fewer batches": (dict(train=[(bits(),)] * 4), "train.batches: 5 there, 4 here"),
    "other validation data": (dict(valid=[(bits(7),)]), "valid.numbers"),
    "other objective": (dict(objective=IWAE(3)), r"objective: 'Trace_ELBO\(.*num_particles=1.* there, 'IWAE"),
    "other optimizer": (dict(optimizer=partial(optim.SGD, lr=0.3)), "optimizer.kind: 'Adam' there, 'SGD' here"),
    "other rate": (dict(optimizer=partial(optim.Adam, lr=0.2)), "optimizer.lr: 0.3 there, 0.2 here"),
    "other schedule": (dict(scheduler=partial(schedules.ExponentialLR, gamma=0.5)), "scheduler: None there, "),
    "other seed": (dict(seed=1), "seed: 9 there, 1 here"),
    "other patience": (dict(patience=3), "patience: 2 there, 3 here"),
    "other clipping": (dict(clip_norm=1.0), "clip_norm: None there, 1.0 here"),
}


@pytest.fixture(scope="module")
def run_of_functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train("functions", folder, epochs=1)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_the_checkpoints_of_another_run_are_refused(run_of_functions, name):
    changed, said = OTHERS[name]
    with pytest.raises(ValueError, match=rf"holds another run \({said}.*choose another folder, or make the settings"):
        train("functions", run_of_functions, **changed)


def test_another_net_is_refused(tmp_path):
    train("eager", tmp_path, epochs=1)
    parts = CASES["batch_statistics"]()
    settings = {name: value for name, value in CASES["eager"]().items() if name != "programs"}
    with pytest.raises(
        ValueError, match=r"another run \(parameters\.guide\.\S+: None there, .* here; .*; and \d+ more"
    ):
        fit(*parts["programs"], **settings, checkpoint=tmp_path)


def test_a_fingerprint_tells_shape_type_and_bits_apart():
    x = torch.zeros(2, 3)
    others = [x.view(3, 2), x.double(), x.to(torch.int32), -x, x.nextafter(torch.ones(())), x[:1], x[:0]]
    assert len({fingerprint(value) for value in (x, *others)}) == len(others) + 1
    assert fingerprint(x.T.contiguous().T) == fingerprint(x)
    assert fingerprint(torch.tensor(1.0)) != fingerprint(torch.tensor(2.0))
