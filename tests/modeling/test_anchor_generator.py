"""Anchors against Detectron2's and by hand."""

import pytest
import torch

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling import DefaultAnchorGenerator, build_anchor_generator


def test_golden_grids(golden):
    """Three levels without an offset; one level of two sizes and two ratios with half a cell."""
    recorded = golden("anchors_and_boxes")
    generator = DefaultAnchorGenerator(
        sizes=[[32], [64], [128]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4, 8, 16], offset=0.0
    )
    sizes = [len(level) // 3 for level in recorded["anchors"]]  # 48, 12 and 4 cells
    grids = [
        torch.zeros(1, 1, 6, sizes[0] // 6),
        torch.zeros(1, 1, 3, sizes[1] // 3),
        torch.zeros(1, 1, 2, 2),
    ]
    for boxes, expected in zip(generator(grids), recorded["anchors"], strict=True):
        torch.testing.assert_close(boxes.tensor, torch.tensor(expected), rtol=0, atol=1e-4)

    generator = DefaultAnchorGenerator(
        sizes=[[16, 24.5]], aspect_ratios=[[1.0, 2.0]], strides=[8], offset=0.5
    )
    boxes = generator([torch.zeros(1, 1, 2, 3)])[0]
    expected = torch.tensor(recorded["anchors_offset_half"][0])
    torch.testing.assert_close(boxes.tensor, expected, rtol=0, atol=1e-4)


def test_by_hand():
    generator = DefaultAnchorGenerator(sizes=[4], aspect_ratios=[1.0, 4.0], strides=[10], offset=0.5)
    assert generator.num_cell_anchors == generator.num_anchors == [2]
    assert generator.box_dim == 4
    boxes = generator([torch.zeros(2, 3, 1, 2)])[0].tensor
    # Area 16: a 4 x 4 square, and 2 wide by 8 high; centres (5, 5) and (15, 5).
    expected = [[3, 3, 7, 7], [4, 1, 6, 9], [13, 3, 17, 7], [14, 1, 16, 9]]
    torch.testing.assert_close(boxes, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("sizes", [[[8], [16]], [[8]], [8]])
def test_lists_are_broadcast(sizes):
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=[1.0], strides=[4, 8])
    assert generator.num_cell_anchors == [1, 1]


def test_no_cells():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    assert len(generator([torch.zeros(1, 1, 0, 5)])[0]) == 0


def test_buffers_move_but_are_not_saved():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    assert not generator.state_dict()
    assert len(list(generator.buffers())) == len(generator.cell_anchors) == 1


def test_bad_settings():
    with pytest.raises(InputError, match=r"SIZES.*each of the 3 feature maps"):
        DefaultAnchorGenerator(sizes=[[8], [16]], aspect_ratios=[1.0], strides=[4, 8, 16])
    with pytest.raises(InputError, match="OFFSET"):
        DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4], offset=1.0)


def test_from_config(tiny_cfg):
    generator = build_anchor_generator(tiny_cfg(), [ShapeSpec(stride=2**i) for i in range(2, 7)])
    assert generator.strides == [4, 8, 16, 32, 64]
    assert generator.num_anchors == [3] * 5
