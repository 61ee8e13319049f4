"""EM batch by batch: the same as on all data at once, in any order; what is left when the loop is; what is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.inference import NonFinite, fit_em
from dlvm.models import VAE, GaussianMixture

torch.manual_seed(0)
X = torch.randn(50, 2) + 4 * torch.randint(2, (50, 1))


def started() -> GaussianMixture:
    torch.manual_seed(3)
    return GaussianMixture(2, 2).start_at(X)


class Stream:
    """Batches that are made anew at each pass, none of which is kept."""

    def __init__(self, rows: int):
        self.rows = rows

    def __iter__(self):
        return ((X[i : i + self.rows],) for i in range(0, len(X), self.rows))


@pytest.mark.parametrize("data", [[(X[:20],), (X[20:],)], Stream(7), X.double()], ids=["list", "stream", "double"])
def test_batches_of_any_size_are_the_data_at_once(data):
    whole, parted = started(), started()
    found = [[record.log_px for record in fit_em(model, given, iterations=5)] for model, given in
             ((whole, X), (parted, data))]  # fmt: skip
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert torch.allclose(whole.loc, parted.loc, atol=1e-5)


def test_rows_are_how_a_tensor_is_cut():
    a, b = ([record.log_px for record in fit_em(started(), X, iterations=3, rows=rows)] for rows in (3, 50))
    assert a == pytest.approx(b, abs=1e-9)


def test_a_record_is_of_the_model_as_it_stands():
    """Also where the loop is left early; parameters keep their type."""
    model = started()
    for record in fit_em(model, X, valid=X[:9], tolerance=0):
        assert record.log_px == pytest.approx(model.log_px(X).mean().item(), abs=1e-5)
        assert record.valid == pytest.approx(model.log_px(X[:9]).mean().item(), abs=1e-5)
        if record.iteration == 2:
            break
    assert model.loc.dtype == torch.float32 and record.iteration == 2


def test_it_ends_where_it_rises_no_more():
    records = list(fit_em(started(), X, iterations=500, tolerance=1e-3))
    rises = [record.rise for record in records[1:]]
    assert len(records) < 100 and rises[-1] < 1e-3 <= min(rises[:-1]) and "rise" in str(records[-1])


def test_a_fall_is_told(caplog):
    class Wrong(GaussianMixture):
        def maximise(self, statistics):
            super().maximise(statistics)
            with torch.no_grad():
                self.loc += 1

    model = Wrong(2, 2)
    model.load_state_dict(started().state_dict())
    with caplog.at_level(logging.INFO, "dlvm"):
        list(fit_em(model, X, iterations=9))
    assert "log p(x) fell by" in caplog.text


def test_refusals_name_the_remedy():
    bad = X.clone()
    bad[3, 1] = torch.nan

    class Short(GaussianMixture):
        def expected_statistics(self, x):
            return super().expected_statistics(x)[0].mean(), {}

    cases = [
        (lambda: fit_em(VAE(1, Bernoulli(nn.Linear(1, 2))), X), TypeError, "train with fit"),
        (lambda: fit_em(nn.Linear(2, 2), X), TypeError, "no expected_statistics and no maximise"),
        (lambda: fit_em(GaussianMixture, X), TypeError, "the class GaussianMixture"),
        (lambda: fit_em(started(), bad), ValueError, "NaN"),
        (lambda: fit_em(started(), iter([(X,)])), TypeError, "empty after one epoch"),
        (lambda: fit_em(started(), [(X[:, :1],)]), ValueError, "shape"),
        (lambda: fit_em(started(), X, tolerance=-1), ValueError, "tolerance"),
        (lambda: list(fit_em(Short(2, 2), X)), TypeError, "Maximisable"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    far = started()
    with torch.no_grad():
        far.scales.log_diagonal.fill_(-400.0)
    with pytest.raises(NonFinite, match="row 0 of its batch"):
        list(fit_em(far, X))
