"""ResNet: shapes, strides, freezing, and one block by hand."""

import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import FrozenBatchNorm2d, ModulatedDeformConv, ShapeSpec
from panomask.modeling import ResNet, make_stage
from panomask.modeling.backbone import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    build_resnet_backbone,
)

RES = "MODEL.RESNETS."
ALL = (RES + "OUT_FEATURES", ["stem", "res2", "res3", "res4", "res5"])


def _build(cfg) -> ResNet:
    return build_resnet_backbone(cfg, ShapeSpec(channels=3))


@pytest.mark.parametrize("depth, blocks", [(18, 8), (34, 16), (50, 16), (101, 33), (152, 50)])
def test_depths(tiny_cfg, depth, blocks):
    cfg = tiny_cfg(RES + "DEPTH", depth, RES + "WIDTH_PER_GROUP", 4, *ALL)
    model = _build(cfg)
    assert sum(isinstance(module, BasicBlock | BottleneckBlock) for module in model.modules()) == blocks
    features = model(torch.zeros(2, 3, 64, 96))
    for name, shape in model.output_shape().items():
        assert features[name].shape == (2, shape.channels, 64 // shape.stride, 96 // shape.stride)
    channels = [shape.channels for shape in model.output_shape().values()]
    assert channels == [16, 16, 32, 64, 128]


@pytest.mark.parametrize("in_1x1", [True, False])
def test_where_the_stride_is(in_1x1):
    block = BottleneckBlock(8, 16, bottleneck_channels=4, stride=2, stride_in_1x1=in_1x1)
    assert (block.conv1.stride[0], block.conv2.stride[0]) == ((2, 1) if in_1x1 else (1, 2))
    assert block(torch.zeros(1, 8, 8, 8)).shape == (1, 16, 4, 4)


def test_block_by_hand():
    """With unit weights: relu(2 * (x + x) summed over a 3 x 3 neighbourhood, twice) + x for one channel."""
    block = BasicBlock(1, 1, norm="")
    assert block.shortcut is None
    nn.init.zeros_(block.conv1.weight)
    nn.init.zeros_(block.conv2.weight)
    with torch.no_grad():
        block.conv1.weight[0, 0, 1, 1] = 2.0
        block.conv2.weight[0, 0, 1, 1] = -3.0
    x = torch.tensor([[[[1.0, -1.0]]]])
    # 1: relu(2) = 2, times -3 = -6, plus 1 = -5, relu 0. -1: relu(-2) = 0, plus -1, relu 0.
    assert block(x).tolist() == [[[[0.0, 0.0]]]]
    with torch.no_grad():
        block.conv2.weight[0, 0, 1, 1] = 3.0
    assert block(x).tolist() == [[[[7.0, 0.0]]]]


def test_dilation_keeps_the_resolution(tiny_cfg):
    bottleneck = [RES + "DEPTH", 50, RES + "WIDTH_PER_GROUP", 4]
    model = _build(tiny_cfg(*bottleneck, RES + "RES5_DILATION", 2, *ALL))
    assert model.output_shape()["res5"].stride == 16
    assert model.res5[0].conv2.dilation == (2, 2)
    assert model(torch.zeros(1, 3, 64, 64))["res5"].shape[-1] == 4


def test_groups(tiny_cfg):
    model = _build(tiny_cfg(RES + "DEPTH", 50, RES + "WIDTH_PER_GROUP", 2, RES + "NUM_GROUPS", 8, *ALL))
    assert model.res2[0].conv2.groups == 8
    assert model.res2[0].conv2.out_channels == 16
    assert model.res3[0].conv2.out_channels == 32


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3])
def test_freezing(tiny_cfg, freeze_at):
    model = _build(tiny_cfg(RES + "NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", freeze_at, *ALL))
    parts = [model.stem, model.res2, model.res3, model.res4, model.res5]
    for number, part in enumerate(parts, start=1):
        is_frozen = number <= freeze_at
        assert all(parameter.requires_grad != is_frozen for parameter in part.parameters())
        assert any(isinstance(module, FrozenBatchNorm2d) for module in part.modules()) == is_frozen
        assert any(isinstance(module, nn.BatchNorm2d) for module in part.modules()) != is_frozen


@pytest.mark.parametrize("modulated", [False, True])
def test_untrained_deformable_block_is_a_plain_one(modulated):
    """Offsets start at 0; version 2 also weights each point by sigmoid(0), one half."""
    torch.manual_seed(0)
    options = {"bottleneck_channels": 8, "num_groups": 2, "dilation": 2, "stride": 2, "norm": ""}
    block = DeformBottleneckBlock(
        4, 16, **options, deform_modulated=modulated, deform_num_groups=2 if modulated else 1
    )
    plain = BottleneckBlock(4, 16, **options)
    plain.load_state_dict(block.state_dict(), strict=False)
    if modulated:
        plain.conv2.weight.data /= 2
    x = torch.randn(2, 4, 16, 12)
    torch.testing.assert_close(block(x), plain(x))
    assert block.conv2_offset.out_channels == (54 if modulated else 18)
    keys = [key.removesuffix(".weight") for key in block.state_dict() if key.endswith(".weight")]
    assert keys == ["shortcut", "conv1", "conv2_offset", "conv2", "conv3"]
    block(x).sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


def test_modulated_block_by_hand():
    """One channel; every point looks one cell to the right with weight sigmoid(0) = 1/2."""
    block = DeformBottleneckBlock(1, 1, bottleneck_channels=1, norm="", deform_modulated=True)
    for conv in (block.conv1, block.conv2, block.conv3):
        nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1.0
    block.conv2_offset.bias.data[1:18:2] = 1.0  # dx of each point
    x = torch.tensor([[[[2.0, 6.0, 4.0]]]])
    assert block(x).tolist() == [[[[5.0, 8.0, 4.0]]]]  # 2 + 6/2, 6 + 4/2, 4 + 0


def test_deformable_stages(tiny_cfg):
    bottleneck = [RES + "DEPTH", 50, RES + "WIDTH_PER_GROUP", 4, RES + "NUM_GROUPS", 2]
    deformable = [RES + "DEFORM_ON_PER_STAGE", [False, True, False, True], RES + "DEFORM_MODULATED", True]
    model = _build(tiny_cfg(*bottleneck, *deformable, RES + "DEFORM_NUM_GROUPS", 4, *ALL))
    kinds = [type(stage[-1]) for stage in model.stages]
    assert kinds == [BottleneckBlock, DeformBottleneckBlock, BottleneckBlock, DeformBottleneckBlock]
    conv = model.res5[0].conv2
    assert isinstance(conv, ModulatedDeformConv)
    assert (conv.groups, conv.deformable_groups, conv.stride) == (2, 4, (1, 1))
    assert model(torch.zeros(1, 3, 64, 64))["res5"].shape[-1] == 2


def test_stages_behind_the_last_feature_are_not_built(tiny_cfg):
    model = _build(tiny_cfg(RES + "OUT_FEATURES", ["res3"]))
    assert model.stage_names == ("res2", "res3")
    assert not hasattr(model, "res4")
    assert list(model(torch.zeros(1, 3, 32, 32))) == ["res3"]


def test_classifier():
    stages = ResNet.make_default_stages(18, norm="BN")
    model = ResNet(BasicStem(), stages, num_classes=7)
    assert model(torch.zeros(2, 3, 32, 32))["linear"].shape == (2, 7)
    assert [blocks[0].stride for blocks in stages] == [1, 2, 2, 2]
    assert ResNet.make_default_stages(50)[3][0].conv2.out_channels == 512


def test_make_stage():
    blocks = make_stage(BasicBlock, 3, in_channels=4, out_channels=8, stride_per_block=[2, 1, 1], norm="")
    assert [(block.in_channels, block.out_channels, block.stride) for block in blocks] == [
        (4, 8, 2),
        (8, 8, 1),
        (8, 8, 1),
    ]


def test_initialisation():
    """MSRA, fan out: standard deviation sqrt(2 / (out channels * kernel area))."""
    torch.manual_seed(0)
    block = BottleneckBlock(64, 256, bottleneck_channels=64, norm="")
    for conv in (block.conv1, block.conv2, block.conv3, block.shortcut):
        expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert abs(conv.weight.std().item() / expected - 1) < 0.05
        assert conv.bias is None


@pytest.mark.parametrize(
    "opts, message",
    [
        ([RES + "DEPTH", 20], "DEPTH: 20: allowed"),
        ([RES + "OUT_FEATURES", ["res6"]], "OUT_FEATURES"),
        ([RES + "OUT_FEATURES", []], "OUT_FEATURES"),
        ([RES + "NUM_GROUPS", 2], "neither groups nor dilation"),
        ([RES + "RES5_DILATION", 2], "neither groups nor dilation"),
        ([RES + "DEPTH", 50, RES + "RES5_DILATION", 4], "RES5_DILATION: 4"),
        ([RES + "DEFORM_ON_PER_STAGE", [True] * 4], "nor deformable"),
        ([RES + "DEPTH", 50, RES + "DEFORM_ON_PER_STAGE", [True] * 3], "one entry is needed for each"),
        (
            [RES + "DEPTH", 50, RES + "DEFORM_ON_PER_STAGE", [True] * 4, RES + "DEFORM_NUM_GROUPS", 3],
            "does not divide",
        ),
    ],
)
def test_bad_settings(tiny_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        _build(tiny_cfg(*opts))
