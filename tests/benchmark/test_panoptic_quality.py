"""The rows can be made, and the plain reference agrees with panomask."""

import argparse

import pytest

from panomask.benchmark.panoptic_quality import NAME, add_arguments, comparisons
from panomask.data import MetadataCatalog


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_rows_agree():
    rows = comparisons(_arguments("--images", "5", "--height", "60", "--width", "80"))
    first = next(rows)
    pq = first.ours()
    assert 1 < pq < 99
    words = first.agreement(pq, first.reference())
    assert "KiB after 5 images" in words
    with pytest.raises(AssertionError, match="PQ differs"):
        first.agreement(pq + 1e-6, first.reference())
    second = next(rows)
    decoded = second.reference()
    assert [image.shape for image in decoded] == [(60, 80, 3)] * 5
    assert f"PQ {pq:.1f}" in second.agreement(second.ours(), decoded)
    assert list(rows) == []
    assert NAME not in MetadataCatalog
