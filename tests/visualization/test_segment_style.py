"""A class has its colour in every image; objects of a class differ."""

import colorsys

import numpy as np
import pytest

from panomask.data.catalog import Metadata
from panomask.visualization.segment_style import (
    panoptic_styles,
    semantic_styles,
    shade,
    stuff_color,
    thing_color,
)

METADATA = Metadata().set(
    thing_classes=["cat", "dog"],
    thing_colors=[[255, 0, 0], [0, 0, 255]],
    stuff_classes=["things", "sky", "grass"],
    stuff_colors=[[0, 0, 0], [0, 255, 255], [0, 255, 0]],
)


def test_styles_of_segments() -> None:
    styles = panoptic_styles(
        [
            {"id": 1, "category_id": 1, "isthing": True, "score": 0.876},
            {"id": 2, "category_id": 1, "isthing": False},
            {"id": 3, "category_id": 1, "isthing": True, "iscrowd": 1},
            {"id": 4, "category_id": 0, "isthing": 1},
        ],
        METADATA,
    )
    assert [style.text for style in styles] == ["dog 88%", "sky", "dog|crowd", "cat"]
    assert [style.color for style in styles][:2] == [(0, 0, 1), (0, 1, 1)]
    assert styles[2].color != styles[0].color
    assert styles[3].color == (1, 0, 0)
    assert styles[1].opacity < styles[0].opacity == 1
    assert panoptic_styles([], METADATA) == []
    given = panoptic_styles([{"category_id": 0, "isthing": True}], METADATA, [(0.1, 0.2, 0.3)])
    assert given[0].color == (0.1, 0.2, 0.3)


def test_semantic_classes_are_alike() -> None:
    assert {style.opacity for style in semantic_styles([0, 2], METADATA)} == {1.0}
    assert [style.text for style in semantic_styles([0, 2, 9], METADATA)] == ["things", "grass", "9"]


def test_classes_without_colours_get_different_ones_always_the_same() -> None:
    metadata = Metadata().set(thing_classes=["a", "b"], stuff_classes=["things", "c"])
    colors = [thing_color(k, metadata) for k in (0, 1)] + [stuff_color(k, metadata) for k in (0, 1)]
    assert len(set(colors)) == 4
    assert colors == [thing_color(k, metadata) for k in (0, 1)] + [stuff_color(k, metadata) for k in (0, 1)]
    assert thing_color(500, METADATA) == thing_color(500, Metadata())  # beyond the table
    muted = [
        c + (0.5 - c) * 0.35 for c in thing_color(2, Metadata())
    ]  # the colour behind those of the things
    assert stuff_color(0, metadata) == pytest.approx(muted)


@pytest.mark.parametrize("num_classes", [2, 6, 80])
def test_shades_stay_near_their_class_and_apart(num_classes: int) -> None:
    color = (0.9, 0.2, 0.3)
    shades = [shade(color, k, num_classes) for k in range(12)]
    assert shades[0] == color
    assert len(set(shades)) == 12
    hue = colorsys.rgb_to_hsv(*color)[0]
    turns = [abs((colorsys.rgb_to_hsv(*s)[0] - hue + 0.5) % 1 - 0.5) for s in shades]
    assert max(turns) <= max(0.5 / num_classes, 0.03) + 1e-9
    distances = np.abs(np.array(shades)[:, None] - np.array(shades)[None]).max(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 0.01


def test_one_class_uses_all_hues() -> None:
    hues = [colorsys.rgb_to_hsv(*shade((0.9, 0.2, 0.3), k, 1))[0] for k in range(20)]
    assert max(np.diff(sorted(hues))) < 0.2
