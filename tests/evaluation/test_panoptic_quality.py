"""Matching of segments and PQ: cases derived by hand, and the golden file."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from panomask.errors import InputError
from panomask.evaluation import evaluate_panoptic_json
from panomask.evaluation.panoptic_quality import (
    FN,
    FP,
    IOU,
    TP,
    Segments,
    compare_segments,
    count_pairs,
    panoptic_metrics,
)

GOLDEN = Path(__file__).with_name("golden_panoptic.zip")


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A map of one row: (id, number of pixels) from left to right."""
    return np.concatenate([np.full(n, id_, dtype=np.int32) for id_, n in runs])[None]


def segments(*listed: tuple) -> Segments:
    """Each (id, class) or (id, class, is_crowd)."""
    columns = [(entry + (False,))[:3] for entry in listed]
    ids, classes, is_crowd = zip(*columns, strict=True) if columns else ((), (), ())
    return Segments(np.array(ids, np.int64), np.array(classes, np.int64), np.array(is_crowd, dtype=bool))


def counts(truth: tuple, predicted: tuple, num_classes: int = 2) -> list[list[float]]:
    """(K, 4) of ((map, segments), (map, segments))."""
    return compare_segments(*truth, *predicted, num_classes).tolist()


def test_matches_misses_and_false_positives():
    truth = row((1, 6), (2, 4)), segments((1, 0), (2, 1))
    predicted = row((5, 5), (9, 5)), segments((9, 1), (5, 0))
    assert counts(truth, predicted) == [[5 / 6, 1, 0, 0], [4 / 5, 1, 0, 0]]
    of_other_classes = row((5, 5), (9, 5)), segments((9, 0), (5, 1))
    assert counts(truth, of_other_classes) == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_half_is_no_match():
    truth = row((1, 4)), segments((1, 0))
    assert counts(truth, (row((1, 2), (0, 2)), segments((1, 0)))) == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert counts(truth, (row((1, 3), (0, 1)), segments((1, 0))))[0] == [3 / 4, 1, 0, 0]


def test_void_counts_neither_for_nor_against():
    """4 pixels of the prediction lie on void: the IoU is 3/4, not 3/8."""
    truth = row((0, 4), (1, 4)), segments((1, 0))
    assert counts(truth, (row((7, 7), (0, 1)), segments((7, 0))))[0] == [3 / 4, 1, 0, 0]


@pytest.mark.parametrize(("on_void", "false_positives"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_what_lies_on_void_by_more_than_half_is_no_false_positive(on_void, false_positives):
    truth = row((0, on_void), (1, 10)), segments((1, 0))
    predicted = row((7, 4), (8, 6 + on_void)), segments((7, 0), (8, 0))
    assert counts(truth, predicted)[0][FP] == false_positives


def test_a_crowd_excuses_its_class_alone_and_is_never_missed():
    truth = row((1, 8)), segments((1, 0, True))
    predicted = row((7, 4), (8, 4)), segments((7, 0), (8, 1))
    assert counts(truth, predicted) == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert counts(truth, (row((7, 8)), segments((7, 0))))[0] == [0, 0, 0, 0], "a crowd matches nothing"


def test_void_and_crowd_add_up():
    truth = row((1, 3), (0, 3), (2, 4)), segments((1, 0, True), (2, 1))
    predicted = row((7, 10)), segments((7, 0))
    assert counts(truth, predicted) == [[0, 0, 0, 0], [0, 0, 0, 1]]


def test_of_two_crowds_the_last_listed_counts():
    """As panopticapi has it, whose numbers are the published ones."""
    listed = [(1, 0, True), (2, 0, True)]
    on_the_second = row((0, 5), (8, 5)), segments((8, 0))
    for order, false_positives in ((listed, 0), (listed[::-1], 1)):
        found = counts((row((1, 5), (2, 5)), segments(*order)), on_the_second)
        assert found[0] == [0, 0, false_positives, 0]


def test_no_segments():
    nothing = row((0, 4)), segments()
    thing = row((3, 4)), segments((3, 1))
    assert counts(nothing, nothing) == [[0] * 4] * 2
    assert counts(thing, nothing)[1] == [0, 0, 0, 1]
    assert counts(nothing, thing)[1] == [0, 0, 0, 0], "all on void"
    no_pixels = np.zeros((0, 5), np.int32), segments()
    assert counts(no_pixels, no_pixels) == [[0] * 4] * 2


def test_pairs_are_those_of_single_pixels():
    """More pixels than one block, single ones among long runs, and ids of 24 bits."""
    rng = np.random.default_rng(0)
    ids = np.array([0, 1, 255, 2**24 - 1], dtype=np.int32)
    truth = np.repeat(rng.choice(ids, (700, 100)), 8, axis=1)
    predicted = rng.choice(ids, (700, 800))
    predicted[:, 100:] = np.roll(truth, 3, axis=1)[:, 100:]
    in_truth, in_prediction, pixels = count_pairs(truth, predicted)
    expected, number = np.unique(truth.astype(np.int64) * 2**24 + predicted, return_counts=True)
    np.testing.assert_array_equal(in_truth * 2**24 + in_prediction, expected)
    np.testing.assert_array_equal(pixels, number)


def test_disagreement_of_map_and_list():
    right = row((1, 4)), segments((1, 0))
    with pytest.raises(InputError, match="the truth: its pixels have segment id 7, which segments_info does"):
        compare_segments(row((1, 2), (7, 2)), right[1], *right, 1)
    with pytest.raises(InputError, match=r"the prediction: its pixels have segment ids 5, 9"):
        compare_segments(*right, row((1, 1), (5, 2), (9, 1)), right[1], 1)
    with pytest.raises(
        InputError, match=r"x\.png: segments_info lists segment id 3, but no pixel has this id"
    ):
        compare_segments(*right, row((1, 4)), segments((1, 0), (3, 0)), 1, names=("t.png", "x.png"))
    with pytest.raises(InputError, match=r"the prediction is of 3 x 1 pixels, but the truth of 4 x 1"):
        compare_segments(*right, row((1, 3)), right[1], 1)


def test_what_was_dropped_from_the_annotations_is_void():
    truth = row((1, 4), (7, 4)), segments((1, 0), (3, 1))
    predicted = row((1, 4), (2, 4)), segments((1, 0), (2, 1))
    found = compare_segments(*truth, *predicted, 2, unlisted_is_void=True)
    assert found.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]


def test_metrics_are_means_over_the_classes_that_occur():
    table = np.zeros((5, 4))  # c and e occur nowhere
    table[0, [IOU, TP, FP, FN]] = 1.5, 2, 1, 1  # PQ 1.5 / 3, SQ .75, RQ 2 / 3
    table[1, FN] = 3
    table[3, [IOU, TP]] = 1, 1
    metrics = panoptic_metrics(table, list("abcde"), [True, True, True, False, False])
    assert [metrics[f"{name}-a"] for name in ("PQ", "SQ", "RQ")] == pytest.approx([50, 75, 200 / 3])
    assert [metrics[f"{name}-b"] for name in ("PQ", "SQ", "RQ")] == [0, 0, 0]
    assert math.isnan(metrics["PQ-c"])
    assert math.isnan(metrics["SQ-c"])
    assert metrics["PQ"] == pytest.approx((50 + 0 + 100) / 3)
    assert metrics["SQ_th"] == pytest.approx(75 / 2)
    assert metrics["RQ_st"] == 100
    assert math.isnan(panoptic_metrics(table[:3], ["a", "b", "c"], [True] * 3)["PQ_st"])


def test_golden(tmp_path):
    """12 images, 11 classes, 15 crowds, void: every class as panopticapi's definition gives it."""
    zipfile.ZipFile(GOLDEN).extractall(tmp_path)
    paths = [tmp_path / name for name in ("gt.json", "gt", "pred.json", "pred")]
    metrics = evaluate_panoptic_json(*paths)
    expected = json.loads((tmp_path / "expected.json").read_text())
    names = {str(c["id"]): c["name"] for c in json.loads(paths[0].read_text())["categories"]}
    parts = {"All": "", "Things": "_th", "Stuff": "_st"}
    wanted = {
        f"{measure}{suffix}": expected[part][measure.lower()]
        for part, suffix in parts.items()
        for measure in ("PQ", "SQ", "RQ")
    } | {
        f"{measure}-{names[id_]}": found[measure.lower()]
        for id_, found in expected["per_class"].items()
        for measure in ("PQ", "SQ", "RQ")
    }
    assert len(wanted) == 42
    assert metrics == pytest.approx({name: 100 * value for name, value in wanted.items()}, abs=1e-9)
