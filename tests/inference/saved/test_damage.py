"""Damaged folders are refused by the name of the file, and a pair is there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from saved_pairs import Own, X, vae
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import load, save
from dlvm.nets import MLP

FILES = ("pair.json", "model.safetensors", "guide.safetensors")


class PowerCut(BaseException):
    pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("saved"), vae()
    save(folder, model, Diagonal(latents(model, X), MLP(5, 4)))
    return folder


def copied(saved: Path, folder: Path) -> dict[str, bytes]:
    whole = {name: (saved / name).read_bytes() for name in FILES}
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    return whole


def state(folder: Path) -> list[torch.Tensor]:
    return [value for program in load(folder) for value in program.state_dict().values()]


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_cut_changed_missing_or_anothers_is_named(saved, tmp_path, file):
    whole = copied(saved, tmp_path)[file]
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        at = int(torch.randint(len(whole), (), generator=generator))
        for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            (tmp_path / file).write_bytes(broken)
            try:
                found = state(tmp_path)
            except ValueError as error:
                assert f"got {tmp_path}: " in str(error) and file in str(error)
            else:  # a blank between two words is no part of what is said
                assert file == "pair.json" and json.loads(broken) == json.loads(whole)
                assert all(torch.equal(a, b) for a, b in zip(found, state(saved), strict=True))
    other = tmp_path / "other"
    save(other, nn.Linear(2, 2), nn.Identity())
    (tmp_path / file).write_bytes((other / file).read_bytes())
    with pytest.raises(ValueError, match="does not match its checksum in pair.json: it is damaged, or of another pair"):
        load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"{file}"):
        load(tmp_path)


def test_another_version_is_said(saved, tmp_path):
    from dlvm.inference.checkpoints.folder import digest_of

    copied(saved, tmp_path)
    content = json.loads((tmp_path / "pair.json").read_text())
    content["format"] = 99
    content.pop("sha256")
    content = {"sha256": digest_of(json.dumps(content).encode()), **content}
    (tmp_path / "pair.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="pair.json is of format 99, and 1 is expected; take the dlvm that wrote it"):
        load(tmp_path)


def test_at_every_moment_the_old_pair_is_there_or_the_new_one(saved, tmp_path, monkeypatch):
    """A process that dies at any replacement of a file leaves one of the two, and the next save sets it right."""
    torch.manual_seed(1)
    new = vae()
    guide = Diagonal(latents(new, X), MLP(5, 4))
    old_state, new_state = state(saved), [v for p in (new, guide) for v in p.state_dict().values()]
    replace, seen = os.replace, []
    for moment in range(4):
        copied(saved, tmp_path)
        left = iter(range(moment, -2, -1))

        def cut(source, target, left=left):
            if next(left) == 0:
                raise PowerCut
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", cut)
            try:
                save(tmp_path, new, guide)
            except PowerCut:
                pass
        found = state(tmp_path)
        is_new = all(torch.equal(a, b) for a, b in zip(found, new_state, strict=True))
        assert is_new or all(torch.equal(a, b) for a, b in zip(found, old_state, strict=True))
        seen.append(is_new)
        save(tmp_path, *load(tmp_path))
        assert all(torch.equal(a, b) for a, b in zip(state(tmp_path), found, strict=True))
        assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert seen == [False, True, True, True]


def test_a_full_disk_leaves_the_old_pair(saved, tmp_path, monkeypatch):
    copied(saved, tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ValueError, match="folder must be one to write to, got .*No space left.*; choose another"):
        save(tmp_path, nn.Linear(2, 2), nn.Identity())
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    assert all(torch.equal(a, b) for a, b in zip(state(tmp_path), state(saved), strict=True))


def test_a_class_that_has_moved_is_named_and_can_be_told(tmp_path, monkeypatch):
    import saved_pairs

    model = Own()
    save(tmp_path, model, nn.Identity())
    monkeypatch.delattr(saved_pairs, "Own")
    with pytest.raises(ValueError, match="it needs saved_pairs:Own, which is not there any more; say where each is by"):
        load(tmp_path)
    found, _ = load(tmp_path, {"saved_pairs:Own": Own})
    assert type(found) is Own and torch.equal(found.noise, model.noise)
