import pytest
import torch
from torch import nn

from panomask.layers import (
    Conv2d,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
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


NORMS = [
    lambda c: FrozenBatchNorm2d(c),
    lambda c: nn.BatchNorm2d(c).eval(),
    lambda c: nn.BatchNorm2d(c, affine=False).eval(),
    lambda c: NaiveSyncBatchNorm(c).eval(),
]


@torch.no_grad()
def _fill(norm: nn.Module) -> nn.Module:
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape))
    return norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("make_norm", NORMS)
def test_fixed_norm_in_the_weights_is_the_norm_behind_them(make_norm, bias):
    torch.manual_seed(0)
    conv = Conv2d(3, 4, 3, stride=2, padding=1, bias=bias, norm=_fill(make_norm(4)))
    found = []
    for image in (torch.randn(2, 3, 24, 24), torch.randn(1, 3, 4, 4)):  # the second has too few outputs
        given = image.clone().requires_grad_()
        reference = conv.norm(nn.functional.conv2d(given, conv.weight, conv.bias, 2, 1))
        expected = torch.autograd.grad(reference.square().sum(), [given, conv.weight])
        out = conv(given)
        torch.testing.assert_close(out, reference)
        torch.testing.assert_close(
            torch.autograd.grad(out.square().sum(), [given, conv.weight]), expected, rtol=1e-4, atol=1e-4
        )
        found.append(conv._has_fewer_weights_than_outputs(image))
    assert found == [True, False]


def test_fixed_norm_is_folded_anew_each_time():
    conv = Conv2d(1, 1, 1, bias=False, norm=FrozenBatchNorm2d(1))
    nn.init.ones_(conv.weight)
    image = torch.ones(1, 1, 4, 4)
    assert conv(image).unique().item() == pytest.approx(1)
    conv.norm.weight.data.fill_(3.0)  # an edit that leaves no trace
    conv.weight.data.fill_(2.0)
    assert conv(image).unique().item() == pytest.approx(6)


def test_folding_keeps_the_type_of_the_weights():
    conv = Conv2d(1, 1, 1, norm=FrozenBatchNorm2d(1)).bfloat16()
    conv.norm.float()
    assert conv(torch.ones(1, 1, 4, 4).bfloat16()).dtype == torch.bfloat16


def test_watched_norm_is_called():
    conv, seen = Conv2d(1, 1, 1, norm=FrozenBatchNorm2d(1)), []
    conv.norm.register_forward_hook(lambda module, args, out: seen.append(out))
    out = conv(torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(seen[0], out)


def _watch_everywhere(norm, hook):
    return nn.modules.module.register_module_forward_hook(
        lambda module, *args: hook() if module is norm else None
    )


@pytest.mark.parametrize(
    "watch",
    [
        lambda norm, hook: norm.register_forward_pre_hook(lambda *args: hook()),
        lambda norm, hook: norm.register_full_backward_hook(lambda *args: hook()),
        _watch_everywhere,
    ],
)
def test_every_kind_of_watching_keeps_the_norm(watch):
    conv, seen = Conv2d(1, 1, 1, norm=FrozenBatchNorm2d(1)), []
    handle = watch(conv.norm, lambda: seen.append(1))
    try:
        conv(torch.ones(1, 1, 4, 4, requires_grad=True)).sum().backward()
    finally:
        handle.remove()
    assert seen == [1]


class _ShiftedNorm(FrozenBatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 100


def test_norm_with_a_forward_of_its_own_is_called():
    conv = Conv2d(1, 1, 1, bias=False, norm=_ShiftedNorm(1))
    assert conv(torch.zeros(1, 1, 4, 4)).unique().item() == 100
    conv = Conv2d(1, 1, 1, bias=False, norm=FrozenBatchNorm2d(1))
    conv.norm.forward = lambda x: x + 5
    assert conv(torch.zeros(1, 1, 4, 4)).unique().item() == 5


def test_norm_without_statistics_is_not_folded():
    conv = Conv2d(1, 1, 1, norm=nn.BatchNorm2d(1, track_running_stats=False)).eval()
    assert conv(torch.randn(2, 1, 8, 8)).mean().item() == pytest.approx(0, abs=1e-5)


def test_norm_in_training_is_not_folded():
    conv = Conv2d(1, 1, 1, norm=nn.BatchNorm2d(1))
    conv(torch.randn(2, 1, 8, 8) + 5)
    assert conv.norm.running_mean.item() != 0


def test_traced_graph_has_the_norm_in_it():
    conv = Conv2d(1, 1, 1, norm=FrozenBatchNorm2d(1))
    with torch.no_grad():
        graph = torch.jit.trace(conv, torch.ones(1, 1, 4, 4)).inlined_graph
    assert "aten::batch_norm" in str(graph)
