"""Colours: tables, names."""

import random

import numpy as np
import pytest

from panomask.visualization.colormap import colormap, random_color, random_colors, to_rgb


def test_orders_and_ranges() -> None:
    rgb, bgr = colormap(rgb=True), colormap()
    assert rgb.shape[1] == 3
    assert rgb.dtype == np.float32
    assert 1 < rgb.max() <= 255
    assert np.array_equal(rgb[:, ::-1], bgr)
    np.testing.assert_allclose(colormap(rgb=True, maximum=1) * 255, rgb, rtol=1e-6)
    with pytest.raises(ValueError, match="allowed are 1 and 255"):
        colormap(maximum=100)


def test_neighbours_in_the_table_are_far_apart() -> None:
    table = colormap(rgb=True, maximum=255)[:10]
    distances = np.linalg.norm(table[:, None] - table[None], axis=2)
    assert distances[~np.eye(10, dtype=bool)].min() > 40


def test_random_colors_leave_global_generators_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].copy()
    assert random_color(rgb=True, maximum=1) in colormap(rgb=True, maximum=1)
    colors = random_colors(30, rgb=True)
    assert len({tuple(c) for c in colors}) == 30
    assert len(random_colors(200)) == 200
    assert random_colors(0) == []
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_names() -> None:
    assert to_rgb("white") == (1, 1, 1)
    assert to_rgb("r") == to_rgb("red")
    assert to_rgb("#ff0080") == (1, 0, 128 / 255)
    assert to_rgb(np.array([0.5, 2, -1, 0.3])) == (0.5, 1, 0)
    with pytest.raises(ValueError, match="Unknown colour 'pinkish'"):
        to_rgb("pinkish")
