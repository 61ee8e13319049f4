"""The film of a canvas: how many pictures it shows, which steps, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from dlvm.experiments.figures import film


def test_every_row_is_a_datum_and_every_column_a_step():
    x, seen = torch.ones(2, 6), torch.full((2, 13, 6), 0.25)
    fig = film(x, seen, seen, (2, 3))
    above, below = fig.axes
    assert "12 steps bring the canvas within 0.750 per pixel" in fig.texts[0].get_text()
    assert [label.get_text() for label in above.get_xticklabels()] == ["0", "2", "4", "6", "8", "10", "12", "data"]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "2", "4", "6", "8", "10", "12"]
    picture = torch.as_tensor(above.get_images()[0].get_array())
    tall, wide = picture.shape[0] // 2, picture.shape[1] // 8
    assert torch.allclose(picture[tall // 2, wide // 2], torch.tensor(0.25))
    assert torch.allclose(picture[tall // 2, -wide // 2], torch.tensor(1.0))


def test_what_is_no_film_is_refused():
    x, seen = torch.ones(2, 6), torch.zeros(2, 4, 6)
    with pytest.raises(ValueError, match="image_shape: expected that of images, got None"):
        film(x, seen, seen)
    with pytest.raises(ValueError, match=r"drawn: expected shape \(2, steps \+ 1, 6\), got \(2, 3, 6\)"):
        film(x, seen, seen[:, 1:], (2, 3))
