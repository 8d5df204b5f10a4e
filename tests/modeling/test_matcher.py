"""Matching by hand."""

import pytest
import torch

from panomask.errors import InputError
from panomask.modeling.matcher import Matcher

QUALITY = torch.tensor([[0.9, 0.35, 0.1, 0.0, 0.7], [0.2, 0.4, 0.25, 0.0, 0.1]])


def test_labels_by_interval():
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1])(QUALITY)
    assert matches.tolist() == [0, 1, 1, 0, 0]
    assert labels.tolist() == [1, -1, 0, 0, 1]  # 0.7 belongs to the upper interval
    assert labels.dtype == torch.int8


def test_best_of_each_object_is_positive():
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(QUALITY)
    assert labels.tolist() == [1, 1, 0, 0, 1]
    assert matches.tolist() == [0, 1, 1, 0, 0]


def test_ties_count_and_matches_stay():
    quality = torch.tensor([[0.2, 0.2, 0.6], [0.5, 0.1, 0.6]])
    matches, labels = Matcher([0.9], [0, 1], allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [0, 0, 1]
    quality = torch.tensor([[0.2, 0.2, 0.1], [0.5, 0.1, 0.1]])
    matches, labels = Matcher([0.9], [0, 1], allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [1, 1, 0]
    assert matches.tolist() == [1, 0, 0]


@pytest.mark.parametrize("low_quality", [False, True])
def test_empty(low_quality):
    matcher = Matcher([0.3, 0.7], [0, -1, 1], low_quality)
    matches, labels = matcher(torch.zeros(0, 3))
    assert (matches.tolist(), labels.tolist()) == ([0, 0, 0], [0, 0, 0])
    matches, labels = matcher(torch.zeros(2, 0))
    assert len(matches) == len(labels) == 0


@pytest.mark.parametrize(
    "args", [([0.7, 0.3], [0, -1, 1]), ([0.5], [0, 1, 1]), ([0.5], [0, 2]), ([0.0], [0, 1])]
)
def test_bad_settings(args):
    with pytest.raises(InputError, match="IOU_"):
        Matcher(*args)
