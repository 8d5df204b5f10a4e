import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from panomask.benchmark import input as input_benchmark


def _rows(*options):
    parser = argparse.ArgumentParser()
    input_benchmark.add_arguments(parser)
    return input_benchmark.comparisons(parser.parse_args(options))


def test_both_ways_agree_in_every_row():
    names = []
    options = "--image-size 48 64 --shortest-edge 80 --objects 3 --images 2 --records 5".split()
    for row in _rows(*options):
        assert row.agreement(row.ours(), row.reference())
        names.append(row.name)
    assert len(set(names)) == 6
    assert names[0].startswith("training sample of Mask R-CNN (decode, resize shortest edge 80,")


def test_it_cleans_up():
    num_threads = torch.get_num_threads()
    rows = _rows("--images", "1", "--image-size", "48", "64")
    file = Path(next(rows).ours()["file_name"])
    assert file.is_file()
    assert torch.get_num_threads() == 1
    rows.close()
    assert not file.exists()
    assert torch.get_num_threads() == num_threads


def test_disagreement_is_found():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert input_benchmark.images_agree([black], [black], 0) == "equal pixels"
    assert input_benchmark.images_agree([black], [black + 1], 1) == "one grey level in 1.0e+00 of the pixels"
    with pytest.raises(AssertionError, match="255 grey levels"):
        input_benchmark.images_agree([black], [white], 1)
    rows = _rows("--images", "1", "--image-size", "48", "64")
    row = next(rows)
    ours, reference = [row.ours()], [row.reference()]
    input_benchmark.samples_agree(ours, reference)
    ours[0]["instances"].gt_boxes.tensor += 1
    with pytest.raises(AssertionError):
        input_benchmark.samples_agree(ours, reference)
