import math

import pytest
import torch
from torchvision import ops

from panomask.layers import ciou_loss, diou_loss, giou_loss, iou_loss, smooth_l1_loss

BOX_LOSSES = [iou_loss, giou_loss, diou_loss, ciou_loss]
FIRST = torch.tensor([[0.0, 0, 4, 2]], dtype=torch.float64)
SECOND = torch.tensor([[2.0, 1, 6, 3]], dtype=torch.float64)  # shares 2 of 8 + 8; the hull is 6 x 3


def test_smooth_l1_by_hand():
    difference = torch.tensor([0.0, 0.5, -1.0, 3.0])
    loss = smooth_l1_loss(difference, torch.zeros(4), beta=1.0)
    assert loss.tolist() == [0, 0.125, 0.5, 2.5]
    loss = smooth_l1_loss(difference, torch.zeros(4), beta=2.0)
    assert loss.tolist() == [0, 0.0625, 0.25, 2.0]


@pytest.mark.parametrize("beta", [0.0, 1e-6])
def test_smooth_l1_without_beta_is_l1(beta):
    assert smooth_l1_loss(torch.tensor([2.0, -3.0]), torch.zeros(2), beta).tolist() == [2, 3]
    assert smooth_l1_loss(torch.tensor([2.0, -3.0]), torch.zeros(2), beta, reduction="mean") == 2.5
    assert smooth_l1_loss(torch.tensor([2.0, -3.0]), torch.zeros(2), beta, reduction="sum") == 5


def test_box_losses_by_hand():
    iou = 2 / 14
    torch.testing.assert_close(giou_loss(FIRST, SECOND).item(), 1 - iou + (18 - 14) / 18, atol=1e-6, rtol=0)
    distance = (2**2 + 1**2) / (6**2 + 3**2)
    torch.testing.assert_close(diou_loss(FIRST, SECOND).item(), 1 - iou + distance, atol=1e-6, rtol=0)
    torch.testing.assert_close(ciou_loss(FIRST, SECOND).item(), 1 - iou + distance, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_unknown_reduction(loss):
    with pytest.raises(ValueError, match="reduction 'avg': allowed are"):
        loss(FIRST, SECOND, reduction="avg")


@pytest.mark.parametrize(
    ("loss", "name"),
    [(giou_loss, "generalized_box"), (diou_loss, "distance_box"), (ciou_loss, "complete_box")],
)
def test_box_losses_are_torchvisions(loss, name):
    corners = 50 * torch.rand(100, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = torch.cat([corners.amin(dim=2), corners.amax(dim=2) + 1], dim=2).unbind(dim=1)
    expected = getattr(ops, f"{name}_iou_loss")(first, second)
    torch.testing.assert_close(loss(first, second), expected)
    torch.testing.assert_close(loss(first, second, reduction="mean"), expected.mean())


def test_ciou_adds_the_aspect_ratio():
    tall = torch.tensor([[1.0, -1, 3, 3]], dtype=torch.float64)  # centre (2, 1), 2 x 4; shares 4 of 8 + 8
    iou = 4 / 12
    v = 4 / math.pi**2 * (math.atan(4 / 2) - math.atan(2 / 4)) ** 2
    expected = 1 - iou + v * v / (1 - iou + v)
    torch.testing.assert_close(ciou_loss(FIRST, tall).item(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_box_losses_of_equal_boxes_are_zero(loss):
    torch.testing.assert_close(loss(FIRST, FIRST), torch.zeros(1).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", [*BOX_LOSSES, lambda a, b, reduction: smooth_l1_loss(a, b, 1.0, reduction)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_over_nothing_are_zero_with_a_gradient(loss, reduction):
    boxes = torch.zeros(0, 4, requires_grad=True)
    value = loss(boxes, torch.zeros(0, 4), reduction=reduction)
    value.backward()
    assert value.item() == 0
    assert boxes.grad.shape == (0, 4)


@pytest.mark.parametrize("loss", [giou_loss, diou_loss])
def test_box_losses_gradient(loss):
    first = torch.tensor(
        [[0.1, 0.2, 4.3, 2.5], [5.0, 5.1, 6.2, 6.3]], dtype=torch.float64, requires_grad=True
    )
    second = torch.tensor([[2.0, 1.0, 6.0, 3.1], [1.0, 1.2, 2.0, 2.4]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, second), first)


def test_logarithm_of_iou_by_hand():
    torch.testing.assert_close(iou_loss(FIRST, SECOND, eps=0).item(), -math.log(2 / 14))
    torch.testing.assert_close(iou_loss(FIRST, SECOND).item(), -math.log(3 / 15))  # a pixel on either area
    assert iou_loss(FIRST, FIRST).item() == 0


def test_logarithm_of_iou_of_boxes_apart_and_empty():
    boxes = torch.tensor([[10.0, 10, 14, 12], [1, 1, 1, 1]], dtype=torch.float64, requires_grad=True)
    loss = iou_loss(boxes, FIRST.expand(2, 4))
    torch.testing.assert_close(loss.tolist(), [math.log(8 + 8 + 1), math.log(8 + 1)])
    loss.sum().backward()
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_boxes_without_extent_have_a_finite_loss_and_gradient(loss):
    """As FCOS predicts them, where negative distances are cut to 0."""
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9]], requires_grad=True)
    value = loss(boxes, torch.tensor([[3.0, 3, 9, 9]]).expand(3, 4))
    value.sum().backward()
    assert value.isfinite().all()
    assert boxes.grad.isfinite().all()
