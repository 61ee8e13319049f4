"""What the figure of receptive fields says of z."""

from __future__ import annotations

import math

import matplotlib
import pytest

from dlvm.experiments.figures.rate_distortion import receptive_fields

ROWS = [{"field": f, "rate": r, "log_px": p} for f, r, p in ((3, 0.02, -20.0), (0, 8.0, -24.0), (1, 5.5, -21.0))]


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def test_the_figure_says_what_is_left_to_z():
    fig = receptive_fields(ROWS, -20.5, "digits")
    assert "z says 8.0 nats where pixels see no other, and nothing where they see 3 pixels far" in texts(fig)
    assert "pixels alone, without z: 20.50" in texts(fig)
    rates, evidence = fig.axes
    assert [bar.get_height() for bar in rates.patches] == [8.0, 5.5, 0.02]
    assert evidence.lines[0].get_ydata().tolist() == [24.0, 21.0, 20.0]
    assert "1.0 nats where they see 1 pixel far" in texts(receptive_fields([ROWS[1], ROWS[2] | {"rate": 1.0}]))


@pytest.mark.parametrize(
    "rows, words",
    [
        ([], "expected one mapping per trained pair, got none"),
        ([ROWS[0], {"field": 1, "rate": math.nan, "log_px": 0.0}], r"rows\[1\] must have a finite 'rate', got nan"),
        ([{"field": 1, "rate": 1.0}], r"rows\[0\] must have a finite 'log_px', got None"),
    ],
)
def test_rows_that_cannot_be_drawn_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        receptive_fields(rows)
