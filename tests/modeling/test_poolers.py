"""RoI pooling over levels."""

import pytest
import torch

from panomask.errors import InputError
from panomask.layers import ROIAlign
from panomask.modeling.poolers import (
    ROIPooler,
    _PutInPlace,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from panomask.structures import Boxes

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
TYPES = ["ROIAlign", "ROIAlignMax", "ROIAlignV2", "ROIAlignV2Max", "ROIPool", "ROIWarp", "ROIWarpMax"]


def test_levels_by_hand():
    """A square of 224 pixels belongs to level 4, of 223 to 3, of 448 to 5; small and large to the ends."""
    sides = [224.0, 223.0, 448.0, 112.0, 5.0, 0.0, 5000.0]
    boxes = [
        Boxes([[0, 0, side, side] for side in sides[:3]]),
        Boxes([[0, 0, side, side] for side in sides[3:]]),
    ]
    levels = assign_boxes_to_levels(boxes, 2, 5, 224, 4)
    assert levels.tolist() == [2, 1, 3, 1, 0, 0, 3]


def test_format():
    boxes = [Boxes([[1.0, 2, 3, 4]]), Boxes([]), Boxes([[5.0, 6, 7, 8], [0, 0, 1, 1]])]
    rois = convert_boxes_to_pooler_format(boxes)
    assert rois.tolist() == [[0, 1, 2, 3, 4], [2, 5, 6, 7, 8], [2, 0, 0, 1, 1]]


@pytest.mark.parametrize("pooler_type", TYPES)
def test_each_box_is_pooled_from_its_level_in_order(pooler_type):
    torch.manual_seed(0)
    features = [torch.randn(2, 3, int(512 * scale), int(512 * scale), requires_grad=True) for scale in SCALES]
    boxes = [
        Boxes([[0.0, 0, 500, 500], [10, 10, 40, 60], [4, 4, 130, 130], [0, 0, 300, 200]]),
        Boxes([[5.0, 5, 30, 30], [100, 100, 400, 500]]),
    ]
    pooler = ROIPooler(7, SCALES, 2, pooler_type)
    pooled = pooler(features, boxes)
    assert pooled.shape == (6, 3, 7, 7)
    rois = convert_boxes_to_pooler_format(boxes)
    levels = assign_boxes_to_levels(boxes, 2, 5, 224, 4).tolist()
    assert sorted(set(levels)) == [0, 1, 2, 3]
    for roi, level, actual in zip(rois, levels, pooled, strict=True):
        alone = pooler.level_poolers[level](features[level], roi[None])[0]
        torch.testing.assert_close(actual, alone)
    pooled.sum().backward()
    assert all(feature.grad is not None and feature.grad.any() for feature in features)


def test_types_differ_by_half_a_cell():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    boxes = [Boxes([[2.0, 2, 4, 4]])]
    values = {kind: ROIPooler(1, [1.0], 1, kind)([ramp], boxes).item() for kind in TYPES}
    # The box's centre is x = 3, between cells 2 and 3 when cell i lies at i + 0.5. ROIPool takes the largest
    # of the cells 2, 3, 4, ROIWarp samples their centre; of one sample mean and maximum are the same.
    assert values == {
        **{"ROIAlignV2": 2.5, "ROIAlignV2Max": 2.5, "ROIAlign": 3.0, "ROIAlignMax": 3.0},
        **{"ROIPool": 4.0, "ROIWarp": 3.0, "ROIWarpMax": 3.0},
    }


@pytest.mark.parametrize("pooler_type", TYPES)
@pytest.mark.parametrize("num_levels", [1, 4])
def test_no_boxes(pooler_type, num_levels):
    features = [torch.randn(2, 3, 8, 8, requires_grad=True) for _ in range(num_levels)]
    pooler = ROIPooler((7, 5), SCALES[:num_levels], 0, pooler_type)
    pooled = pooler(features, [Boxes([]), Boxes([])])
    assert pooled.shape == (0, 3, 7, 5)
    pooled.sum().backward()
    assert features[0].grad is not None
    assert pooler([feature[:0] for feature in features], []).shape == (0, 3, 7, 5)


def test_settings():
    assert isinstance(ROIPooler(7, SCALES, 0, "ROIAlign").level_poolers[0], ROIAlign)
    with pytest.raises(InputError, match="ROIAlignV2"):
        ROIPooler(7, SCALES, 0, "ROIAlignV3")
    with pytest.raises(InputError, match="powers of 2"):
        ROIPooler(7, [1 / 4, 1 / 16], 0, "ROIAlign")
    with pytest.raises(InputError, match="powers of 2"):
        ROIPooler(7, [1 / 6], 0, "ROIAlign")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_rows_of_the_levels_in_the_order_of_the_boxes(memory_format):
    """As `cat` and an index, gradients too; a level may have no box."""
    torch.manual_seed(0)
    order = torch.randperm(9)
    parts = [
        torch.randn(n, 3, 2, 2, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        for n in (4, 0, 5)
    ]
    found = _PutInPlace.apply(order, *parts)
    assert torch.equal(found, torch.cat(parts)[torch.argsort(order)])
    assert found.is_contiguous(memory_format=memory_format)
    assert torch.autograd.gradcheck(lambda *some: _PutInPlace.apply(order, *some), parts)


def test_a_traced_graph_pools_other_boxes_too():
    pooler = ROIPooler(2, [1 / 4, 1 / 8], 1, "ROIAlignV2", canonical_level=2, canonical_box_size=16)
    maps = [torch.randn(1, 3, 16, 16), torch.randn(1, 3, 8, 8)]
    boxes = torch.tensor([[0.0, 0, 60, 60], [4, 4, 9, 9]])
    graph = torch.jit.trace(lambda a, b, x: pooler([a, b], [Boxes(x)]), (*maps, boxes), check_trace=False)
    torch.testing.assert_close(graph(*maps, boxes), pooler(maps, [Boxes(boxes)]))
