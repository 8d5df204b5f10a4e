import pytest
import torch
from torch import nn

from panomask.layers import (
    Conv2d,
    ShapeSpec,
    cat,
    cross_entropy,
    empty_input_loss_func_wrapper,
    interpolate,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)


def test_conv_then_norm_then_activation():
    conv = Conv2d(1, 1, 1, bias=False, norm=nn.BatchNorm2d(1), activation=torch.relu).eval()
    conv.weight.data.fill_(-3.0)
    conv.norm.bias.data.fill_(1.0)
    out = conv(torch.tensor([[[[1.0, -1.0]]]]))
    torch.testing.assert_close(out, torch.tensor([[[[0.0, 4.0]]]]), atol=1e-4, rtol=0)


def test_conv_state_dict_keys():
    plain = Conv2d(3, 4, 3, padding=1)
    assert list(plain.state_dict()) == ["weight", "bias"]
    normed = Conv2d(3, 4, 3, bias=False, norm=nn.GroupNorm(2, 4))
    assert list(normed.state_dict()) == ["weight", "norm.weight", "norm.bias"]
    assert plain(torch.zeros(0, 3, 5, 5)).shape == (0, 4, 5, 5)


def test_cat_hands_a_single_tensor_through():
    x = torch.ones(2, 3)
    assert cat([x]) is x
    assert cat([x, x], dim=1).shape == (2, 6)


def test_nonzero_tuple():
    rows, columns = nonzero_tuple(torch.tensor([[0, 1], [1, 1]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 1], [1, 0, 1])
    assert [index.tolist() for index in nonzero_tuple(torch.tensor(5))] == [[0]]
    assert [index.tolist() for index in nonzero_tuple(torch.tensor(0))] == [[]]


def test_cross_entropy_over_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.shape == (0, 5)


def test_cross_entropy_is_torchs_otherwise():
    logits, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(cross_entropy(logits, target), nn.functional.cross_entropy(logits, target))
    assert cross_entropy(logits, target, reduction="none").shape == (4,)


def test_wrapper_leaves_other_reductions_alone():
    loss = empty_input_loss_func_wrapper(nn.functional.l1_loss)
    assert loss(torch.zeros(0, 4), torch.zeros(0, 4), reduction="none").shape == (0, 4)


def test_small_things():
    assert ShapeSpec(channels=3, stride=4) == ShapeSpec(3, None, None, 4)
    assert shapes_to_tensor([3, 4]).tolist() == [3, 4]
    assert move_device_like(torch.zeros(1), torch.ones(1)).device == torch.device("cpu")
    assert interpolate(torch.zeros(1, 1, 2, 2), scale_factor=2.0, mode="nearest").shape == (1, 1, 4, 4)


@pytest.mark.parametrize("norm", [None, nn.Identity()])
def test_conv_gradient(norm):
    conv = Conv2d(2, 2, 3, padding=1, norm=norm, activation=torch.tanh).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x)
