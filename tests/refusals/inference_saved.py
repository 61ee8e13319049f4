"""What save and load refuse."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from dlvm.inference import load, save
from dlvm.nets import MLP
from refusals.case import NOT_CALLABLE, Case
from refusals.odd_pairs import NOT_ARGUMENTS, SAID
from refusals.pairs import GUIDE, MODEL

NOT_FOLDERS = st.sampled_from([None, 3, "", [], object(), __file__, f"{__file__}/inside"])
NOT_KEPT = st.sampled_from([MLP, lambda x: None, (i for i in ()).__next__])


def saved(model=MODEL, guide=GUIDE, *args):
    with TemporaryDirectory() as folder:
        save(folder, model, guide, *args)


def loaded(names):
    with TemporaryDirectory() as folder:
        save(folder, MODEL, GUIDE)
        load(folder, names)


CASES = [
    Case("save", "folder", lambda v: save(v, MODEL, GUIDE), NOT_FOLDERS),
    Case("save", "model", lambda v: saved(model=v), st.one_of(NOT_CALLABLE, NOT_KEPT)),
    Case("save", "guide", lambda v: saved(guide=v), st.one_of(NOT_CALLABLE, NOT_KEPT)),
    Case("save", "args", lambda v: saved(MODEL, GUIDE, v), NOT_ARGUMENTS, SAID),
    Case("load", "folder", load, NOT_FOLDERS),
    Case("load", "folder", load, st.just("no/such/folder")),
    Case("load", "names", loaded, st.sampled_from([3, "VAE", [MLP], MLP, {1}])),
]
ANY: dict[str, str] = {}
