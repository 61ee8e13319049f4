"""The command line of a script with a model among its options: which words it takes, and what it says of others."""

from __future__ import annotations

import copy
import dataclasses
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from dlvm.experiments import compare_bounds, evidence, gaps, rate_distortion, train
from dlvm.experiments.data import Loader
from dlvm.experiments.options.command_line import parsed
from dlvm.experiments.options.guides import guide_named
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.setups.hvae import HVAESetup
from dlvm.experiments.setups.named import about, named, words
from dlvm.experiments.setups.options import settings_of
from dlvm.experiments.setups.ppca import PPCASetup
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup

SCRIPTS = (train, compare_bounds, gaps, evidence, rate_distortion)
MINE = '''
from dataclasses import dataclass
import pyro
from pyro.nn import PyroModule
from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.experiments.setups.setup import Setup
from dlvm.guides import Diagonal
from dlvm.nets import MLP

class Deep(PyroModule):
    def __init__(self, a, b, c, x_dim):
        super().__init__("model")
        self.top, self.mid = StandardNormal(c), DiagonalNormal(MLP(c, 8), b)
        self.low, self.pixels = DiagonalNormal(MLP(b, 8), a), Bernoulli(MLP(a, 8, x_dim))

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            top = pyro.sample("top", self.top())
            mid = pyro.sample("mid", self.mid(top))
            low = pyro.sample("low", self.low(mid))
            return pyro.sample("pixels", self.pixels(low), obs=x)

@dataclass(frozen=True)
class MySetup(Setup):
    """Three layers of mine."""
    sizes: tuple[int, ...] = (4, 3, 2)
    """Dimensions, lowest first."""
    binary = True
    def model(self, data):
        return Deep(*self.sizes, data.x_dim)

def my_guide(latents, encoder):
    return Diagonal(latents, encoder, order="bottom_up")

@dataclass
class Thawed(Setup):
    size: int = 1
    def model(self, data): ...

@dataclass(frozen=True)
class Clash(MySetup):
    lr: float = 1.0

@dataclass(frozen=True)
class Bare(Setup):
    size: int
    def model(self, data): ...

@dataclass(frozen=True)
class Raises(MySetup):
    def model(self, data):
        return data.nothing

@dataclass(frozen=True)
class Number(MySetup):
    def model(self, data): return 3

@dataclass(frozen=True)
class Empty(Setup):
    size: int = 1

class Stranger: ...

def no_guide(latents, encoder): return latents
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The name, another in each test, of a module of one's own in the current folder."""
    name = f"mine_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def config(line: str, script=train):
    return parsed(script.Config, line.split(), "script")


def test_a_model_has_its_own_options_and_no_other():
    assert config("--model hvae --sizes 8 4 --epochs 3") == train.Config(setup=HVAESetup(sizes=(8, 4)), epochs=3)
    assert config("--z-dim 8") == train.Config(setup=VAESetup(z_dim=8)) == train.Config.of(z_dim=8)
    assert config("--model=vae --no-mean-bias").setup == VAESetup(mean_bias=False)
    assert config("", gaps).setup == VAESetup(8, (100, 100)) == config("--model vae", gaps).setup
    assert config("--model ppca", gaps).setup == PPCASetup()


@pytest.mark.parametrize(
    "line, said",
    [
        ("--model hvae --z-dim 8", "; did you mean --sizes? hvae has --sizes, --hidden, "),
        ("--model vae --bits 8", "--bits is no option of --model vae, but of discrete_vae and mixed_vae; did "),
        ("--model ppca --sizes 8", "--sizes is no option of --model ppca, but of hvae"),
        ("--model hvae --size 8", "--size is no option of --model hvae; did you mean --sizes?"),
        ("--zdim 8", "--zdim is no option of --model vae; did you mean --z-dim?"),
        ("--epoch 8", "did you mean --epochs?"),
        ("--model hvea", "or my_module:MySetup of your own, got 'hvea'; did you mean hvae?"),
        ("--model vae --no-hidden", "--no-hidden is no option"),
    ],
)  # fmt: skip
def test_a_word_that_is_no_option_is_refused_with_the_nearest_that_is(line, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        config(line)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.rpartition(".")[2])
def test_help_lists_the_models_and_the_options_of_the_chosen_one(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        config("--model hvae --help", script)
    shown = " ".join(capsys.readouterr().out.split())
    assert "--sizes" in shown and "--encoder-hidden" in shown and "--z-dim" not in shown
    assert all(f"{word}: {about(named(word))[:20]}" in shown for word in words())
    assert "my_module:MySetup" in shown


def test_a_model_may_need_other_defaults_and_what_is_given_goes_before():
    assert config("--model discrete_vae").estimator == "vimco" == train.Config.of("discrete_vae").estimator
    assert config("--model discrete_vae --estimator score").estimator == "score"
    assert config("--model discrete_vae", compare_bounds).objectives[0] == "elbo:score"
    assert config("").estimator == "total"


def test_settings_are_flat_and_lead_back_to_the_config():
    made = train.Config.of("hvae", sizes=(8, 4), epochs=3)
    flat = settings_of(made)
    assert flat["model"] == "hvae" and flat["sizes"] == (8, 4) and flat["epochs"] == 3 and "setup" not in flat
    assert train.Config.of(**flat) == made and Recipe.of(flat) == Recipe.by(made)
    assert copy.deepcopy(made) == made


@pytest.mark.parametrize("sizes, widths", [((4,), (100,)), ((4, 3), (100, 64)), ((4, 3, 2), (100, 64, 64))])
def test_the_hierarchy_has_as_many_layers_as_sizes(sizes, widths):
    assert HVAESetup(sizes).widths == widths
    with pytest.raises(ValueError, match="hidden must have no more widths than there are layers"):
        HVAESetup((4,), (5, 6)).model(Loader(torch.eye(3)))


def test_a_model_of_ones_own_is_taken_from_the_current_folder(mine):
    made = config(f"--model {mine}:MySetup --sizes 5 3 2 --guide {mine}:my_guide")
    recipe = Recipe.by(made)
    model, guide = recipe.pair(recipe.splits().train)
    assert type(model).__name__ == "Deep" and model(n=3).shape == (3, 64) and guide.order == "bottom_up"
    assert settings_of(made)["model"] == f"{mine}:MySetup" and train.Config.of(**settings_of(made)) == made
    assert about(type(made.setup)) == "Three layers of mine."


@pytest.mark.parametrize(
    "word, said",
    [
        ("{}", "write {}:MySetup, with the name of your class"),
        ("{}.py:MySetup", "write {}:MySetup"),
        ("{}:", "must be written as module:Class"),
        ("{}:MySetpu", "has no MySetpu, .* did you mean {}:MySetup"),
        ("{}x:MySetup", "there is no module {}x; expected {}x.py in "),
        ("{}:Thawed", "must be a frozen dataclass"),
        ("{}:Clash", "has the field lr, which is an option of this script; rename it"),
        ("{}:Bare", "every field of {}:Bare needs a default; give size one"),
        ("{}:Raises", r"Raises.model\(data\) raised AttributeError: .* \({}.py, line 52\)"),
        ("{}:Number", "must return a module, got int"),
        ("{}:Empty", "has no model; define model"),
        ("{}:Stranger", r"write class Stranger\(Setup\)"),
        ("{}:my_guide", "model must be a class"),
    ],
)
def test_what_is_no_model_is_refused_in_words(word, said, mine):
    with pytest.raises(ValueError, match=said.replace("{}", mine)):
        recipe = Recipe.by(config(f"--model {word.replace('{}', mine)}"))
        recipe.pair(recipe.splits().train)


@pytest.mark.parametrize(
    "word, said",
    [
        ("digonal", "guide must be one of .*, got 'digonal'; did you mean diagonal"),
        ("{}:my_giude", "did you mean {}:my_guide"),
        ("{}:Stranger", r"Stranger\(latents, encoder\) raised TypeError"),
        ("{}:no_guide", "as a module, got dict"),
        ("{}:MINE", "has no MINE"),
    ],
)
def test_what_is_no_guide_is_refused_in_words(word, said, mine):
    with pytest.raises(ValueError, match=said.replace("{}", mine)):
        guide_named(word.replace("{}", mine))({}, None)


def test_an_error_inside_a_module_is_told_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_inside.py").write_text("x = 1\nimport nothing_of_this_name\n")
    said = r"importing broken_inside raised ModuleNotFoundError: No module named .* \(broken_inside.py, line 2\)"
    with pytest.raises(ValueError, match=said):
        named("broken_inside:X")


def test_a_setup_of_ones_own_needs_a_model_alone():
    @dataclasses.dataclass(frozen=True)
    class Least(Setup):
        size: int = 1

    made = Least()
    assert made.inputs == ("x",) and made.binary is False and made.defaults == {} and made.optimum(None) is None


def test_the_module_of_the_page_works_as_it_stands(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")
    (tmp_path / "module_of_the_page.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    line = "--model module_of_the_page:MySetup --sizes 5 3 2 --guide module_of_the_page:my_guide"
    recipe = Recipe.by(config(line))
    model, guide = recipe.pair(recipe.splits().train)
    assert model(n=2).shape == (2, 64) and guide.order == "bottom_up"
    assert {"encoder", "defaults", "measures"} <= set(re.findall(r"^\| `(\w+)", page, re.MULTILINE))


@pytest.mark.slow
def test_a_hierarchy_of_ones_own_is_trained_from_a_folder_of_ones_own(tmp_path):
    """In a process of its own, which knows the module by the current folder alone."""
    (tmp_path / "deep.py").write_text(textwrap.dedent(MINE))
    line = "--model deep:MySetup --guide deep:my_guide --epochs 2 --eval-data 20 --eval-particles 20 --out run"
    command = [sys.executable, "-m", "dlvm.experiments.train", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "left out" not in done.stdout, done.stderr
    assert {"latent_space_top.png", "reconstructions.png", "samples.png"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
