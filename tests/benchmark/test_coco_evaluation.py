"""The rows can be made, and ours and pycocotools' numbers agree on them."""

import argparse

import pytest

from panomask.benchmark.coco_evaluation import add_arguments, comparisons


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_rows_agree():
    images = ("--box-images", "6", "--mask-images", "5", "--keypoint-images", "4")
    rows = list(comparisons(_arguments(*images, "--detections", "20", "--categories", "3")))
    assert [row.name.split(",")[0] for row in rows] == ["box AP", "mask AP", "keypoint AP"]
    assert [row.target for row in rows] == [4.0, 4.0, None]
    assert rows[0].name == "box AP, 6 images, 20 detections each"
    for row, numbers in zip(rows, (12 + 3, 12 + 3, 10 + 1), strict=True):
        ours, reference = row.ours(), row.reference()
        assert row.agreement(ours, reference).startswith(f"{numbers} numbers within")
        assert 1 < ours["AP"] < 99
        with pytest.raises(AssertionError):
            row.agreement({**ours, "AP": ours["AP"] + 1e-6}, reference)
        assert row.reference() == pytest.approx(
            reference, nan_ok=True
        )  # nothing was written into the entries
