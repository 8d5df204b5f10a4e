"""Labels stay inside and apart."""

import numpy as np

from panomask.visualization.label_placement import place_labels


def test_on_top_of_the_box_where_there_is_room() -> None:
    assert place_labels(np.array([[20, 30, 60, 80]]), [(25, 10)], (100, 100)) == [(20, 20)]


def test_below_when_the_box_touches_the_upper_border() -> None:
    assert place_labels(np.array([[20, 0, 60, 40]]), [(25, 10)], (100, 100)) == [(20, 40)]


def test_inside_when_the_box_fills_the_picture() -> None:
    assert place_labels(np.array([[0, 0, 100, 100]]), [(25, 10)], (100, 100)) == [(0, 0)]


def test_flush_right_at_the_right_border() -> None:
    assert place_labels(np.array([[90, 30, 100, 80]]), [(25, 10)], (100, 100)) == [(75, 20)]


def test_many_labels_stay_inside_and_apart() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 120, size=(40, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for x, y in place_labels(boxes, [(25, 10)] * 40, (100, 90)):
        assert 0 <= x <= 75
        assert 0 <= y <= 80
    same = place_labels(np.array([[20.0, 30, 60, 80]] * 3), [(25, 10)] * 3, (100, 100))
    assert len(set(same)) == 3


def test_a_label_larger_than_the_picture_starts_in_its_corner() -> None:
    assert place_labels(np.array([[2.0, 3, 6, 8]]), [(50, 30)], (10, 10)) == [(0, 0)]
