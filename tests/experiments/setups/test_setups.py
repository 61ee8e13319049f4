"""Every model as scripts train it: found by its word, trained by its options' defaults, and restored from a folder."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args, get_type_hints

import pyro
import pytest
import torch
from small_models import OWN_ALONE, SMALLER, WORDS, data

from dlvm.experiments.data import Loader
from dlvm.experiments.options.guides import GuideOptions, own
from dlvm.experiments.options.weights import RandomWeights
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.restore import keep, recipe_of, restore
from dlvm.experiments.setups.hvae import HVAESetup
from dlvm.experiments.setups.named import named
from dlvm.experiments.setups.sequences import GuidedOverTime
from dlvm.experiments.setups.setup import fresh_pair, num_parameters
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, IWAE, VIMCO, Objective, check, evaluate, fit
from dlvm.models import HVAE, VAE

SLOW = ("bayesian_classifier", "bayesian_regression", "bayesian_vae", "diffusion")
NOISY = (
    "deep_markov",
    "linear_gaussian_ssm",
    "srnn",
    "storn",
    "switching_ssm",
    "vrnn",
)  # their bound varies more by draws than by a step of training
EACH = [pytest.param(word, marks=pytest.mark.slow) if word in SLOW else word for word in WORDS]


def test_each_file_is_a_model_and_its_name_the_word_for_it():
    assert {"discrete_vae", "hvae", "ppca", "top_down", "vae"} <= set(WORDS) and WORDS == sorted(WORDS)
    assert named("vae") is VAESetup and named("hvae") is HVAESetup
    with pytest.raises(ValueError, match="model must be one of .*hvae, .*vae.*, got .setup."):
        named("setup")


@pytest.mark.parametrize("word", EACH)
def test_every_model_trains_with_the_defaults_of_its_options(word):
    setup = named(word)(**SMALLER.get(word, {}))
    model, guide = fresh_pair(setup, data(setup), own if word in OWN_ALONE else Diagonal, observed=True)
    objective: Objective = IWAE(2, VIMCO() if setup.defaults.get("estimator") in ("vimco", "enumeration") else None)
    if isinstance(setup, RandomWeights):  # whose batches stand for all data, so that the bound must be linear
        objective = ELBO(2)
    check(model, guide, objective, *data(setup).examples)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    epochs = 20 if word in NOISY else 2
    first, *_, last = fit(model, guide, objective, data(setup), epochs=epochs, seed=0, patience=None, progress=False)
    assert last.train > first.train
    after = [*model.parameters(), *guide.parameters()]
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if b.requires_grad]  # some are frozen by the model
    assert all(not torch.equal(a, b) for a, b in pairs), "a parameter was not trained"


@pytest.mark.parametrize("word", WORDS)
def test_every_option_of_a_model_changes_it(word):
    setup = named(word)(**SMALLER.get(word, {}))
    within = {"components": {"prior": "mixture"}} if hasattr(setup, "prior") else {}  # options that others ask for
    within |= {"channels": {"net": "conv"}} if word == "vae" else {}
    within |= {"maps": {"likelihood": "grey_levels"}} if hasattr(setup, "likelihood") else {}
    within |= {"hidden": {"dequantiser": "variational"}} if word == "realnvp" else {}
    within |= {"quadrants": {"given": "quadrants"}, "given_columns": {"given": "columns", "given_columns": ("0",)}}
    within |= {"last_layer": {"hidden": (3,)}} if word == "bayesian_regression" else {}
    within |= {"labelled_share": {"labels": 20, "labelled_share": 0.5}, "word_dropout": {"word_dropout": 0.5}}
    within |= {"by_column": {"likelihood": "mixed"}, "dequantise": {"likelihood": "normal"}}
    others = {
        int: lambda v: v + 1,
        "int | None": lambda v: 3,
        bool: lambda v: not v,
        float: lambda v: v / 2,
        str: lambda v: "1",
        "tuple[int, ...]": lambda v: (*v[:-1], v[-1] + 1) if v else (3,),
        "tuple[str, ...]": lambda v: ("0=student_t",),
    }

    def shape(setup):
        pyro.set_rng_seed(0)
        model = setup.model(loader)
        encoder = setup.guide(model, loader) if word in ("nice", "realnvp", "vq_vae") else setup.encoder(loader)
        stepped, _ = setup.trained(model, setup.guide(model, loader) if word == "diffusion" else encoder)
        shown = data(setup)  # labels that are shown belong to the model's options, and so does what they count
        own_guide = isinstance(setup, RandomWeights | GuidedOverTime) or word in ("air", "draw")
        weights = str(fresh_pair(setup, loader, own if word in ("air", "draw") else Diagonal)[1]) if own_guide else ""
        modules = [str(model), str(encoder), str(stepped), str(setup.summed_out), str(setup.aided(ELBO(), shown))]
        modules += [weights, *(shown[name].tolist() for name in shown.given if name != "x")]
        return [*modules, *(p.tolist() for p in (*model.parameters(), *model.buffers(), *encoder.parameters()))]

    hints = get_type_hints(named(word))
    loader = data(setup)
    for field in dataclasses.fields(setup):
        kind, value = hints[field.name], getattr(setup, field.name)
        other = next((v for v in get_args(kind) if isinstance(v, str | int) and v != value), None)
        other = ("1",) if field.name == "given_columns" else other
        other = others.get(kind, others.get(str(kind)))(value) if other is None else other
        usual = dataclasses.replace(setup, **within.get(field.name, {}))
        assert shape(dataclasses.replace(usual, **{field.name: other})) != shape(usual), field.name


@pytest.mark.parametrize("word", WORDS)
def test_every_model_is_restored_from_what_a_run_leaves(word, tmp_path):
    family = "own" if word in OWN_ALONE else "diagonal"
    settings = {"model": word, "guide": family, "binarize": "default", **SMALLER.get(word, {})}
    recipe = Recipe.of(settings)
    loader = data(recipe.setup)
    model, guide = recipe.pair(loader)
    keep(tmp_path, model, guide, loader.x[0].numel())
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    for kept, back in zip((model, guide), restore(tmp_path), strict=True):
        assert type(back) is type(kept)
        assert all(torch.equal(value, kept.state_dict()[name]) for name, value in back.state_dict().items())


def test_the_vae_is_the_one_that_scripts_have_always_trained():
    """Layers, their order of creation and the starting bias, from torch's own layers under the same seed."""
    setup, loader = VAESetup(z_dim=3, hidden=(5, 4)), data(VAESetup())
    pyro.set_rng_seed(1)
    model, guide = fresh_pair(setup, loader, Diagonal)
    pyro.set_rng_seed(1)
    layers = [torch.nn.Linear(a, b) for a, b in ((3, 4), (4, 5), (5, 64), (64, 5), (5, 4))]
    assert isinstance(model, VAE)
    found = [*model.likelihood.net.layers, *guide.encoder.layers]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(found, layers, strict=True))
    assert torch.allclose(model.likelihood.net.bias, torch.logit(loader.mean, eps=1e-3))
    assert num_parameters(model) == sum(p.numel() for layer in layers[:3] for p in layer.parameters())
    plain = dataclasses.replace(setup, mean_bias=False).model(loader)
    assert plain.likelihood.net.bias.abs().max() < 1 / 5**0.5 + 1e-6


@pytest.mark.parametrize("net, block", [("conv", "Identity"), ("residual", "ResidualBlock"), ("gated", "GatedBlock")])
def test_a_vae_of_images_takes_convolutions_of_any_size(net, block):
    """Of two channels and odd sides, and a mask beside them where pixels are missing."""
    x = (torch.rand(40, 2 * 5 * 7) < 0.5).float()
    x[3, 4] = torch.nan
    setup = VAESetup(net=net, z_dim=3, hidden=(6,), channels=(4, 3), activation="elu")
    for holes in (False, True):
        loader = Loader(x if holes else x[4:], image_shape=(2, 5, 7), missing=holes)
        model, guide = fresh_pair(setup, loader, Diagonal)
        decoder = model.likelihood.likelihood.net.net.net if holes else model.likelihood.net
        encoder = guide.encoder.net if holes else guide.encoder
        assert [type(b).__name__ for b in (*encoder.blocks, *decoder.blocks)] == [block] * 4
        assert encoder.shape == ((4, 5, 7) if holes else (2, 5, 7)) and (encoder.out_features == 6)
        assert evaluate(model, guide, loader, num_particles=2).elbo < 0


def test_other_likelihoods_take_their_last_layer_from_the_maps():
    """Of greys with two channels: as few parameters as a convolution has, beside a bias for each number."""
    loader = Loader(torch.randint(5, (40, 2 * 5 * 7)) / 4, image_shape=(2, 5, 7))
    for word, per in (("discretised_logistic", 2), ("grey_levels", 5)):
        setup = VAESetup(net="residual", likelihood=word, z_dim=3, hidden=(6,), channels=(4, 3))
        model, guide = fresh_pair(setup, loader, Diagonal)
        assert num_parameters(model.likelihood.head) == 4 * 9 * 2 * per + 70 * per
        first, *_, last = fit(model, guide, IWAE(2), loader, epochs=20, seed=0, engine="eager", progress=False)
        assert last.train > first.train and model(n=3).shape == (3, 70)


def test_convolutions_are_refused_for_columns_and_without_a_width_of_features():
    with pytest.raises(ValueError, match="net must be mlp for data in columns.*got gated"):
        VAESetup(net="gated").model(Loader(torch.ones(5, 3)))
    with pytest.raises(ValueError, match="hidden must have a width, that of the encoder's features, for --net conv"):
        VAESetup(net="conv", hidden=()).encoder(data(VAESetup()))


def test_greys_stay_where_the_model_is_of_real_numbers_or_where_they_are_asked_for():
    def binary(**settings) -> bool:
        (x,) = next(iter(Recipe.of(settings).splits().train))
        return set(x.unique().tolist()) <= {0.0, 1.0}

    assert binary() and binary(model="hvae") and binary(likelihood="normal", binarize="threshold")
    assert not binary(likelihood="normal") and not binary(model="ppca") and not binary(binarize="none")


def test_settings_of_an_earlier_run_are_taken_with_defaults_for_what_it_did_not_know(tmp_path):
    kept = {"guide": "iaf", "binarize": "static", "z_dim": 3, "hidden": [8, 4], "iaf_width": [16], "data": "x.csv",
            "likelihood": "normal", "an_option_of_old": 1, "data_dir": "there", "batch_size": 7}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"config": kept}))
    recipe = recipe_of(tmp_path)
    assert recipe.setup == VAESetup(z_dim=3, hidden=(8, 4), likelihood="normal")
    assert recipe.guide == GuideOptions("iaf", iaf_width=(16,)) and recipe.binarize == "static"
    assert (recipe.data.data, recipe.data.batch_size, str(recipe.data.data_dir)) == ("x.csv", 7, "there")
    assert recipe_of(tmp_path, tmp_path).data.data_dir == tmp_path


def test_the_hierarchy_has_a_vector_for_each_size():
    model = HVAESetup(sizes=(4, 3, 2), hidden=(8, 7, 6)).model(data(HVAESetup()))
    assert isinstance(model, HVAE) and model(n=5).shape == (5, 64) and len(model.conditionals) == 2


@pytest.mark.parametrize("word", ["classifier", "regression"])
def test_holes_are_refused_by_a_plain_network_with_what_fills_them(word):
    holes = torch.randn(5, 4).masked_fill(torch.eye(5, 4, dtype=torch.bool), torch.nan)
    with pytest.raises(ValueError, match="data have missing entries.*impute"):
        named(word)().model(Loader(holes, missing=True))
