"""The comparison of ways to train sentence VAEs in tiny form, and what it says of numbers that are known."""

from __future__ import annotations

import math

import pytest
import torch

from dlvm.experiments import sentences
from dlvm.experiments.measures.over_seeds import OverSeeds
from dlvm.experiments.runs.restore import restore
from dlvm.experiments.sweeps.sentence_ways import SentenceWay
from dlvm.models import LanguageModel, SentenceVAE

SMALL = {"seeds": 1, "epochs": 1, "warm_up": 0, "width": 4, "z_dim": 2, "train_data": 60, "batch_size": 60}
SMALL |= {"eval_data": 10, "eval_particles": 5}


@pytest.mark.slow
def test_ways_share_data_and_report_bits_of_whole_sentences(tmp_path):
    rows = sentences.main(sentences.Config(ways=("plain", "word_dropout"), out=tmp_path / "run", **SMALL))
    assert [row["way"] for row in rows] == ["plain", "word_dropout"]
    assert rows[0]["rate"] == 0 and rows[0]["log_px_se"] == 0
    lengths = sentences.sentences(sentences.Config(**SMALL)).test["lengths"]
    for row in rows:
        bits = -row["log_px"] * len(lengths) / lengths.sum().item() / math.log(2)
        assert row["bits_per_dim"] == pytest.approx(bits, rel=1e-4)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Active units of 2" in report and "The likeliest tokens along the line" in report
    model, _ = restore(tmp_path / "run" / "pairs" / "way-word-dropout-seed-0")
    plain, _ = restore(tmp_path / "run" / "pairs" / "way-plain-seed-0")
    assert isinstance(model, SentenceVAE) and model.likelihood.drop == 0.4
    assert isinstance(plain, LanguageModel) and plain(n=3).shape == (3, 16)


def test_each_way_changes_one_thing():
    class Ten:
        def __len__(self) -> int:
            return 10

    found = {way: SentenceWay(epochs=8, warm_up=2, way=way) for way in sentences.LABELS}
    said = {way: repr(how.objective(Ten())) for way, how in found.items()}
    assert said["plain"] == said["elbo"] == said["word_dropout"]
    assert "linear(0, 1, steps=20)" in said["annealed"]
    assert "cyclical(0, 1, steps=60, cycles=4" in said["cyclical"]
    assert "nats=4.0" in said["free_bits"]
    assert [how.setup.word_dropout for how in found.values() if how.way != "plain"] == [0, 0, 0, 0, 0.4]


def test_the_verdict_names_what_has_collapsed_and_what_has_not():
    def runs(rate: float, bits: float) -> OverSeeds:
        return OverSeeds([{"rate": rate, "bits_per_dim": bits}])

    said = sentences.verdict({"plain": runs(0.0, 2.0), "elbo": runs(0.01, 2.1), "free_bits": runs(3.9, 2.2)})
    assert said.startswith("Collapsed: ELBO (0.01 nats). z says something under free bits (3.90 nats).")
    assert said.endswith("ELBO needs the fewest bits per token, 2.100; the language model needs 2.000.")


def test_what_cannot_be_compared_is_refused_before_a_folder_is_made(tmp_path):
    for settings, words in (
        ({"ways": ()}, "ways must be different words, at least one"),
        ({"ways": ("elbo", "elbo")}, "ways must be different words"),
        ({"ways": ("annealed",), "warm_up": 1}, "warm_up"),
        ({"data": "digits"}, "data must be sequences of tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            sentences.main(sentences.Config(**SMALL | settings | {"out": tmp_path / "run"}))
    assert not (tmp_path / "run").exists()


def test_sentences_are_written_by_their_vocabulary_or_as_numbers():
    class Data:
        vocabulary = ("<end>", "a", "b")

    x = torch.tensor([[1, 2, 0], [2, 2, 1]])
    assert sentences.written(x, Data()) == ["ab", "bba"]
    Data.vocabulary = None
    assert sentences.written(x, Data()) == ["1 2 0", "2 2 1"]
