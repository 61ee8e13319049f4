"""Windows that are moved and scaled: held against a loop over pixels, and against torch's own sampling."""

from __future__ import annotations

import torch
from oracles import assert_close
from torch.nn import functional as F

from dlvm.nets.windows.placing import placed, seen


def kernel(u: float) -> float:
    return max(0.0, 1.0 - abs(u))


def test_a_picture_is_placed_as_by_a_loop_over_pixels():
    torch.manual_seed(0)
    picture, where = torch.rand(2, 3, 3).double(), torch.tensor([[-0.9, 0.3, -0.2], [-0.3, -0.8, 0.9]]).double()
    found = placed(picture, where, (7, 5))
    for n in range(2):
        extent, y, x = where[n].tolist()
        step = float(torch.tensor(extent).double().exp()) * 7 / 3
        for a in range(7):
            for b in range(5):
                u, v = (a - 6 * (1 + y) / 2) / step + 1, (b - 4 * (1 + x) / 2) / step + 1
                each = [kernel(u - i) * kernel(v - j) * float(picture[n, i, j]) for i in range(3) for j in range(3)]
                assert abs(float(found[n, a, b]) - sum(each)) < 1e-12


def test_what_is_seen_is_what_torch_samples():
    torch.manual_seed(0)
    image, where = torch.rand(4, 9, 9).double(), torch.tensor([-0.9, 0.1, -0.2]).double().expand(4, 3)
    step = torch.tensor(-0.9).double().exp() * 9 / 4
    grid = torch.stack(
        [4 * (1 + c) + (torch.arange(4).double() - 1.5) * step for c in where[0, 1:]]
    )  # pixels, y then x
    y, x = torch.meshgrid(2 * grid[0] / 8 - 1, 2 * grid[1] / 8 - 1, indexing="ij")
    points = torch.stack([x, y], -1).expand(4, 4, 4, 2)
    expected = F.grid_sample(image[:, None], points, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]
    assert_close(seen(image, where, 4), expected, 1e-12)


def test_a_picture_of_the_images_size_at_its_middle_is_the_image_both_ways():
    image = torch.arange(30.0).reshape(5, 6)[:, :5]
    assert placed(image, torch.zeros(3), (5, 5)).equal(image) and seen(image, torch.zeros(3), 5).equal(image)


def test_particles_share_data_and_gradients_reach_the_place():
    where = torch.zeros(3, 4, 3, requires_grad=True)
    found = seen(torch.rand(4, 6, 6), where, 2)
    assert found.shape == (3, 4, 2, 2)
    found.sum().backward()
    assert where.grad.abs().sum() > 0
    assert placed(torch.rand(3, 4, 2, 2), where, (6, 7)).shape == (3, 4, 6, 7)
