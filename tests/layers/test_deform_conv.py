"""Deformable convolution: without offsets an ordinary one, with whole offsets a shifted one, by hand."""

import pytest
import torch
from torch import nn

from panomask.layers import DeformConv, ModulatedDeformConv


def _without_offsets(conv: nn.Module, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    points = conv.deformable_groups * 9
    offset = x.new_zeros(len(x), 2 * points, height, width)
    if isinstance(conv, DeformConv):
        return conv(x, offset)
    return conv(x, offset, x.new_ones(len(x), points, height, width))


@pytest.mark.parametrize("kind", [DeformConv, ModulatedDeformConv])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 2, "dilation": 2, "groups": 2, "deformable_groups": 4},
        {"padding": 1, "stride": 2, "deformable_groups": 2},
    ],
)
def test_without_offsets_it_is_a_convolution(kind, options):
    torch.manual_seed(0)
    deformable = kind(4, 6, 3, **options)
    plain = nn.Conv2d(4, 6, 3, bias=False, **{k: v for k, v in options.items() if k != "deformable_groups"})
    plain.weight = deformable.weight
    x = torch.randn(2, 4, 8, 10)
    expected = plain(x)
    torch.testing.assert_close(_without_offsets(deformable, x, *expected.shape[2:]), expected)


def test_offsets_are_dy_dx_in_cells():
    """A 1 x 1 kernel of weight 2 that looks one row down and half a column to the right; outside is 0."""
    conv = DeformConv(1, 1, 1)
    nn.init.constant_(conv.weight, 2.0)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    offset = torch.zeros(1, 2, 2, 2)
    offset[:, 0] = 1.0
    offset[:, 1] = 0.5
    assert conv(x, offset).tolist() == [[[[8.0, 5.0], [0.0, 0.0]]]]


def test_deformable_groups_have_their_own_offsets_and_weights():
    conv = ModulatedDeformConv(2, 2, 1, groups=2, deformable_groups=2)
    nn.init.ones_(conv.weight)
    nn.init.constant_(conv.bias, 10.0)
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    offset = torch.zeros(1, 4, 1, 2)
    offset[0, 3, 0, 0] = 1.0  # second group, dx, left cell
    mask = torch.tensor([[[[1.0, 1.0]], [[0.5, 0.0]]]])
    assert conv(x, offset, mask).tolist() == [[[[11.0, 12.0]], [[12.0, 10.0]]]]


def test_state_dict_keys_norm_and_activation():
    conv = ModulatedDeformConv(2, 4, 3, padding=1, norm=nn.BatchNorm2d(4), activation=nn.functional.relu)
    assert list(conv.state_dict())[:3] == ["weight", "bias", "norm.weight"]
    assert list(DeformConv(2, 4, 3).state_dict()) == ["weight"]
    assert DeformConv(2, 4, 3).bias is None
    assert _without_offsets(conv, torch.randn(2, 2, 5, 5), 5, 5).min() == 0
    assert "deformable_groups=1" in repr(conv)


@pytest.mark.parametrize("kind", [DeformConv, ModulatedDeformConv])
def test_half_precision_and_gradients(kind):
    conv = kind(2, 2, 3, padding=1).bfloat16()
    x = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    out = _without_offsets(conv, x, 4, 4)
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())


def test_empty_batch():
    conv = DeformConv(2, 3, 3, stride=2, padding=1)
    out = _without_offsets(conv, torch.zeros(0, 2, 6, 8, requires_grad=True), 3, 4)
    assert out.shape == (0, 3, 3, 4)
    out.sum().backward()


def test_what_does_not_fit():
    with pytest.raises(AssertionError, match="no bias"):
        DeformConv(2, 2, 3, bias=True)
    with pytest.raises(AssertionError, match="no multiple of 2 deformable groups"):
        DeformConv(3, 2, 3, deformable_groups=2)
    with pytest.raises(AssertionError):
        DeformConv(2, 2, 3, padding=1)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 36, 4, 4))
