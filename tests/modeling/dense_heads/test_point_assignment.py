import math

import pytest
import torch

from panomask.modeling.dense_heads import point_assignment
from panomask.modeling.dense_heads.point_assignment import assign_points, centerness
from panomask.structures import Boxes

ANY_SIZE = (0.0, math.inf)


def assign(points, boxes, *, stride=8, sizes=ANY_SIZE, radius=math.inf):
    """Index of each point's object, -1 for none."""
    points = torch.tensor(points, dtype=torch.float32)
    strides, ranges = torch.full((len(points),), float(stride)), torch.tensor([sizes] * len(points))
    matches, is_positive = assign_points(points, strides, ranges, Boxes(boxes), radius)
    return torch.where(is_positive, matches, -1).tolist()


def test_inside_outside_and_on_the_border():
    box = [[10.0, 20, 50, 40]]
    assert assign([[30, 30], [10, 30], [49, 39], [51, 30], [30, 20]], box) == [0, -1, 0, -1, -1]


def test_of_several_objects_the_smallest():
    boxes = [[0.0, 0, 100, 100], [20, 20, 60, 60], [0, 0, 50, 100], [20, 20, 60, 60]]
    points = [[90, 90], [30, 30], [10, 10], [55, 55]]
    assert assign(points, boxes) == [0, 1, 2, 1]


def test_areas_beyond_what_float32_counts_in_steps_of_one():
    """Objects of 30,000 pixels a side: areas above 1e8 are as good as any."""
    boxes = [[0.0, 0, 30_000, 30_000], [0, 0, 20_000, 20_000]]
    assert assign([[10_000, 10_000], [25_000, 25_000]], boxes) == [1, 0]


def test_center_sampling_is_a_square_of_strides_inside_of_the_box():
    box = [[0.0, 0, 100, 20]]  # centre (50, 10)
    points = [[61, 10], [39, 10], [62, 10], [50, 19], [50, 21]]
    assert assign(points, box, radius=1.5) == [
        0,
        0,
        -1,
        0,
        -1,
    ]  # less than 12 pixels along x, the box along y
    assert assign(points, box, stride=16, radius=1.5) == [0, 0, 0, 0, -1]
    assert assign([[95, 10]], box) == [0]


def test_the_largest_distance_decides_the_level():
    box = [[0.0, 0, 100, 20]]
    # From (50, 10) it is 50 to the farthest side, from (90, 10) it is 90.
    assert assign([[50, 10], [90, 10]], box, sizes=(0, 64)) == [0, -1]
    assert assign([[50, 10], [90, 10]], box, sizes=(64, 128)) == [-1, 0]
    assert assign([[50, 10]], box, sizes=(50, 128)) == assign([[50, 10]], box, sizes=(0, 50)) == [-1]


def test_no_objects_and_no_points():
    assert assign([[1, 1], [2, 2]], []) == [-1, -1]
    matches, is_positive = assign_points(
        torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 2), Boxes([[0.0, 0, 1, 1]]), 1.5
    )
    assert (matches.shape, is_positive.shape) == ((0,), (0,))


def test_chunks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = 100 * torch.rand(7, 2, 2, generator=generator)
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    points = (100 * torch.rand(200, 2, generator=generator)).tolist()
    expected = assign(points, boxes, sizes=(10, 60), radius=3)
    assert len(set(expected)) > 3
    monkeypatch.setattr(point_assignment, "MAX_PAIRS", 100)
    assert assign(points, boxes, sizes=(10, 60), radius=3) == expected


def test_centerness_by_hand():
    distances = torch.tensor(
        [[5.0, 5, 5, 5], [1, 4, 4, 4], [1, 2, 4, 8], [0, 4, 8, 4], [-1, 4, 8, 4], [0, 0, 0, 0]]
    )
    expected = [1, math.sqrt(1 / 4), math.sqrt(1 / 4 * 1 / 4), 0, 0, 0]
    torch.testing.assert_close(centerness(distances), torch.tensor(expected))


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (2, 3, 4)])
def test_centerness_takes_any_shape(shape):
    assert centerness(torch.ones(shape)).shape == shape[:-1]
