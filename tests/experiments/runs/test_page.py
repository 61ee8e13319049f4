"""The page of a run: alone, escaped, in light and dark, on wide and narrow screens, and in a browser."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlvm.experiments.figures import learning_curves
from dlvm.experiments.figures.chart import Chart
from dlvm.experiments.figures.style import sheet
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.inline import DARK, LIGHT, inline
from dlvm.experiments.runs.next_command import next_command
from dlvm.experiments.runs.page import Page
from dlvm.experiments.runs.report import Table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HISTORY = [{"epoch": epoch, "valid": -30.0 + epoch, "train": -29.0 + epoch} for epoch in (1, 2, 3)]


def table():
    rows = [["Diagonal", (-97.104, 0.021), 1.5], ["IAF <b>", (-95.333, 0.018), 0.25], ["lost", None, math.nan]]
    formats = {"log p(x)": ".2f", "gap": ".1f"}
    return Table(["guide", "log p(x)", "gap"], rows, "Test data & <seeds>.", formats, {"log p(x)": max, "gap": min})


def plain_figure():
    fig = Figure(figsize=(1, 1))
    fig.subplots().plot([0, 1])
    return fig


class Seen(HTMLParser):
    """Every attribute that makes a browser fetch something, every tag, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags, self.text, self.images = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.images += [dict(attrs)] if tag == "img" else []

    def handle_data(self, data):
        self.text += data * (self.tags[-1:] not in (["style"], ["script"]))


def written(tmp_path, **changes):
    run = Run(tmp_path, {"note": "<script>alert(1)</script>"})
    run.figure("bounds", plain_figure(), 'gap < 1 & "small"')
    run.figure("bounds", plain_figure(), 'gap <i>2</i> & "small"')
    run.figure("curves", learning_curves({"</script><b>": [HISTORY]}), "Curves.")
    told = (
        dict(title="q(z|x) <i>", intro="One.\n\nTwo <b>.", tables=[table()], verdict="IAF & co. Next: more.") | changes
    )
    return run.report(**told)


def test_the_page_fetches_nothing_and_escapes_what_it_is_given(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    seen = Seen(text)
    assert not {"link", "i", "b", "iframe"} & set(seen.tags)
    assert all(value.startswith("data:image/svg+xml;base64,") for value in seen.fetched)
    assert "@import" not in text and not re.search(r"url\((?!data:)", text)
    assert seen.tags.count("script") == 2  # that of the page, and the chart's numbers
    assert len({image["src"] for image in seen.images}) == 2  # a figure of the same name replaces the first
    assert {image["alt"] for image in seen.images} == {'gap <i>2</i> & "small"', "Curves."}
    for told in (
        "q(z|x) <i>",
        "Two <b>.",
        "-97.10 ± 0.02",
        "<script>alert(1)</script>",
        "Test data & <seeds>.",
        "more.",
    ):
        assert told in seen.text
    assert re.findall("<strong>(.*?)</strong>", text) == ["Next:", "-95.33 ± 0.02", "0.2"]


def test_the_first_sentence_of_a_verdict_is_its_headline_and_advice_stands_apart():
    said = "It overfits by 0.5 nats, e.g. in epoch 3. All 2 units are active. Next: fewer epochs."
    text = Page("Q", "", [], [], {}, said).html()
    assert "<p>It overfits by 0.5 nats, e.g. in epoch 3.</p><ul><li>All 2 units are active.</li></ul>" in text
    assert "<strong>Next:</strong> fewer epochs." in text
    assert "<ul>" not in Page("Q", "", [], [], {}, "One sentence.").html()


COMMAND = "python -m dlvm.experiments.train --epochs 10 --z-dim=2 --overwrite --out runs/a"
ASKED = {"model": "vae", "guide": "diagonal", "objective": "elbo", "epochs": 10, "eval_particles": 100}
ASKED |= {"free_bits": None, "warm_up": None, "out": "runs/a"}


@pytest.mark.parametrize(
    ("advice", "options"),
    [
        ("train longer, or let the learning rate fall", "--z-dim=2 --epochs 20"),
        ("more particles", "--epochs 10 --z-dim=2 --eval-particles 1000"),
        ("a richer guide or a larger encoder", "--epochs 10 --z-dim=2 --guide iaf"),
        ("a KL warm-up (tempered), free_bits, or a weaker decoder", "--epochs 10 --z-dim=2 --free-bits 0.25"),
    ],
)
def test_the_next_command_changes_one_option_and_the_folder(advice, options):
    found = next_command(COMMAND, ASKED, f"Fine. Next: {advice}.")
    assert found == f"python -m dlvm.experiments.train {options} --out runs/a-next"
    assert f"<code>{found}</code>" in Page("Q", "", [], [], {}, f"Fine. Next: {advice}.", found).html()


def test_advice_that_is_no_option_gives_no_command():
    assert next_command(COMMAND, ASKED, "Fine. Next: another model.") is None
    assert next_command(COMMAND, ASKED | {"guide": "enumerated"}, "Fine. Next: compare guides or objectives.") is None


def test_a_table_of_one_row_does_not_sort_and_one_of_several_carries_its_numbers():
    text = Page("Q", "", [table()], [], {}).html()
    assert text.count('<th class="number"><button>') == 2 and 'data-value="-95.333"' in text
    assert 'data-value=""' in text  # of what is missing
    assert "<button>" not in Page("Q", "", [Table(["a"], [[1]], "One.")], [], {}).html().partition("<body>")[2]


def test_greys_of_a_drawing_follow_the_theme_and_colours_that_mean_something_do_not():
    fig = sheet(2.0, "Title", "Detail.", legend=[Line2D([], [], color="#0072B2", label="a")])
    fig.subplots().plot([0, 1], color="#0072B2")
    drawn = inline(fig, "Caption.")
    for svg in (drawn.wide, drawn.narrow):
        body = svg.partition("</style>")[2]
        assert "#0072b2" in body and "var(--ink)" in body and "var(--page)" not in body.partition("patch_2")[0]
        assert not [colour for colour in LIGHT.values() if re.search(f"(fill|stroke): {colour}", body)]
        assert all(f"--{name}:{colour}" in svg for name, colour in DARK.items())
    assert drawn.title == "Title" and drawn.detail == "Detail."


def test_a_narrow_drawing_keeps_its_legend_inside_and_pictures_keep_their_shape():
    fig = sheet(3.0, "A title that is long enough to wrap " * 4, "Detail. " * 30, legend=[
        Line2D([], [], color="k", label=f"class {i}") for i in range(10)
    ])  # fmt: skip
    fig.subplots().imshow([[0, 1], [1, 0]])
    tall = fig.get_size_inches()[1]
    for width in (9.0, 5.0, 3.0):
        fig.lay_out(width, header=False)
        fig.draw_without_rendering()
        box = fig.legends[0].get_window_extent().transformed(fig.dpi_scale_trans.inverted())
        assert len(fig.legends) == 1 and box.x0 >= 0 and box.x1 <= width
        assert not fig.texts
    assert fig.get_size_inches()[1] < 0.6 * tall
    fig.lay_out(9.0)
    assert fig.get_size_inches()[1] == pytest.approx(tall) and len(fig.texts) == 2


def test_four_axes_side_by_side_stay_wide_and_a_figure_of_ones_own_is_left_as_it_is():
    fig = sheet(2.0, "Title", "Detail.")
    fig.subplots(1, 4)
    assert inline(fig, "").narrow is None
    own = inline(plain_figure(), "")
    assert own.narrow is None and own.title == "" and "var(--" not in own.wide


def test_charts_hold_medians_and_gaps():
    runs = [HISTORY, [*HISTORY[:1], {"epoch": 2, "valid": -20.0}, {"epoch": 3, "valid": math.nan}]]
    (chart,) = learning_curves({"Diagonal": runs}).charts
    assert chart.data()["steps"] == [1, 2, 3]
    assert chart.data()["lines"][0]["values"] == [-29.0, -24.0, -27.0]
    holes = Chart(
        "x", "y", "below", {"a": {1.0: 2.0}, "b": {2.0: math.inf, 3.0: 1.0}}, {"a": ("k", "-"), "b": ("k", "-")}
    )
    assert [line["values"] for line in holes.data()["lines"]] == [[2.0, None], [None, 1.0]]
    with pytest.raises(ValueError, match="at least one finite value"):
        Chart("x", "y", "below", {"a": {1.0: math.nan}}, {"a": ("k", "-")})


TRIAL = """<script>
const head = i => document.querySelectorAll("table.many th button")[i];
const order = () => [...document.querySelectorAll("table.many tbody tr")].map(row => row.cells[0].textContent);
const told = {first: order()};
head(1).click(); told.up = order(); told.sort = document.querySelectorAll("th")[1].getAttribute("aria-sort");
head(1).click(); told.down = order();
head(0).click(); told.words = order();
const boxes = document.querySelectorAll(".chart input");
boxes[0].click(); boxes[1].click();
told.canvases = document.querySelectorAll(".chart canvas").length;
told.up_axis = document.querySelector(".up").textContent;
told.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
told.nameless = [...document.querySelectorAll("img, [role=img]")].filter(
  one => !(one.alt || one.getAttribute("aria-label"))).length;
const pre = document.createElement("pre");
pre.id = "told"; pre.textContent = JSON.stringify(told); document.body.replaceChildren(pre);
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [500, 1200])  # a headless window is no narrower than 500
def test_in_a_browser_tables_sort_charts_are_drawn_and_nothing_complains(tmp_path, width):
    path = written(tmp_path / "run")
    trial = tmp_path / "trial.html"
    trial.write_text(path.read_text("utf-8").replace("</body>", TRIAL), "utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", trial.as_uri()]
    shown = subprocess.run([BROWSER, *flags], capture_output=True, text=True, timeout=120)
    found = re.search('<pre id="told">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found, shown.stderr
    told = json.loads(html.unescape(found[1]))
    assert told["first"] == ["Diagonal", "IAF <b>", "lost"] and told["up"] == ["Diagonal", "IAF <b>", "lost"]
    assert told["sort"] == "ascending" and told["down"] == ["IAF <b>", "Diagonal", "lost"]  # what is missing stays last
    assert told["words"] == ["Diagonal", "IAF <b>", "lost"]
    assert told["canvases"] == 1 and told["up_axis"] == "nats below the highest validation bound"
    assert told["overflow"] <= 0 and told["nameless"] == 0
    assert "CONSOLE" not in shown.stderr


def test_the_numbers_of_a_drawing_are_the_same_each_time():
    one, two = (inline(learning_curves({"a": [HISTORY]}), "") for _ in range(2))
    assert one.wide == two.wide and one.narrow == two.narrow
