import argparse

import pytest
import torch

from panomask.benchmark import results
from panomask.evaluation import encode_masks


def _rows(*options: str):
    parser = argparse.ArgumentParser()
    results.add_arguments(parser)
    return results.comparisons(parser.parse_args(options))


def test_both_ways_agree_in_every_row():
    rows = list(_rows("--detections", "4", "--output-size", "60", "80"))
    for row in rows:
        assert row.agreement(row.ours(), row.reference())
    assert [row.target for row in rows] == [4.0, 3.0, None]
    assert rows[0].name == "4 masks 28 x 28 pasted into 60 x 80 and encoded as RLE"


def test_disagreement_is_found():
    masks = torch.zeros(1, 10, 10, dtype=torch.bool)
    assert results.masks_agree(encode_masks(masks), encode_masks(masks)) == "equal bytes"
    with pytest.raises(AssertionError, match="100 pixels"):
        results.masks_agree(encode_masks(masks), encode_masks(~masks))
    ours, reference = torch.zeros(1, 17, 4), (torch.zeros(1, 17, 3), torch.zeros(1, 17))
    assert results.keypoints_agree(ours, reference)
    with pytest.raises(AssertionError, match="differ"):
        results.keypoints_agree(ours + 1, reference)
