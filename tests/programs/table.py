"""What may be brought: every program in every way, and the page that says what came of it.

From the project's root: ``python tests/programs/table.py [--core] [KIND or NAME ...]``, and ``--json FILE`` or
``--docs FILE``.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from programs import KINDS, programs  # noqa: E402
from programs.brought import Brought  # noqa: E402
from programs.more_ways import WAYS  # noqa: E402
from programs.outcome import outcome  # noqa: E402
from programs.ways import CORE  # noqa: E402

COLUMNS = {
    "trained": ["losses", "losses ELBO", "fit stock", "fit ELBO", "fit IWAE", "losses captured", "fit auto"],
    "checked": ["check", "check stock"],
    "evaluated": ["evaluate", "evaluate in parts", "importance", "log_weights"],
    "guides from `latents`": ["Diagonal", "FullRank", "IAF"],
    "other evidence": ["prior_sampling", "defensive", "enumerated", "quadrature", "views", "simulate"],
}
HEAD = """# What you may bring

Any Pyro program that stock `pyro.infer.SVI` trains. Either the number is right, or an error names the site or the
argument and says what to do instead.

* **A datum** is what one row of the data plate draws and observes. The data plate is the one around all data (observed
  sites with a likelihood) and around the latent sites that are not shared; it is found by the sites inside it, not by
  its name, size or position, and a plate without a size has as many rows as its sites. `for i in pyro.plate(...)`
  makes each turn a datum. Without a plate the batch is one datum.
* **Counted once.** `pyro.factor` and observed sites outside the data plate are counted once per batch, and belong to
  no datum: nats per datum stay that. Inside the plate a factor is part of its datum's weight. `pyro.deterministic`
  counts nothing.
* **Arguments** have a row for each datum where a datum weighs alone what it weighs among others; a table that all data
  share stays whole, and a batch that cannot be cut (statistics over the batch, a parameter for each datum, data along
  another axis) is computed with as a whole. The first tensor among the arguments tells how many data there are; others
  may be `None`, numbers, words, objects, and may be missing from some batches.
  A dictionary, a tuple or an object with tensors inside is one argument to `SVI`, `check` and `log_weights`; what cuts
  data into rows, `fit` and `evaluate`, takes tensors as arguments of their own, and says how to pass them.
* **Said, where it cannot be told**: `described(model, data_plate="rows")` of crossed plates, each of which may index
  data, `shared="table"` of an argument that all data share, however long it is, `per_datum={"x": 1}` of data along
  another axis than the first, which are then cut into chunks as any data. It is kept beside the model, and read by
  `fit`, `SVI`, `evaluate` and evidence; to stock Pyro the model stays what it is. What contradicts what is seen is
  refused.
* **Particles** run side by side where each then has the density that it has alone, told by values; otherwise one after
  the other, with one line that says so.
* **Noise of a program's own** (`torch.randn`, `F.dropout(training=True)`, a site hidden by `poutine.block`): log p(x)
  has the model's integrated out, so that each particle draws its own. Noise of the latents' shape does so side by side;
  where particles would share it, they run one after the other, but for bounds that are linear in the log-weights, whose
  mean is the same. Noise that all data share is integrated out for each datum by itself. The guide's belongs to how it
  proposes: q(z | x, noise) is a density, which particles may share. Evidence that needs a density at any value
  (`annealed`, `defensive`, `quadrature`, `enumerated`) refuses both. Noise that evaluation mode turns off, as of
  `nn.Dropout`, is a regulariser of training, and stays as it is. A hidden site that cannot be reparametrised gives its
  own parameters no gradient.
* **Masks** of latent sites count nothing in p and in q: guides from `latents(...)` follow the model's, others are
  refused with the remedy. A **scale** that all sites of a datum share multiplies its bound; one on likelihoods alone
  tempers them, and one on latent sites alone is no density, so that evidence refuses it.
* **Parameters** that are trained are those that the programs compute with, wherever they are declared. One that a
  batch leaves without a gradient stays as it is at that step (stock's Adam moves it on by its momentum).

Below, each program has an exact answer by other means (`tests/programs`) and is trained by stock SVI, or stock cannot.
*right*: the number is that answer, or what stock gives on the same noise. *refused*: an error in words.
This page is written by `python tests/programs/table.py --docs docs/programs.md`.
"""


def run(program: Brought, ways: list[str]) -> list[dict]:
    """One record for each way."""
    found = []
    for way in ways:
        started = time.process_time()
        seen = outcome(program, way)
        seconds = round(time.process_time() - started, 2)
        record = dict(program=str(program), way=way, kind=seen.kind, said=seen.said, where=seen.where, seconds=seconds)
        print(f"{record['program']:45s} {way:26s} {seen.kind:9s} {seconds:5.2f} {seen.said[:160]}", flush=True)
        found.append(record)
    return found


def page(records: list[dict]) -> str:
    """The outcomes as tables, one for each kind of program."""
    kinds = {(record["program"], record["way"]): record["kind"] for record in records}
    objectives = [way for way in WAYS if not any(way in ways for ways in COLUMNS.values())]
    columns = COLUMNS | {"the other objectives": objectives}
    parts = [HEAD]
    for kind in KINDS:
        module = sys.modules[f"programs.{kind}"]
        parts.append(f"## {kind.replace('_', ' ').capitalize()}\n\n{module.__doc__.strip()}\n")
        parts.append(f"| program | what it brings | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
        for program in (found for found in vars(module).values() if isinstance(found, Brought)):
            cells = [_cell([kinds.get((str(program), way), "none") for way in ways]) for ways in columns.values()]
            parts.append(f"| `{program.name}` | {program.why} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _cell(kinds: list[str]) -> str:
    counts = Counter(kind for kind in kinds if kind != "none")
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "-"


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    files = {word: Path(words.pop(words.index(word) + 1)) for word in ("--json", "--docs") if word in words}
    chosen = [word for word in words if not word.startswith("--")]
    ways = list(CORE) if "--core" in words else [*CORE, *WAYS]
    wanted = [p for p in programs() if not chosen or p.kind in chosen or p.name in chosen]
    records = [record for program in wanted for record in run(program, ways)]
    print(Counter(record["kind"] for record in records))
    texts = {"--json": json.dumps(records, indent=1), "--docs": page(records)}
    for word, file in files.items():
        file.write_text(texts[word], "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
