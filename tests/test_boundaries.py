"""Which room may import which, and what no file may hold, read from the sources."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "nets": set(),
    "distributions": {"nets"},
    "models": {"distributions", "nets"},
    "guides": {"distributions", "nets"},
    "inference": {"distributions", "nets"},
    "evidence": {"inference", "guides", "distributions", "nets"},
    "experiments": {"evidence", "inference", "guides", "models", "distributions", "nets"},
}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
OTHERS = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
SCRIPTS = [path for path in sorted((ROOT / "experiments").glob("*.py")) if "__main__" in path.read_text("utf-8")]
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
LOADERS = {"torch": "load", "joblib": "load", "torch.hub": "load", "pandas": "read_pickle"}
DISTRIBUTIONS = {"pyro": "pyro-ppl", "sklearn": "scikit-learn"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(source: ast.AST) -> set[str]:
    """Dotted names of everything imported absolutely, wherever in the file."""
    found = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
    return found


def top(names: set[str]) -> set[str]:
    return {dotted.split(".")[0] for dotted in names}


def unsafe(source: ast.AST) -> list[str]:
    """What loads, or may load, a pickle: modules made for it, torch.load, and numpy's permission to."""
    found = sorted(top(imported(source)) & UNSAFE)
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {f"{a}.{b}" for a, b in LOADERS.items()}:
            found.append(ast.unparse(node))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle=" + ast.unparse(node.value))
        if isinstance(node, ast.ImportFrom) and LOADERS.get(node.module) in {alias.name for alias in node.names}:
            found.append(ast.unparse(node))
    return found


def test_every_room_is_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ROOMS)
    assert all((ROOT / room / "__init__.py") in FILES for room in ROOMS)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down_only(path):
    room = path.relative_to(ROOT).parts[0]
    upward = top(imported(tree(path))) & (set(ROOMS) | {"tests", "benchmarks"}) - ROOMS[room] - {room}
    assert not upward, f"{name(path)} imports {sorted(upward)}; {room} may import {sorted(ROOMS[room])}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_relative_imports_stay_in_their_room(path):
    depth = len(path.relative_to(ROOT).parts) - 1
    levels = [node.level for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
    assert all(level <= depth for level in levels), f"{name(path)} climbs out of its room"


def test_models_guides_and_inference_meet_only_in_scripts():
    for room in ("models", "guides", "inference"):
        files = [path for path in FILES if path.relative_to(ROOT).parts[0] == room]
        seen = set().union(*(top(imported(tree(path))) for path in files))
        assert not seen & {"models", "guides", "inference"} - {room}, room


def test_torchvision_is_imported_in_one_place():
    found = {name(path) for path in FILES + OTHERS if "torchvision" in top(imported(tree(path)))}
    assert found == {"experiments/data/_torchvision.py"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_assert_and_no_pickle(path):
    source = tree(path)
    lines = [node.lineno for node in ast.walk(source) if isinstance(node, ast.Assert)]
    assert not lines, f"{name(path)} asserts at lines {lines}: raise an error that names the remedy"
    assert unsafe(source) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('w.pt')",
        "from torch import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
    ],
)
def test_what_loads_a_pickle_is_recognised(code):
    assert unsafe(ast.parse(code)) and not unsafe(ast.parse("np.load(f, allow_pickle=False)"))


@pytest.mark.parametrize("path", sorted((ROOT / "nets").parent.glob("*/__init__.py")), ids=name)
def test_a_room_exports_what_it_says(path):
    room = path.parent.name
    if room not in ROOMS or room == "experiments":
        return
    source = tree(path)
    exported = next(ast.literal_eval(n.value) for n in source.body if isinstance(n, ast.Assign))
    names = {alias.asname or alias.name for n in source.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert set(exported) == names and len(exported) == len(set(exported))
    assert all(isinstance(n, (ast.ImportFrom, ast.Import, ast.Assign, ast.Expr)) for n in source.body)


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_every_script_is_in_the_readme(path):
    command = f"python -m experiments.{path.stem}"
    assert command in (ROOT / "README.md").read_text("utf-8"), f"README.md lacks a line with `{command}`"


def test_every_package_that_is_imported_is_declared():
    """Also those that another one happens to bring along."""
    declared = (ROOT / "pyproject.toml").read_text("utf-8").split("dependencies = [")[1].split("]")[0]
    names = {re.split("[^A-Za-z0-9_-]", line.strip(' ",'))[0] for line in declared.splitlines()}
    used = set().union(*(top(imported(tree(path))) for path in FILES)) - set(ROOMS) - set(sys.stdlib_module_names)
    assert {DISTRIBUTIONS.get(package, package) for package in used} <= names


def test_packaging_knows_every_package():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    line = next(line for line in text.splitlines() if line.startswith("packages = "))
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES if path.name == "__init__.py"}
    assert set(ast.literal_eval(line.removeprefix("packages = "))) == packages
