import numpy as np
import pytest
import torch

from panomask.structures import polygons_to_bitmask, rasterize_polygons_within_box
from panomask.structures.rasterization import draw_polygons

SQUARE = np.array([2, 1, 6, 1, 6, 4, 2, 4], float)


def test_a_rectangle_covers_its_pixels():
    mask = polygons_to_bitmask([SQUARE], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, expected)


def test_rings_are_united():
    mask = polygons_to_bitmask([SQUARE, SQUARE + 1], 8, 8)
    assert mask.sum() == 12 + 12 - 6


def test_no_polygons():
    assert not polygons_to_bitmask([], 3, 4).any()
    assert rasterize_polygons_within_box([], [0, 0, 5, 5], 7).shape == (7, 7)


@pytest.mark.parametrize("seed", range(30))
def test_drawing_is_rasterising_the_whole_image(seed):
    """Also objects that the image's border cuts, that fill whole columns, or that lie outside."""
    generator = np.random.default_rng(seed)
    polygons = [generator.uniform(-20, 60, 2 * generator.integers(3, 7)) for _ in range(seed % 4)]
    mask = np.zeros((30, 40), dtype=bool)
    draw_polygons(mask, polygons)
    np.testing.assert_array_equal(mask, polygons_to_bitmask(polygons, 30, 40))


def test_drawing_leaves_what_is_there():
    mask = np.eye(8, dtype=bool)
    draw_polygons(mask, [SQUARE])
    np.testing.assert_array_equal(mask, np.eye(8, dtype=bool) | polygons_to_bitmask([SQUARE], 8, 8))
    draw_polygons(mask, [SQUARE + 100])  # outside
    assert mask.sum() == (np.eye(8, dtype=bool) | polygons_to_bitmask([SQUARE], 8, 8)).sum()


def test_drawing_leaves_what_is_there_beside_the_object_in_its_box():
    triangle = np.array([1, 1, 7, 1, 1, 7], float)
    mask, full = np.ones((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)
    assert not polygons_to_bitmask([triangle], 8, 8)[6, 6]
    draw_polygons(mask, [triangle])
    np.testing.assert_array_equal(mask, full)


def test_inside_its_own_box_a_rectangle_is_full():
    assert rasterize_polygons_within_box([SQUARE], [2, 1, 6, 4], 14).all()


def test_inside_a_wider_box():
    # x 2..6 of 0..8 are the cells 2..6 of 8; y 1..4 of 1..7 are the upper half.
    mask = rasterize_polygons_within_box([SQUARE], np.array([0, 1, 8, 7], np.float32), 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, 2:6] = True
    assert torch.equal(mask, expected)


def test_the_polygons_are_not_changed():
    before = SQUARE.copy()
    rasterize_polygons_within_box([SQUARE], [1, 1, 3, 3], 4)
    np.testing.assert_array_equal(SQUARE, before)


def test_a_box_without_area_does_not_divide_by_zero():
    assert rasterize_polygons_within_box([SQUARE], [3, 2, 3, 2], 4).shape == (4, 4)


def test_ties_fall_as_in_float32():
    """12 of 96 pixels are 3.5 of 28 cells; with 28 / 96 in float32 a little less, so 3 are covered."""
    strip = np.array([0, 0, 12, 0, 12, 96, 0, 96], float)
    assert float(np.float32(28) / np.float32(96)) < 28 / 96
    mask = rasterize_polygons_within_box([strip], [0, 0, 96, 96], 28)
    assert mask.sum(dim=1).tolist() == [3] * 28
