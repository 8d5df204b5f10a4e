"""Box coding against Detectron2's and by hand, and the loss between boxes."""

import math

import pytest
import torch

from panomask.errors import InputError
from panomask.modeling.box_regression import (
    SCALE_CLAMP,
    Box2BoxTransform,
    Box2BoxTransformLinear,
    _dense_box_regression_loss,
)
from panomask.structures import Boxes


def _close(actual: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_golden(golden):
    recorded = golden("anchors_and_boxes")["box_coding"]
    src, target = torch.tensor(recorded["src"]), torch.tensor(recorded["target"])
    coding = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    _close(coding.get_deltas(src, target), recorded["deltas"])
    _close(coding.apply_deltas(3 * torch.tensor(recorded["deltas"]), src), recorded["applied_x3"])
    linear = Box2BoxTransformLinear(normalize_by_size=True)
    _close(linear.get_deltas(src, target), recorded["linear_deltas"])
    _close(
        linear.apply_deltas(torch.tensor(recorded["linear_deltas"]).abs(), src), recorded["linear_applied"]
    )


def test_by_hand():
    """From 10 x 20 at (5, 10) to 20 x 20 at (10, 10): half a width to the right, twice as wide."""
    src, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.0, 0, 20, 20]])
    deltas = Box2BoxTransform((2.0, 1.0, 3.0, 1.0)).get_deltas(src, target)
    _close(deltas, [[1.0, 0.0, 3 * math.log(2), 0.0]])
    _close(Box2BoxTransformLinear(normalize_by_size=False).get_deltas(src, target), [[5.0, 10, 15, 10]])
    _close(Box2BoxTransformLinear(normalize_by_size=True).get_deltas(src, target), [[0.5, 0.5, 1.5, 0.5]])


@pytest.mark.parametrize(
    "coding", [Box2BoxTransform((10, 10, 5, 5)), Box2BoxTransformLinear(True), Box2BoxTransformLinear(False)]
)
def test_round_trip_and_classes(coding):
    src = torch.tensor([[3.0, 4, 20, 31], [0, 0, 8, 8]])
    target = torch.tensor([[5.0, 2, 33, 30], [1, 2, 7, 9]])
    deltas = coding.get_deltas(src, target)
    torch.testing.assert_close(coding.apply_deltas(deltas, src), target)
    twice = coding.apply_deltas(deltas.repeat(1, 2), src)  # two classes with the same deltas
    torch.testing.assert_close(twice, target.repeat(1, 2))
    assert coding.apply_deltas(torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 8)


def test_growth_is_clamped():
    deltas = torch.tensor([[0.0, 0, 100, 0]])
    box = Box2BoxTransform((1, 1, 1, 1)).apply_deltas(deltas, torch.tensor([[0.0, 0, 16, 16]]))
    assert math.isclose(float(box[0, 2] - box[0, 0]), 1000, rel_tol=1e-5)
    assert math.isclose(SCALE_CLAMP, math.log(1000 / 16))


def test_linear_distances_are_not_negative():
    boxes = Box2BoxTransformLinear(False).apply_deltas(
        torch.tensor([[-3.0, 1, 2, 2]]), torch.tensor([[0.0, 0, 8, 8]])
    )
    _close(boxes, [[4.0, 3, 6, 6]])


def _loss(kind: str, deltas: torch.Tensor, fg: torch.Tensor) -> torch.Tensor:
    anchors = [Boxes([[0.0, 0, 10, 10]]), Boxes([[0.0, 0, 4, 4], [2.0, 2, 2, 2]])]  # the last one has no area
    gt = torch.tensor([[5.0, 0, 15, 10], [0, 0, 4, 8], [0, 0, 0, 0]])
    levels = [deltas[:, :1], deltas[:, 1:]]
    coding = Box2BoxTransform((1, 1, 1, 1))
    return _dense_box_regression_loss(anchors, coding, levels, [gt, gt], fg, box_reg_loss_type=kind)


def test_loss_by_hand():
    """Two images; the first anchor's target deltas are (0.5, 0, 0, 0), the second's (0, 0.5, 0, log 2)."""
    deltas = torch.zeros(2, 3, 4)
    fg = torch.tensor([[True, True, False], [True, False, False]])
    expected = 0.5 + (0.5 + math.log(2)) + 0.5
    assert math.isclose(float(_loss("smooth_l1", deltas, fg)), expected, rel_tol=1e-5)
    # GIoU of the first: IoU 50 / 150, hull = union; of the second: IoU 1 / 2, hull = union.
    assert math.isclose(float(_loss("giou", deltas, fg)), 2 / 3 + 1 / 2 + 2 / 3, rel_tol=1e-4)
    # DIoU adds the squared distance of centres over the squared diagonal: 25 / 325 and 4 / 80.
    expected = 2 * (2 / 3 + 25 / 325) + 1 / 2 + 4 / 80
    assert math.isclose(float(_loss("diou", deltas, fg)), expected, rel_tol=1e-4)
    assert float(_loss("ciou", deltas, fg)) > expected


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_loss_leaves_the_background_alone(kind):
    """What stands outside of the foreground, even NaN, reaches neither the loss nor a gradient."""
    deltas = torch.zeros(2, 3, 4)
    deltas[0, 1] = float("nan")
    deltas.requires_grad_()
    fg = torch.tensor([[True, False, False], [False, False, False]])
    loss = _loss(kind, deltas, fg)
    loss.backward()
    assert loss > 0
    assert deltas.grad is not None
    assert deltas.grad[0, 0].abs().sum() > 0
    assert deltas.grad.abs().sum() == deltas.grad[0, 0].abs().sum()


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_loss_of_nothing_is_zero(kind):
    deltas = torch.zeros(2, 3, 4, requires_grad=True)
    loss = _loss(kind, deltas, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert deltas.grad is not None
    assert not deltas.grad.any()


def test_unknown_loss():
    with pytest.raises(InputError, match="did you mean 'giou'"):
        _loss("gious", torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
