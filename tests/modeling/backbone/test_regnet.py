"""RegNet: widths by the paper, blocks by hand, freezing, config."""

import pytest
import torch
from torch import nn

from panomask.config import get_cfg
from panomask.errors import InputError
from panomask.layers import FrozenBatchNorm2d
from panomask.modeling.backbone import FPN, build_backbone
from panomask.modeling.backbone.regnet import (
    SE,
    AnyNet,
    RegNet,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleStem,
    VanillaBlock,
    adjust_block_compatibility,
    conv2d,
    generate_regnet_parameters,
    init_weights,
)

NET = "MODEL.REGNET."
TINY = [NET + "STEM_WIDTH", 8, NET + "DEPTH", 6, NET + "W_0", 8, NET + "W_A", 8.0, NET + "W_M", 2.0]
TINY += [NET + "GROUP_WIDTH", 4, NET + "NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0]
ALL = [NET + "OUT_FEATURES", ["stem", "s1", "s2", "s3", "s4"]]


def _build(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_regnet_backbone", *TINY, *opts])
    return build_backbone(cfg)


def test_widths_by_hand():
    """w_0 8, w_a 8, w_m 2: wanted 8, 16, 24, 32, 40, 48; log2(w / 8) is 0, 1, 1.58, 2, 2.32, 2.58, rounded
    0, 1, 2, 2, 2, 3."""
    assert generate_regnet_parameters(8, 8, 2, 6) == ([8, 16, 32, 64], [1, 1, 3, 1], 4, 4)


def test_widths_of_regnetx_4gf():
    """As published (arXiv:2003.13678, top RegNetX models), and as Detectron2's zoo has it."""
    widths, depths = generate_regnet_parameters(38.65, 96, 2.43, 23)[:2]
    assert depths == [2, 5, 14, 2]
    assert adjust_block_compatibility(widths, [1.0] * 4, [40] * 4) == (
        [80, 240, 560, 1360],
        [1.0] * 4,
        [40] * 4,
    )


def test_groups_divide_widths():
    # 24 becomes 2 groups of 16; a group is never wider than the bottleneck; twice 24 is 3 groups of 16.
    assert adjust_block_compatibility([24], [1.0], [16]) == ([32], [1.0], [16])
    assert adjust_block_compatibility([8], [0.5], [16]) == ([8], [0.5], [4])
    assert adjust_block_compatibility([24], [2.0], [16]) == ([24], [2.0], [16])
    # four times 10 becomes 36, which 4 and 6 divide; 42 is nearer, but no width times 4
    assert adjust_block_compatibility([10], [4.0], [6]) == ([9], [4.0], [6])


@pytest.mark.parametrize("block", ["ResBottleneckBlock", "ResBasicBlock", "VanillaBlock"])
@pytest.mark.parametrize("stem, stride", [("SimpleStem", 2), ("ResStem", 4)])
def test_shapes_and_gradients(block, stem, stride):
    net = _build(NET + "BLOCK", block, NET + "STEM", stem, NET + "SE_RATIO", 0.25, *ALL)
    features = net(torch.randn(2, 3, 64, 128))
    strides = [shape.stride for shape in net.output_shape().values()]
    assert strides == [stride * 2**i for i in range(5)]
    for name, shape in net.output_shape().items():
        assert features[name].shape == (2, shape.channels, 64 // shape.stride, 128 // shape.stride)
    features["s4"].sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_squeeze_and_excitation_by_hand():
    se = SE(1, 1, nn.ReLU)
    for conv in (se.f_ex[0], se.f_ex[2]):
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
    x = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, so both cells times sigmoid(2)
    torch.testing.assert_close(se(x), x * torch.sigmoid(torch.tensor(2.0)))


def test_weights_are_drawn_by_the_fan_out():
    """A variance of 2 / (3 * 3 * 64), whatever the number of groups."""
    torch.manual_seed(0)
    conv = conv2d(32, 64, 3, groups=4)
    nn.init.zeros_(conv.weight)
    init_weights(conv)
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert abs(conv.weight.mean().item()) < 0.005
    linear = nn.Linear(100, 100)
    init_weights(linear)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not linear.bias.any()


def test_shortcut_and_branch_are_added():
    block = ResBasicBlock(1, 1, 1, "", nn.ReLU, {})
    assert block.proj is None
    for conv in (block.f.a, block.f.b):
        nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 1, 1] = 2.0
    assert block(torch.tensor([[[[1.0, -1.0]]]])).tolist() == [[[[5.0, 0.0]]]]  # 1 + 2 * 2; relu(-1 + 0)
    assert (
        ResBottleneckBlock(4, 4, 2, "BN", nn.ReLU, {"bot_mul": 1, "group_w": 2, "se_r": 0}).proj is not None
    )


def test_names_of_the_published_weights():
    keys = list(_build(NET + "SE_RATIO", 0.25).state_dict())
    assert keys[0] == "stem.conv.weight"
    assert {"s1.b1.proj.weight", "s1.b1.bn.weight", "s1.b1.f.a.weight", "s1.b1.f.b_bn.bias"} <= set(keys)
    assert {"s1.b1.f.se.f_ex.0.weight", "s1.b1.f.se.f_ex.2.bias", "s3.b3.f.c_bn.running_var"} <= set(keys)


@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_freezing(freeze_at):
    net = _build("MODEL.BACKBONE.FREEZE_AT", freeze_at, *ALL)
    for number, part in enumerate([net.stem, net.s1, net.s2, net.s3, net.s4], start=1):
        is_frozen = number <= freeze_at
        assert all(parameter.requires_grad != is_frozen for parameter in part.parameters())
        assert any(isinstance(module, FrozenBatchNorm2d) for module in part.modules()) == is_frozen


def test_with_a_pyramid():
    cfg = get_cfg()
    levels = ["s1", "s2", "s3", "s4"]
    cfg.merge_from_list([*TINY, NET + "OUT_FEATURES", levels, "MODEL.FPN.IN_FEATURES", levels])
    cfg.MODEL.BACKBONE.NAME = "build_regnet_fpn_backbone"
    net = build_backbone(cfg)
    assert isinstance(net, FPN)
    assert [tuple(x.shape[2:]) for x in net(torch.zeros(1, 3, 64, 64)).values()] == [
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ]


def test_constructors_without_a_config():
    net = RegNet(
        stem_class=ResStem,
        stem_width=8,
        block_class=ResBottleneckBlock,
        depth=2,
        w_a=0,
        w_0=8,
        w_m=2,
        group_width=8,
    )
    assert list(net(torch.zeros(1, 3, 32, 32))) == ["s1"]
    stages = {"depths": [1], "widths": [4], "group_widths": [1], "strides": [2], "bottleneck_ratios": [1]}
    plain = AnyNet(
        stem_class=SimpleStem,
        stem_width=4,
        block_class=VanillaBlock,
        se_ratio=0,
        activation_class=nn.GELU,
        **stages,
    )
    assert plain.output_shape()["s1"].stride == 4


@pytest.mark.parametrize(
    "opts, message",
    [
        ([NET + "OUT_FEATURES", ["res2"]], "REGNET.OUT_FEATURES"),
        ([NET + "W_0", 12], "positive multiple of 8"),
        ([NET + "BOTTLENECK_RATIO", 1.5, NET + "GROUP_WIDTH", 16], "groups do not divide"),
        (["MODEL.PIXEL_MEAN", [1.0], "MODEL.PIXEL_STD", [1.0]], "images of three"),
    ],
)
def test_bad_settings(opts, message):
    with pytest.raises(InputError, match=message):
        _build(*opts)


def test_numbers_of_timm():
    """RegNetY-200MF of the package timm, with the same weights, makes the same features."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("regnety_002", features_only=True).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    ours = RegNet(
        stem_class=SimpleStem,
        stem_width=32,
        block_class=ResBottleneckBlock,
        depth=13,
        w_a=36.44,
        w_0=24,
        w_m=2.49,
        group_width=8,
        se_ratio=0.25,
        out_features=["stem", "s1", "s2", "s3", "s4"],
    ).eval()
    names = {
        "downsample.conv": "proj",
        "downsample.bn": "bn",
        "se.fc1": "f.se.f_ex.0",
        "se.fc2": "f.se.f_ex.2",
    }
    for number, letter in enumerate("abc", start=1):
        names[f"conv{number}.conv"] = f"f.{letter}"
        names[f"conv{number}.bn"] = f"f.{letter}_bn"
    weights = {}
    for key, value in theirs.state_dict().items():
        for old, new in names.items():
            key = key.replace(f".{old}.", f".{new}.")
        weights[key] = value
    ours.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 96)
    for mine, expected in zip(ours(x).values(), theirs(x), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
