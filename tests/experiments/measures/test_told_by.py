"""A batch effect in counts: codes of a VAE carry all of it, those of a VAE that is given the batch little."""

from __future__ import annotations

import pyro
import pytest
import torch

from dlvm.experiments.data import Loader
from dlvm.experiments.measures.draws import posterior_means
from dlvm.experiments.measures.linear_probe import Told, told_by
from dlvm.experiments.setups.cvae import CVAESetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, fit


def counts(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells of two types in two batches, which are independent; a batch doubles or halves each of twelve genes."""
    generator = torch.Generator().manual_seed(seed)
    kind, batch = torch.rand(n, generator=generator) < 0.5, torch.rand(n, generator=generator) < 0.5
    fixed = torch.Generator().manual_seed(9)
    by_kind, by_batch = (torch.randn(12, generator=fixed).sign() * 0.7 for _ in range(2))
    rate = (2 + kind[:, None] * by_kind + batch[:, None] * by_batch).exp()
    return torch.poisson(rate, generator=generator), kind.long(), batch.long()


@pytest.mark.slow
def test_codes_of_a_model_that_is_given_the_batch_carry_little_of_it_and_keep_the_type():
    x, kind, batch = counts(1500, 0)
    data, found = Loader(x, 100, shuffle=True, labels=batch), {}
    for name, setup in (
        ("vae", VAESetup(2, (32,), likelihood="poisson")),
        ("cvae", CVAESetup(2, (32,), likelihood="poisson", prior="standard")),
    ):
        pyro.set_rng_seed(0)
        given = data.giving(*setup.inputs)
        model, guide = fresh_pair(setup, given, Diagonal)
        for _ in fit(model, guide, ELBO(), given, epochs=25, seed=0, patience=None, progress=False, engine="captured"):
            pass
        codes = posterior_means(model, guide, x if name == "vae" else (x, batch))
        found[name] = told_by(codes, batch), told_by(codes, kind)
    (of_vae, type_of_vae), (of_cvae, type_of_cvae) = found["vae"], found["cvae"]
    assert of_vae.accuracy > 0.95 and not of_vae.free
    assert of_cvae.accuracy < 0.7  # beside a chance of a half: independence is what the prior asks for, not a law
    assert min(type_of_vae.accuracy, type_of_cvae.accuracy) > 0.85


def test_spread_is_found_as_mean_is_and_noise_is_not():
    z = torch.randn(600, 2, generator=torch.Generator().manual_seed(1))
    y = torch.arange(600) % 2
    assert told_by(z, y).free
    wide = told_by(z * (1 + 2 * y[:, None]), y)
    assert wide.accuracy > 0.65 and not wide.free  # means are equal: the spread alone tells
    assert told_by(z + 3 * y[:, None], y).accuracy > 0.95
    assert Told(0.55, 0.03, 0.5).free and not Told(0.6, 0.03, 0.5).free


@pytest.mark.parametrize("labels", [torch.zeros(50).long(), torch.cat([torch.zeros(47), torch.ones(3)]).long()])
def test_labels_of_which_nothing_could_be_told_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be of two classes at least, with 5 rows each"):
        told_by(torch.randn(50, 2), labels)
