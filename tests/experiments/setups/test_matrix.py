"""Every model with guides and objectives: a finite step that moves what it trains, or a refusal that is known."""

from __future__ import annotations

import re
from functools import partial

import pyro
import pytest
import torch
from small_models import OWN_ALONE, SMALLER, WORDS, data

from dlvm.distributions.sequences.steps import Stepwise
from dlvm.experiments.options.guides import GUIDES, own
from dlvm.experiments.options.objectives import ESTIMATORS_OF_ITS_OWN, OBJECTIVES, Numbers, objective_of
from dlvm.experiments.options.weights import RandomWeights
from dlvm.experiments.setups.named import named
from dlvm.experiments.setups.setup import Setup, fresh_pair
from dlvm.guides import FullyObserved
from dlvm.inference import ELBO, SVI

FAMILIES = ("diagonal", "iaf", "own")
QUICK = {("vae", "iaf"), ("fvsbn", "diagonal"), ("hvae", "diagonal"), ("gmvae", "diagonal")}
REFUSED = {  # {(objective, whether something is latent): what is said}
    ("maximum_likelihood", True): "needs a model that observes everything, but .* are latent; use ELBO",
    ("wake_sleep", False): "needs latent sites; for a model without, MaximumLikelihood",
    ("rws", False): "needs latent sites; for a model without, MaximumLikelihood",
}
DREAMS = {
    "vrnn": "so that the guide cannot be shown a dream",  # each step is a site of its own
    "srnn": "so that the guide cannot be shown a dream",
    "sentence_vae": "tokens that count behind the end",  # a dream ends where it likes, not at the batch's lengths
    "not_at_random": "so that the guide cannot be shown a dream",  # it observes what is missing of x
    "vq_vae": "a point mass on codes has no score",
}
SUBSAMPLED = "is not around every site: a bound with its logarithm outside a plate"  # a batch stands for all data
STEPS = "cannot be gone through step by step"  # a program that is no chain over time
LINEAR = ("elbo", "analytic_kl")
FAR = "within the support"  # noise of the model's at the edge of [0, 1] is beyond what an inverse flow reaches
ADAM = partial(torch.optim.Adam, lr=1e-3)


def smaller(word: str) -> Setup:
    return named(word)(**SMALLER.get(word, {}))


def pairs() -> list:
    found = [(word, family) for word in WORDS for family in FAMILIES]
    return [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in found]


@pytest.mark.parametrize("word, family", pairs())
def test_every_objective_steps_or_is_refused_as_it_should_be(word: str, family: str) -> None:
    setup = smaller(word)
    loader = data(setup)
    pyro.set_rng_seed(0)
    try:
        model, guide = fresh_pair(setup, loader, own if family == "own" else GUIDES[family], observed=True)
    except ValueError as error:
        said = OWN_ALONE.get(word, "for a model without a guide of its own")
        assert (family == "own") != (word in OWN_ALONE) and said in str(error)
        return
    latent = not isinstance(guide, FullyObserved)
    if not latent and family != FAMILIES[0]:
        return  # no family is asked
    for objective in OBJECTIVES:
        estimator = setup.defaults.get("estimator", "total")
        if estimator == "enumeration" and objective != "elbo":
            estimator = "vimco"
        allowed = ESTIMATORS_OF_ITS_OWN.get(objective, (estimator,))
        bound = objective_of(objective, Numbers(num_particles=4), estimator if estimator in allowed else "total")
        before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
        try:
            loss = SVI(model, guide, ADAM, bound, engine="eager").step(*loader.examples)
        except ValueError as error:
            far = FAR if family == "iaf" and word in ("nice", "realnvp") else None
            apart = SUBSAMPLED if isinstance(setup, RandomWeights) and objective not in LINEAR else far
            said = REFUSED.get((objective, latent), DREAMS.get(word, apart))
            if objective == "fivo":
                said = SUBSAMPLED if isinstance(setup, RandomWeights) else STEPS
            assert said is not None and re.search(said, str(error)), f"{objective}: {error}"
            continue
        assert (objective, latent) not in REFUSED, f"{objective} is refused no more"
        assert objective != "fivo" or isinstance(model, Stepwise), "FIVO filters what has no steps"
        assert objective in LINEAR or not isinstance(setup, RandomWeights)
        assert torch.isfinite(torch.as_tensor(loss)), objective
        moved = zip(before, (*model.parameters(), *guide.parameters()), strict=True)
        assert any(not torch.equal(a, b) for a, b in moved), objective


@pytest.mark.parametrize("word", [pytest.param(w, marks=() if w == "fvsbn" else pytest.mark.slow) for w in WORDS])
def test_the_engine_captures_every_model(word: str) -> None:
    """Three steps from a captured graph are those of Pyro itself, on the same noise."""
    setup = smaller(word)
    loader, losses = data(setup), []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(0)
        family = own if setup.defaults.get("guide") == "own" else GUIDES["diagonal"]
        model, guide = fresh_pair(setup, loader, family, observed=True)
        bound = ELBO(2, objective_of("elbo", Numbers(), setup.defaults.get("estimator", "total")).estimator)
        svi = SVI(model, guide, ADAM, bound, engine=engine)
        losses.append([float(svi.step(*loader.examples)) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
