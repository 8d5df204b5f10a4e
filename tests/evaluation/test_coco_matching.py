"""COCO's rule of matching by hand, and beside its loops on random overlaps."""

import numpy as np
import pytest

from panomask.evaluation import coco_matching
from panomask.evaluation.coco_matching import Detections, Matches, Objects, match, ranges

ALL = np.array([[0.0, 1e10]])


def _objects(group: list[int], area=1.0, crowd=False, ignored=False) -> Objects:
    fill = [np.broadcast_to(np.asarray(value), len(group)) for value in (area, crowd, ignored)]
    return Objects(np.array(group, int), fill[0], fill[1], fill[1] | fill[2])


def _detections(group: list[int]) -> Detections:
    size = len(group)
    return Detections(np.array(group, int), np.linspace(1, 0, size), np.ones(size), np.zeros(size, bool))


def _match(overlaps, objects: Objects, thresholds=(0.5,), areas=ALL, group=None) -> Matches:
    table = np.array(overlaps, float)
    group = [0] * len(table) if group is None else group
    return match(
        _detections(group),
        objects,
        lambda d, o: table[d, o],
        thresholds=np.array(thresholds),
        area_ranges=areas,
    )


def test_the_best_detection_chooses_first_and_takes_what_it_overlaps_most():
    found = _match([[0.6, 0.7], [0.0, 0.9], [0.8, 0.0]], _objects([0, 0]))
    assert found.detection.tolist() == [0, 1, 2]
    assert found.is_matched[:, 0, 0].tolist() == [True, False, True]
    assert not found.is_ignored.any()


def test_of_equal_overlaps_the_later_object_is_taken():
    for better, expected in ((0, True), (1, False)):
        second = [0.0, 0.0]
        second[better] = 0.9
        assert _match([[0.6, 0.6], second], _objects([0, 0])).is_matched[1, 0, 0] == expected


def test_what_is_to_be_found_goes_before_what_is_not_and_a_crowd_is_never_used_up():
    found = _match([[0.9, 0.6], [0.9, 0.6], [0.9, 0.6]], _objects([0, 0], crowd=[True, False]))
    assert found.is_matched[:, 0, 0].tolist() == [True, True, True]
    assert found.is_ignored[:, 0, 0].tolist() == [False, True, True]
    once = _match([[0.9, 0.6], [0.9, 0.6], [0.9, 0.6]], _objects([0, 0], ignored=[True, False]))
    assert once.is_matched[:, 0, 0].tolist() == [True, True, False]


def test_thresholds_and_area_ranges_are_matched_on_their_own():
    areas = np.array([[0, 100], [0, 10.0], [10, 100]])
    found = _match([[0.6, 0.8]], _objects([0, 0], area=[5.0, 50]), thresholds=(0.5, 0.7, 0.9), areas=areas)
    assert found.is_matched[0].tolist() == [[True, True, False]] * 3
    # among the small ones, the small object goes before the large one that it overlaps more
    assert found.is_ignored[0].tolist() == [[False, False, False], [False, True, False], [False] * 3]


def test_a_full_overlap_reaches_a_threshold_of_one_and_nan_none():
    for overlap in (1.0, 1 - 1e-12):  # it may be rounded
        assert _match([[overlap]], _objects([0]), thresholds=(1.0,)).is_matched.tolist() == [[[True]]]
    assert len(_match([[1 - 1e-9]], _objects([0]), thresholds=(1.0,)).detection) == 0
    assert len(_match([[float("nan")]], _objects([0]), thresholds=(0.0,)).detection) == 0


def test_nothing():
    for overlaps, objects in (([], _objects([0])), ([[]], _objects([])), ([[0.2]], _objects([0]))):
        found = _match(overlaps, objects, thresholds=(0.5, 0.6))
        assert found.is_matched.shape == found.is_ignored.shape == (0, 1, 2)
    assert _match([[0.9]], _objects([0]), thresholds=()).is_matched.shape[2] == 0
    assert ranges(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]


def _by_loops(overlaps, group, objects, thresholds, areas) -> tuple[np.ndarray, np.ndarray]:
    """The rule, one threshold, range and detection after the other: matched and ignored (N, A, T)."""
    found = np.zeros((2, len(group), len(areas), len(thresholds)), bool)
    for t, threshold in enumerate(thresholds):
        for a, (low, high) in enumerate(areas):
            free = np.ones(len(objects.group), bool)
            ignored = objects.is_ignored | (objects.area < low) | (objects.area > high)
            for d, of in enumerate(group):
                candidates = (objects.group == of) & (free | objects.is_crowd) & (overlaps[d] >= threshold)
                chosen = candidates & ~ignored if (candidates & ~ignored).any() else candidates
                if chosen.any():
                    best = max(np.flatnonzero(chosen), key=lambda o: (overlaps[d, o], o))
                    free[best] = False
                    found[:, d, a, t] = True, ignored[best]
    return found[0], found[1]


@pytest.mark.parametrize("pairs_at_a_time", [1, 20, 10**6])
def test_equal_to_the_loops(monkeypatch, pairs_at_a_time):
    monkeypatch.setattr(coco_matching, "PAIRS_AT_A_TIME", pairs_at_a_time)
    rng = np.random.default_rng(0)
    areas, thresholds = np.array([[0, 9.0], [0, 4], [5, 9]]), (0.3, 0.5, 0.8)
    for _ in range(30):
        group = np.sort(rng.integers(0, 6, rng.integers(0, 30)))
        size = rng.integers(0, 20)
        objects = _objects(
            np.sort(rng.integers(0, 7, size)).tolist(),
            area=rng.integers(0, 10, size).astype(float),
            crowd=rng.random(size) < 0.2,
            ignored=rng.random(size) < 0.2,
        )
        overlaps = rng.integers(0, 11, (len(group), size)) / 10
        found = _match(overlaps, objects, thresholds, areas, group)
        matched, ignored = _by_loops(overlaps, group, objects, thresholds, areas)
        np.testing.assert_array_equal(found.is_matched, matched[found.detection])
        np.testing.assert_array_equal(found.is_ignored, ignored[found.detection])
        assert not np.delete(matched, found.detection, axis=0).any()
