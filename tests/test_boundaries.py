"""The walls of the house, read from the sources: who may import whom, how large things are, what no file may hold."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from architecture import beyond, files, folders, is_face, modules, place, tree

ROOT = Path(__file__).parent.parent
ROOMS = {
    "nets": set(),
    "distributions": {"nets"},
    "models": {"distributions", "nets"},
    "guides": {"distributions", "nets"},
    "inference": {"distributions", "nets"},
    "evidence": {"inference", "guides", "models", "distributions", "nets"},
    "experiments": {"evidence", "inference", "guides", "models", "distributions", "nets"},
}
# Each imports only what stands to its left; those of one step do not import one another. FILES are the room's own.
ORDERS = {
    "nets": "FILES < recurrences < autoregressive, sequences, windows",
    "distributions": "FILES < flows < likelihoods, priors < autoregressive, diffusion, sequences",
    "guides": "sites < FILES",
    "inference": (
        "FILES, bounds < programs < engine, particles < distributed, estimators, evaluation"
        " < objectives, checkpoints, use < autoencoders, training, saved"
    ),
    "evidence": "FILES < annealing, decomposition, diagnostics < log_px, sampling, weights < inference_gap",
    "experiments": "data < measures, options < generated, figures < setups < runs < sweeps < FILES",
}
FACES = {
    **{room: "what scripts import" for room in ROOMS if room != "experiments"},
    "experiments/data": "what scripts import: experiments itself is scripts, and shows nothing",
    "experiments/figures": "what scripts import where they draw",
}
LONGEST, LONGEST_SCRIPT, SHORTEST = 260, 300, 60  # lines of a file
MOST = 16  # modules of a folder
CATALOGUES = ("models", "guides", "experiments", "experiments/setups", "experiments/figures")  # a file for each
SHORT = {  # files, or folders whose every file may be so
    "experiments/data/_torchvision.py": "the one place that imports torchvision",
    "experiments/setups/": "each model as scripts train it is a file, whose name is the word for it",
}
TESTS_OF_MORE = {"benchmarks", "oracles", "programs", "properties", "refusals"}  # folders of tests that are no room's
BOTH_NAMES = {"tests/test_packaging.py": "it has a user's own models beside dlvm.models"}

FILES = list(modules().values())
OTHERS = [path for folder in ("tests", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = sorted(path for folder in (".", "docs", "benchmarks", "experiments") for path in (ROOT / folder).glob("*.md"))
SCRIPTS = [path for path in sorted((ROOT / "experiments").glob("[a-z]*.py")) if "__main__" in path.read_text("utf-8")]
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
LOADERS = {"torch": "load", "joblib": "load", "torch.hub": "load", "pandas": "read_pickle"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def imported(found: list[ast.AST]) -> set[str]:
    """Dotted names of everything imported absolutely, wherever in the file; a room is taken from dlvm."""
    names = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    taken = [node for node in found if isinstance(node, ast.ImportFrom) and node.level == 0]
    names |= {node.module for node in taken if node.module != "dlvm"}
    return names | {f"dlvm.{alias.name}" for node in taken if node.module == "dlvm" for alias in node.names}


def top(names: set[str]) -> set[str]:
    return {dotted.split(".")[0] for dotted in names}


def rooms(names: set[str]) -> set[str]:
    """The rooms among dotted names, by whatever name they are imported."""
    return top({dotted.removeprefix("dlvm.") for dotted in names}) & set(ROOMS)


def unsafe(found: list[ast.AST]) -> list[str]:
    """What loads, or may load, a pickle: modules made for it, torch.load, and numpy's permission to."""
    names = sorted(top(imported(found)) & UNSAFE)
    for node in found:
        if isinstance(node, ast.Attribute) and node.attr in LOADERS.values():
            names += {ast.unparse(node)} & {f"{a}.{b}" for a, b in LOADERS.items()}
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            names.append("allow_pickle=" + ast.unparse(node.value))
        if isinstance(node, ast.ImportFrom) and LOADERS.get(node.module) in {alias.name for alias in node.names}:
            names.append(ast.unparse(node))
    return names


def circles(arrows: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of two and more that all reach one another."""
    reached = {a: beyond(arrows, a) for a in arrows}
    return sorted({tuple(sorted(b for b in to if a in reached.get(b, ()))) for a, to in reached.items() if a in to})


def folder(path: Path) -> str:
    return name(path.parent)


# Rooms


def test_every_room_is_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ROOMS)
    assert all((ROOT / room / "__init__.py") in FILES for room in ROOMS)
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found - {"benchmarks"} == set(ROOMS)


def test_imports_go_down_only():
    wrong = {}
    for path in FILES:
        room, names = path.relative_to(ROOT).parts[0], imported(nodes(path))
        upward = (rooms(names) - ROOMS[room] - {room}) | top(names) & {"tests", "benchmarks"}
        if upward:
            wrong[name(path)] = f"imports {sorted(upward)}; {room} may import {sorted(ROOMS[room])}"
    assert not wrong


def test_relative_imports_stay_in_their_room():
    levels = {path: [node.level for node in nodes(path) if isinstance(node, ast.ImportFrom)] for path in FILES}
    climbing = [name(p) for p, found in levels.items() if any(n >= len(p.relative_to(ROOT).parts) for n in found)]
    assert not climbing, f"{climbing} climb out of their room"


def test_models_guides_and_inference_meet_only_in_scripts():
    for room in ("models", "guides", "inference"):
        paths = [path for path in FILES if path.relative_to(ROOT).parts[0] == room]
        seen = set().union(*(rooms(imported(nodes(path))) for path in paths))
        assert not seen & {"models", "guides", "inference"} - {room}, room


def test_torchvision_is_imported_in_one_place():
    found = {name(path) for path in FILES + OTHERS if "torchvision" in top(imported(nodes(path)))}
    assert found == {"experiments/data/_torchvision.py"}


# Inside the rooms


@pytest.mark.parametrize("room", ORDERS)
def test_sub_packages_import_only_what_stands_to_their_left(room):
    steps = [{place_of(room, part) for part in step.split(", ")} for step in ORDERS[room].split(" < ")]
    found = {here: {to for to in names if to.split(".")[0] == room} for here, names in folders().items()}
    found = {here: names for here, names in found.items() if here.split(".")[0] == room}
    assert set().union(*steps) == set(found) and sum(map(len, steps)) == len(found), "the order names each folder once"
    wrong = []
    for i, step in enumerate(steps):
        allowed = set().union(*steps[:i])
        for here in sorted(step):
            wrong += [
                f"{module} imports {to}" for module, names in files().items() if place(module) == here for to in names
                if place(to) in found and place(to) not in allowed | {here}
            ]  # fmt: skip
    assert not wrong, f"{ORDERS[room]}: {wrong}"


def place_of(room: str, part: str) -> str:
    return room if part == "FILES" else f"{room}.{part}"


def test_the_rooms_that_have_sub_packages_have_an_order():
    assert {here.split(".")[0] for here in folders() if "." in here} == set(ORDERS)


def test_no_file_imports_in_a_circle():
    assert circles(files()) == []


def test_no_folder_imports_in_a_circle():
    assert circles(folders()) == []


def test_a_circle_is_recognised():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}}
    assert circles(arrows) == [("a", "b", "c"), ("e", "f")]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_what_lies_inside_a_room_is_imported_from_where_it_lies():
    """Not from the room's own face, which imports it in turn."""
    wrong = [
        f"{module} imports {to}" for module, names in files().items() for to in names
        if is_face(to) and module.startswith(f"{to}.")
    ]  # fmt: skip
    assert not wrong


def test_a_name_is_imported_from_the_file_that_defines_it():
    """But for faces, which are there to hand names on."""
    wrong = []
    for path in FILES + OTHERS:
        for node in nodes(path):
            inner = isinstance(node, ast.ImportFrom) and node.module in modules() and not is_face(node.module)
            if inner:
                passed_on = {alias.name for alias in node.names} - defined(node.module)
                wrong += [f"{name(path)}: {each} is not of {node.module}" for each in sorted(passed_on)]
    assert not wrong


@cache
def defined(module: str) -> set[str]:
    """Names that a module's own statements bind; imports do not count."""
    found = set()
    for node in nodes(modules()[module]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


# One name


def bare(text: str) -> list[str]:
    """Imports of rooms without dlvm, in code, in a docstring's example, or in a string that is run."""
    words = "|".join(ROOMS)
    pattern = rf"\bfrom (?:{words})(?:\.[\w.]+)? import\b|(?:^[>. ]*|[\"';]\s*)import (?:{words})\b"
    return re.findall(pattern, text, re.MULTILINE)


def test_rooms_are_imported_as_dlvm():
    """By another name they would be loaded a second time."""
    texts = {path: path.read_text("utf-8") for path in [*FILES, *OTHERS, *PAGES] if name(path) not in BOTH_NAMES}
    wrong = {name(path): found for path, text in texts.items() if (found := bare(text))}
    assert not wrong
    assert not [name(path) for path in FILES + OTHERS if top(imported(nodes(path))) & set(ROOMS)]


@pytest.mark.parametrize(
    "line",
    ["from {} import ELBO", "    from {}.engine.step import Step", ">>> import {}", 'run("import {}.engine")'],
)
def test_a_bare_import_is_recognised(line):
    assert bare(line.format("inference")) and not bare(line.format("dlvm.inference"))


# Sizes


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_files_are_of_a_readable_size():
    bounds = {path: LONGEST_SCRIPT if path in SCRIPTS else LONGEST for path in FILES}
    assert not {name(path): lines(path) for path, bound in bounds.items() if lines(path) > bound}


def test_folders_are_of_a_readable_size():
    held = {}
    for module, path in modules().items():
        if not is_face(module):
            held.setdefault(folder(path), []).append(path.stem)
    assert not {where: len(found) for where, found in held.items() if len(found) > MOST and where not in CATALOGUES}


def test_a_fragment_lies_in_the_one_file_that_uses_it():
    users = {path: [] for path in FILES}
    for module, names in files().items():
        for to in names:
            users[modules()[to]].append(module)
    short = {path for path in FILES if path.name != "__init__.py" and lines(path) < SHORTEST}
    fragments = [name(path) for path in short if len(users[path]) == 1]
    assert [each for each in fragments if not each.startswith(tuple(SHORT))] == []
    assert [reason for reason in SHORT if not any(each.startswith(reason) for each in fragments)] == []


# Faces


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=folder)
def test_a_room_exports_what_it_says(path):
    """And a sub-package nothing: it says what lies in it."""
    source = tree(path)
    if folder(path) not in FACES:
        assert len(source.body) == 1 and ast.get_docstring(source)
        return
    exported = next(ast.literal_eval(n.value) for n in source.body if isinstance(n, ast.Assign))
    names = {alias.asname or alias.name for n in source.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert set(exported) == names and len(exported) == len(set(exported))
    assert all(isinstance(n, ast.ImportFrom | ast.Import | ast.Assign | ast.Expr) for n in source.body)


def test_no_sub_package_bears_the_name_of_something_public():
    """It would hide it: `dlvm.inference.fit` can be one thing only."""
    hidden = {}
    for face in FACES:
        source = tree(ROOT / face / "__init__.py")
        names = {alias.asname or alias.name for n in source.body if isinstance(n, ast.ImportFrom) for alias in n.names}
        hidden[face] = names & {path.parent.name for path in (ROOT / face).glob("*/__init__.py")}
    assert not any(hidden.values()), hidden


# What no file may hold


def test_no_assert_and_no_pickle():
    lines = {name(path): [node.lineno for node in nodes(path) if isinstance(node, ast.Assert)] for path in FILES}
    assert not {n: found for n, found in lines.items() if found}, "raise an error that names the remedy"
    assert {name(path): found for path in FILES if (found := unsafe(nodes(path)))} == {}


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
    safe = ast.parse("np.load(f, allow_pickle=False)")
    assert unsafe(list(ast.walk(ast.parse(code)))) and not unsafe(list(ast.walk(safe)))


# Tests and documents


def test_tests_mirror_the_rooms():
    """Each folder of tests is that of a room or a sub-package, or one of the few that concern them all."""
    found = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")} - {Path(".")}
    known = {path.parent.relative_to(ROOT) for path in FILES} | {Path(more) for more in TESTS_OF_MORE}
    assert found <= known, sorted(map(str, found - known))
    assert set(ROOMS) <= {path.parts[0] for path in found}


def test_tests_that_are_told_to_be_slow_are_there():
    for line in (ROOT / "tests" / "slow_tests.txt").read_text("utf-8").splitlines():
        file, function = line.split("[")[0].split("::")
        assert f"def {function}(" in (ROOT / file).read_text("utf-8"), f"take the line {line} out of slow_tests.txt"


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_every_script_is_in_the_table_of_scripts(path):
    command = f"python -m dlvm.experiments.{path.stem}"
    page = (ROOT / "docs" / "scripts.md").read_text("utf-8")
    assert command in page, f"docs/scripts.md lacks a line with `{command}`"
