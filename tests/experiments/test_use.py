"""A finished run in use, from the command line's words to files; and the command dlvm."""

from __future__ import annotations

import csv
import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch

from dlvm.experiments import command, train, use
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.new_data import keep_description
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.restore import keep, restore
from dlvm.experiments.runs.results_file import columns_of
from dlvm.experiments.setups.options import settings_of
from dlvm.inference import encode, log_px, reconstruct, save

NAMES = ["apples", "pears", "plums"]


def left(folder, **options):
    """The folder of a run of train, as it is before the first step."""
    config = train.Config.of(hidden=(8,), out=folder, **options)
    recipe = Recipe.by(config)
    data = recipe.splits().train
    torch.manual_seed(0)
    made = Run(folder, settings_of(config))
    keep(made.folder, *config.setup.evaluated(*recipe.pair(data), data), data.x_dim)
    keep_description(made.folder, data)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a table with ids, classes and real numbers, and the table."""
    folder = tmp_path_factory.mktemp("use")
    numbers = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32).round(3)
    lines = [["id", "kind", *NAMES], *([f"row {i}", "ab"[i % 2], *map(str, row)] for i, row in enumerate(numbers))]
    with (folder / "fruit.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    data = dict(data=str(folder / "fruit.csv"), index_column="id", label_column="kind", likelihood="normal")
    return left(folder / "run", **data), folder / "fruit.csv", torch.tensor(numbers)


def called(capsys, *words, **options):
    """What is written to the terminal."""
    use.main(use.Config(*words, **options))
    return [line.split(",") for line in capsys.readouterr().out.splitlines()]


def matrix(lines) -> np.ndarray:
    return np.array([[float(cell) for cell in line[1:]] for line in lines[1:]], np.float32)


def test_codes_of_a_table_have_its_ids_and_are_those_of_encode(run, capsys):
    folder, path, x = run
    lines = called(capsys, folder, "encode", path)
    assert lines[0] == ["id", "z_0", "z_1", "z_0_sd", "z_1_sd"]
    assert [line[0] for line in lines[1:]] == [f"row {i}" for i in range(60)]
    code = encode(*restore(folder), x)["z"]
    np.testing.assert_array_equal(matrix(lines), torch.cat([code.mean, code.sd], 1).numpy())


def test_ids_keep_the_name_of_their_column_so_that_what_is_written_can_be_read_again(tmp_path, capsys):
    rows = ["cell,a,b,c", *(f"cell {i},{i % 3}.5,{i % 5},{i % 7}" for i in range(40))]
    (tmp_path / "cells.csv").write_text("\n".join(rows))
    folder = left(tmp_path / "run", data=str(tmp_path / "cells.csv"), index_column="cell", likelihood="normal")
    called(capsys, folder, "reconstruct", tmp_path / "cells.csv", out=tmp_path / "again.csv")
    lines = called(capsys, folder, "score", tmp_path / "again.csv", num_particles=2)
    assert lines[0][0] == "cell" and lines[2][0] == "cell 1"
    assert called(capsys, folder, "interpolate", steps=2)[0][0] == "id"  # steps are no cells


def test_columns_are_found_by_their_names(run, capsys, tmp_path):
    folder, path, _ = run
    rows = [
        [line[0], *line[2:][::-1]] for line in csv.reader(path.read_text().splitlines())
    ]  # no classes, and columns from behind
    with (tmp_path / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert called(capsys, folder, "encode", tmp_path / "other.csv") == called(capsys, folder, "encode", path)


def test_scores_and_reconstructions_are_those_of_the_calls(run, capsys):
    folder, path, x = run
    lines = called(capsys, folder, "score", path, num_particles=30)
    assert lines[0] == ["id", "log_px", "log_px_se", "ess", "khat"]
    np.testing.assert_allclose(matrix(lines)[:, 0], log_px(*restore(folder), x, 30).log_px, rtol=1e-6)
    lines = called(capsys, folder, "reconstruct", path, num_particles=3)
    assert lines[0] == ["id", *NAMES]
    np.testing.assert_array_equal(matrix(lines), reconstruct(*restore(folder), x, 3).numpy())


def test_every_ending_holds_the_same(run, tmp_path, capsys):
    folder, path, _ = run
    for ending in ("csv", "tsv", "npy", "npz"):
        called(capsys, folder, "encode", path, out=tmp_path / f"codes.{ending}")
    rows = [line.split("\t") for line in (tmp_path / "codes.tsv").read_text().splitlines()]
    found = np.load(tmp_path / "codes.npz", allow_pickle=False)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), np.hstack([found["z_mean"], found["z_sd"]]))
    np.testing.assert_array_equal(matrix(rows), np.hstack([found["z_mean"], found["z_sd"]]))
    assert rows == [line.split(",") for line in (tmp_path / "codes.csv").read_text().splitlines()]
    assert found["index"][3] == "row 3" and found["z_draws"].shape == (1, 60, 2) and (found["z_mean_se"] == 0).all()


def test_new_rows_and_the_way_between_two(run, capsys):
    folder, path, _ = run
    lines = called(capsys, folder, "generate", n=4, seed=3)
    assert lines[0] == NAMES and len(lines) == 5 and lines == called(capsys, folder, "generate", n=4, seed=3)
    lines = called(capsys, folder, "interpolate", path, rows=("row 2", "5"), steps=3)
    assert [line[0] for line in lines] == ["id", "step 0", "step 1", "step 2"]
    lines = called(capsys, folder, "traverse", steps=2)
    assert [line[0] for line in lines[1:]] == ["z_0 = -3", "z_0 = 3", "z_1 = -3", "z_1 = 3"]


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["encode", "none.csv"], {}, "no file none.csv"),
        (["generate", "none.csv"], {}, "generate needs no data"),
        (["encode"], {"out": "codes.xls"}, "out .* must end in .csv"),
        (["encode"], {"out": "nowhere/codes.csv"}, "lies in no folder"),
        (["generate"], {"out": "x.png"}, "there are no images"),
        (["interpolate"], {"rows": ("row 2", "row 99")}, "rows .* must be ids, or numbers"),
        (["generate"], {"given": ("z=three",)}, "given .* must be NAME=NUMBER"),
        (["generate"], {"given": ("w=3",)}, "given names 'w', which is no site"),
    ],
)
def test_what_cannot_be_is_refused_in_words(run, tmp_path, monkeypatch, words, options, said):
    monkeypatch.chdir(tmp_path)
    paths = {name: use.Path(value) if name == "out" else value for name, value in options.items()}
    with pytest.raises((ValueError, OSError), match=said):
        use.main(use.Config(run[0], words[0], *map(use.Path, words[1:]), **paths))
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_is_not_lost(run, tmp_path):
    (tmp_path / "codes.csv").write_text("mine")
    with pytest.raises(ValueError, match="exists; name another file, or add --overwrite"):
        use.main(use.Config(run[0], "encode", out=tmp_path / "codes.csv"))
    use.main(use.Config(run[0], "encode", out=tmp_path / "codes.csv", overwrite=True))
    assert (tmp_path / "codes.csv").read_text().startswith("id,z_0")


def test_images_are_shown(tmp_path):
    images = np.random.default_rng(0).random((40, 4, 4)) > 0.5
    np.savez(tmp_path / "images.npz", images=images.astype(np.float32))
    folder = left(tmp_path / "run", data=str(tmp_path / "images.npz"))
    for call in ("reconstruct", "generate"):
        use.main(use.Config(folder, call, out=tmp_path / f"{call}.png", n=9))
        assert matplotlib.image.imread(tmp_path / f"{call}.png").shape[2] == 4


def test_a_classifier_predicts_and_has_nothing_to_generate(tmp_path, capsys, caplog):
    x = np.random.default_rng(0).random((40, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(40) % 3)
    folder = left(tmp_path / "run", model="classifier", data=str(tmp_path / "x.npz"))
    lines = called(capsys, folder, "predict", tmp_path / "x.npz", site="y")
    assert lines[0] == ["y=0", "y=1", "y=2"] and all(abs(sum(map(float, line)) - 1) < 1e-5 for line in lines[1:])
    with caplog.at_level("INFO", "dlvm"):
        use.main(use.Config(folder, "score"))
    assert "log p(y | x): -" in caplog.text
    for call in ("generate", "traverse"):
        with pytest.raises(ValueError, match=f"{call} needs a model that draws data by itself.*predict"):
            use.main(use.Config(folder, call))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Rows of bits with classes, and the rows alone."""
    folder = tmp_path_factory.mktemp("labelled")
    x = (np.random.default_rng(0).random((40, 4)) > 0.5).astype(np.float32)
    np.savez(folder / "x.npz", x=x, y=np.arange(40) % 3)
    np.savez(folder / "alone.npz", x=x)
    return folder


def test_what_a_model_is_given_is_asked_for_in_words_of_the_command_line(labelled, tmp_path, capsys):
    folder = left(tmp_path / "run", model="cvae", data=str(labelled / "x.npz"))
    with pytest.raises(ValueError, match="generate of this run needs what x is drawn given; add --given y=NUMBER"):
        use.main(use.Config(folder, "generate"))
    assert len(called(capsys, folder, "generate", n=5, given=("y=1",))) == 6
    for call in ("encode", "score", "reconstruct"):
        with pytest.raises(ValueError, match=f"{call} of this run needs y beside x, and the file has none; add the co"):
            use.main(use.Config(folder, call, labelled / "alone.npz"))
    columns = left(tmp_path / "part", model="cvae", given="columns", given_columns=("0",), data=str(labelled / "x.npz"))
    with pytest.raises(ValueError, match="drawn given, which the command line cannot hold; call generate of dlvm"):
        use.main(use.Config(columns, "generate"))


@pytest.mark.parametrize("call", ["encode", "score"])
def test_a_random_net_without_labels_says_which_column_is_missing(labelled, tmp_path, call):
    folder = left(tmp_path / "run", model="bayesian_classifier", data=str(labelled / "x.npz"))
    with pytest.raises(ValueError, match=f"{call} of this run needs y beside x, and the file has none"):
        use.main(use.Config(folder, call, labelled / "alone.npz"))


def test_scores_that_are_a_bound_are_called_so(labelled, tmp_path, capsys, caplog):
    folder = left(tmp_path / "run", model="vq_vae", data=str(labelled / "x.npz"))
    with caplog.at_level("INFO", "dlvm"):
        lines = called(capsys, folder, "score")
    assert lines[0][-4:] == ["bound", "bound_se", "ess", "khat"]
    assert "bound on log p(x): -" in caplog.text


def test_predictions_of_a_table_bear_the_names_of_its_classes_or_of_the_site(run, tmp_path, capsys):
    table = dict(data=str(run[1]), index_column="id", label_column="kind")
    folder = left(tmp_path / "classes", model="classifier", **table)
    assert called(capsys, folder, "predict", run[1], site="y")[0] == ["id", "y=a", "y=b"]
    lines = called(capsys, left(tmp_path / "column", model="regression", target="pears", **table), "predict", site="y")
    assert lines[0][1:] == ["y"] and all(len(line) == 2 for line in lines)


def test_classes_name_the_columns_of_their_probabilities():
    assert columns_of("y", 3, torch.arange(3)) == ["y=0", "y=1", "y=2"]
    assert columns_of("y", 4, torch.arange(2)) == ["y_0=0", "y_0=1", "y_1=0", "y_1=1"]
    assert columns_of("z", 3, None) == ["z_0", "z_1", "z_2"]


def test_the_command_runs_every_script_by_its_name(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(command.os, "execv", lambda path, words: ran.append(words[1:]))
    monkeypatch.setattr(sys, "argv", ["dlvm", "compare-guides", "--out", "x"])
    command.main()
    assert ran == [["-m", "dlvm.experiments.compare_guides", "--out", "x"]]
    monkeypatch.setattr(sys, "argv", ["dlvm", "--help"])
    command.main()
    assert {"train", "use", "gaps"} <= set(capsys.readouterr().out.split()) and "command" not in command.scripts()
    monkeypatch.setattr(sys, "argv", ["dlvm", "trian"])
    with pytest.raises(SystemExit, match="trian is no script; did you mean train?"):
        command.main()


def test_the_command_lists_the_words_of_an_option_with_a_line_each(monkeypatch, capsys):
    words = {
        "models": ("vae", "hidden_markov"),
        "guides": ("diagonal", "iaf"),
        "objectives": ("elbo", "wae"),
        "data": ("jsb", "sky"),
    }
    for name, some in words.items():
        monkeypatch.setattr(sys, "argv", ["dlvm", name])
        command.main()
        lines = capsys.readouterr().out.splitlines()
        listed = {line.split()[0]: line for line in lines}
        assert set(some) <= set(listed) and len(listed) == len(lines) and max(map(len, lines)) <= 80
        assert all(len(line.split()) > 2 for line in lines), "a word without a word about it"


def test_a_pair_that_was_saved_by_hand_is_put_to_use(run, tmp_path, capsys):
    """There is no config.json, and no word of the data: a new file is taken as it is."""
    folder, path, x = run
    save(tmp_path / "mine", *restore(folder))
    np.save(tmp_path / "x.npy", x.numpy())
    lines = called(capsys, tmp_path / "mine", "encode", tmp_path / "x.npy")
    assert [line[1:] for line in called(capsys, folder, "encode", path)] == lines
    assert called(capsys, tmp_path / "mine", "generate", n=2)[0] == ["x_0", "x_1", "x_2"]
    with pytest.raises(ValueError, match="data must be named for .*mine, whose own test data are not known"):
        called(capsys, tmp_path / "mine", "encode")


def test_classes_are_filled_by_classes_and_numbers_by_means(tmp_path, capsys):
    """A mean of the classes 0 and 4 is none of them."""
    lines = [["kind", "size"], *([4 * (i % 2), round(0.5 + i % 3 / 7, 3)] for i in range(60))]
    lines[3][0] = lines[4][1] = ""
    with (tmp_path / "mixed.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    folder = left(tmp_path / "run", data=str(tmp_path / "mixed.csv"), missing=("",), likelihood="mixed")
    found = called(capsys, folder, "impute", tmp_path / "mixed.csv", num_particles=20)
    assert float(found[3][-2]) in range(5) and 0 < float(found[4][-1]) < 1.5 and len(found[4][-1]) > 5


def test_a_site_of_one_number_a_row_is_one_column(monkeypatch):
    """As the presence of an object, beside a site of two numbers."""
    sites = {"present": torch.tensor([0.1, 0.9, 0.5]), "where": torch.arange(6.0).reshape(3, 2)}
    rest = dict.fromkeys(("values", "probabilities", "mean_se", "sd_se", "draws"))
    codes = {site: SimpleNamespace(mean=mean, sd=mean / 10, **rest) for site, mean in sites.items()}
    monkeypatch.setattr(use, "encode", lambda *args, **options: codes)
    asked = SimpleNamespace(model=None, guide=None, args=(torch.zeros(3, 2),), options={}, lengths=None, index=None)
    found = use.encoded(asked)
    assert found.numbers.shape == (3, 6) and list(found.columns)[1] == f"{found.columns[0]}_sd"
    assert torch.equal(found.numbers[:, 0], sites["present"])
