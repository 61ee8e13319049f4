"""What is installed: name, version, what it needs, and that it lives beside a user's own files of the same names."""

from __future__ import annotations

import ast
import json
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from architecture import ROOMS, modules, tree

ROOT = Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
DISTRIBUTIONS = {"pyro": "pyro-ppl", "sklearn": "scikit-learn"}
ASSETS = "experiments/runs/assets"  # what pages are made of
NOT_COPIED = {"build", "dist", "data", "runs"}
TRAIN = [
    "-m",
    "dlvm.experiments.train",
    "--epochs",
    "1",
    "--hidden",
    "8",
    "--eval-particles",
    "2",
    "--batch-size",
    "500",
]

OWN_MODELS = """
import pyro
from pyro.nn import PyroModule

from dlvm.distributions import Bernoulli, StandardNormal
from dlvm.nets import MLP

class Mine(PyroModule):
    def __init__(self):
        super().__init__("model")
        self.prior, self.likelihood = StandardNormal(2), Bernoulli(MLP(2, 8, 64))

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            return pyro.sample("x", self.likelihood(pyro.sample("z", self.prior())), obs=x)
"""
OWN_SCRIPT = """
import json
from importlib.metadata import version

import dlvm.models
import guides
import inference
import models
from dlvm.experiments.data import digits
from dlvm.experiments.data.files import FOLDERS
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, fit
from dlvm.nets import MLP

train, valid, test = digits(batch_size=500)
model = models.Mine()
guide = Diagonal(latents(model, train.example), MLP(64, 8))
(epoch,) = fit(model, guide, ELBO(), train, valid=valid, epochs=1, progress=False)
print(json.dumps({
    "files": [module.__file__ for module in (dlvm.models, models, guides, inference)],
    "version": version("pyro-dlvm"),
    "data": str(FOLDERS[0]),
    "bound": epoch.valid,
}))
"""


def listed(key: str) -> list[str]:
    """A list of pyproject.toml."""
    return ast.literal_eval(re.search(rf"^{key} = (\[.*?^\]|\[.*\]$)", PROJECT, re.MULTILINE | re.DOTALL)[1])


def stated(key: str) -> str:
    return re.search(rf'^{key} = "(.*)"', PROJECT, re.MULTILINE)[1]


def python(command: list, cwd: Path, interpreter: Path | str = sys.executable) -> str:
    """What a command of Python prints."""
    done = subprocess.run([interpreter, *command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_that_is_imported_is_declared():
    """Also those that another one happens to bring along."""
    names = {re.split("[^A-Za-z0-9_-]", line)[0] for line in listed("dependencies")}
    found = [node for path in modules().values() for node in ast.walk(tree(path))]
    used = {alias.name.split(".")[0] for node in found if isinstance(node, ast.Import) for alias in node.names}
    used |= {node.module.split(".")[0] for node in found if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert "torch" in used
    assert {DISTRIBUTIONS.get(package, package) for package in used - {"dlvm"} - set(sys.stdlib_module_names)} <= names


def test_packaging_knows_every_package():
    packages = [name for name, path in modules().items() if path.name == "__init__.py"]
    assert listed("packages") == sorted(packages)
    assert not (ROOT / "__init__.py").exists(), "dlvm is a namespace"


def test_every_room_tells_type_checkers_that_it_is_typed():
    """dlvm itself, a namespace, cannot."""
    assert all((ROOT / room / "py.typed").is_file() for room in ROOMS)


def test_the_version_is_the_one_that_is_installed():
    assert version("pyro-dlvm") == stated("version"), "install again: make test does"


def test_the_citation_says_what_the_project_says():
    citation = dict(re.findall(r'^([\w-]+): "?(.+?)"?$', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE))
    assert (citation["version"], citation["license"]) == (stated("version"), stated("license"))
    assert "the dlvm authors" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert "Copyright (c) 2026 the dlvm authors" in (ROOT / "LICENSE").read_text("utf-8")


def test_a_script_runs_from_any_folder(tmp_path):
    for taken in ("models.py", "guides.py", "inference.py"):
        (tmp_path / taken).write_text("raise ImportError('a file of the user')")
    assert "python -m dlvm.experiments.train" in python(["-m", "dlvm.experiments.train", "--help"], tmp_path)


@pytest.mark.slow
def test_a_script_runs_from_the_root_by_its_folder(tmp_path):
    python(["-m", "experiments.train", *TRAIN[2:], "--out", str(tmp_path / "run")], ROOT)
    assert json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))["epochs"] == 1


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, the wheel that it gives, and in `tree/` the wheel that the checkout gives."""
    folder = tmp_path_factory.mktemp("built")

    def ignored(parent: str, names: list[str]) -> set[str]:
        top = {name for name in names if name in NOT_COPIED or name.endswith(".egg-info") or name[0] == "."}
        return {"__pycache__"} | (top - {".ci", ".pre-commit-config.yaml"} if Path(parent) == ROOT else set())

    def build(what: str, where: Path, to: Path) -> None:
        python(["-c", f"from setuptools.build_meta import *; build_{what}({str(to)!r})"], where)

    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    build("sdist", folder / "copy", folder)
    build("wheel", folder / "copy", folder / "tree")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "sdist")
    build("wheel", next((folder / "sdist").iterdir()), folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """{file: content} of the wheel in a folder."""
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


@pytest.mark.slow
def test_the_wheel_holds_the_rooms_and_nothing_else(built):
    info = f"pyro_dlvm-{stated('version')}.dist-info"
    held = contents(built)
    files = [*modules().values(), *(ROOT / room / "py.typed" for room in ROOMS), *(ROOT / ASSETS).iterdir()]
    expected = {f"dlvm/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in files}
    assert {name: text for name, text in held.items() if not name.startswith(info)} == expected
    assert f"{info}/licenses/LICENSE" in held
    assert contents(built / "tree") == held


@pytest.mark.slow
def test_the_sdist_holds_what_the_tests_need(built):
    top = next((built / "sdist").iterdir())
    needed = (
        "tests/conftest.py",
        "docs/architecture.py",
        "benchmarks/__init__.py",
        "constraints.txt",
        "Makefile",
        "LICENSE",
    )
    assert all((top / name).is_file() for name in needed)
    assert {path.name for path in top.rglob("test_*.py")} == {path.name for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the wheel, and what it needs from the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/*/site-packages"))
    wheel = str(next(built.glob("*.whl")))
    python(["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(packages), wheel], folder)
    # By their paths alone: what they would run at the start, the link to the checkout among it, is left out.
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin" / "python"


@pytest.fixture
def theirs(tmp_path) -> Path:
    """A user's folder, with files of the rooms' names."""
    folder = tmp_path / "theirs"
    (folder / "experiments" / "data").mkdir(parents=True)
    for name in ("experiments/__init__.py", "experiments/data/__init__.py", "experiments/train.py"):
        (folder / name).write_text("raise ImportError('a file of the user')")
    (folder / "guides.py").touch()
    (folder / "inference.py").touch()
    (folder / "models.py").write_text(OWN_MODELS)
    (folder / "mine.py").write_text(OWN_SCRIPT)
    return folder


@pytest.mark.slow
def test_the_wheel_trains_beside_files_of_the_same_names(installed, theirs):
    python(TRAIN, theirs, installed)
    assert json.loads((theirs / "runs" / "train" / "result.json").read_text("utf-8"))["epochs"] == 1


@pytest.mark.slow
def test_a_users_own_models_are_imported_beside_those_of_the_wheel(installed, theirs):
    found = json.loads(python(["mine.py"], theirs, installed).splitlines()[-1])
    packages = next(installed.parent.parent.glob("lib/*/site-packages"))
    own = [theirs / name for name in ("models.py", "guides.py", "inference.py")]
    assert found["files"] == [str(path) for path in (packages / "dlvm" / "models" / "__init__.py", *own)]
    assert found["data"] == str(theirs / "data")
    assert found["version"] == stated("version") and -100 < found["bound"] < 0
