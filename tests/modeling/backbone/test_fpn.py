"""FPN: names, shapes, and the top-down path by hand."""

import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling import FPN, Backbone, build_backbone
from panomask.modeling.backbone import LastLevelMaxPool, LastLevelP6, LastLevelP6P7, select_features


class _TwoScales(Backbone):
    """The image's mean colour at strides 4 and 8, with 1 and 2 channels."""

    def __init__(self, strides: tuple[int, int] = (4, 8)):
        super().__init__()
        self._out_features = ["fine", "coarse"]
        self._out_feature_channels = {"fine": 1, "coarse": 2}
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        gray = x.mean(dim=1, keepdim=True)
        fine, coarse = nn.functional.avg_pool2d(gray, 4), nn.functional.avg_pool2d(gray, 8)
        return {"fine": fine, "coarse": coarse.expand(-1, 2, -1, -1)}


def _identity_fpn(fuse_type: str) -> FPN:
    """Lateral convolutions add up their channels, output convolutions do nothing."""
    fpn = FPN(_TwoScales(), ["fine", "coarse"], 1, fuse_type=fuse_type)
    for name, parameter in fpn.named_parameters():
        nn.init.constant_(parameter, 1.0 if "lateral" in name and "weight" in name else 0.0)
    with torch.no_grad():
        fpn.fpn_output2.weight[0, 0, 1, 1] = fpn.fpn_output3.weight[0, 0, 1, 1] = 1.0
    return fpn


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_top_down_by_hand(fuse_type):
    """An image of 1 and 3: fine 1, 1, 3, 3 a row; coarse 1 + 1, 3 + 3, and 8 by its lateral's bias."""
    image = torch.ones(1, 3, 8, 16)
    image[..., 8:] = 3.0
    fpn = _identity_fpn(fuse_type)
    with torch.no_grad():
        fpn.fpn_lateral3.bias.fill_(8.0)
    levels = fpn(image)
    assert list(levels) == ["p2", "p3"]
    assert levels["p3"].flatten().tolist() == [10.0, 14.0]
    expected = [1 + 10, 1 + 10, 3 + 14, 3 + 14]
    scale = 2 if fuse_type == "avg" else 1
    assert levels["p2"][0, 0, 0].tolist() == [value / scale for value in expected]
    assert torch.equal(levels["p2"][0, 0, 0], levels["p2"][0, 0, 1])


def test_built_from_config(tiny_cfg):
    fpn = build_backbone(tiny_cfg())
    levels = fpn(torch.randn(2, 3, 64, 96))
    assert fpn.output_shape() == {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in range(2, 7)}
    for name, level in levels.items():
        stride = fpn.output_shape()[name].stride
        assert level.shape == (2, 16, 64 // stride, -(-96 // stride))
    assert torch.equal(levels["p6"], levels["p5"][:, :, ::2, ::2])
    assert fpn.size_divisibility == 32
    assert fpn.padding_constraints == {"square_size": 0}


def test_norm_takes_the_place_of_the_bias():
    plain = FPN(_TwoScales(), ["fine", "coarse"], 32)
    assert [name for name, _ in plain.named_parameters()][:2] == ["fpn_lateral2.weight", "fpn_lateral2.bias"]
    assert not plain.fpn_output2.bias.any()
    normed = FPN(_TwoScales(), ["fine", "coarse"], 32, norm="GN")
    names = [name for name, _ in normed.named_parameters()][:3]
    assert names == ["fpn_lateral2.weight", "fpn_lateral2.norm.weight", "fpn_lateral2.norm.bias"]


def test_top_block_from_the_bottom_up():
    class _FromCoarse(nn.Module):
        num_levels = 2
        in_feature = "coarse"

        def forward(self, x):
            return [x[:, :1] + 1, x[:, :1] + 2]

    fpn = FPN(_TwoScales(), ["fine", "coarse"], 1, top_block=_FromCoarse())
    levels = fpn(torch.zeros(1, 3, 8, 8))
    assert list(levels) == ["p2", "p3", "p4", "p5"]
    assert (levels["p4"].item(), levels["p5"].item()) == (1.0, 2.0)
    assert fpn.output_shape()["p5"].stride == 32
    assert LastLevelMaxPool.in_feature == "p5"


def test_bad_settings():
    with pytest.raises(InputError, match="FUSE_TYPE"):
        FPN(_TwoScales(), ["fine", "coarse"], 1, fuse_type="max")
    with pytest.raises(InputError, match=r"IN_FEATURES.*allowed are one or more of \['fine', 'coarse'\]"):
        FPN(_TwoScales(), ["fine", "res5"], 1)
    with pytest.raises(InputError, match="twice the one before"):
        FPN(_TwoScales((4, 16)), ["fine", "coarse"], 1)


def test_p6_and_p7_by_hand():
    """3 x 3 convolutions of stride 2 that add up what they see: 4, 6, 9 cells of an even map's corners."""
    for block, expected in (
        (LastLevelP6(1, 1, "p5"), [[-9.0]]),
        (LastLevelP6P7(1, 1, "p5"), [[-9.0], [0.0]]),
    ):
        for parameter in block.parameters():
            nn.init.constant_(parameter, 1.0 if parameter.dim() == 4 else 0.0)
        levels = block(torch.full((1, 1, 4, 4), -1.0))
        assert [level[0, 0, -1, -1:].tolist() for level in levels] == expected  # p7 sees p6 after a ReLU
        assert [level.shape[-1] for level in levels] == [2, 1][: block.num_levels]
        assert block.in_feature == "p5"


RESNET = """MODEL.RESNETS.DEPTH 18  MODEL.RESNETS.RES2_OUT_CHANNELS 16  MODEL.FPN.OUT_CHANNELS 8
    MODEL.RESNETS.OUT_FEATURES ["res3","res4","res5"]  MODEL.FPN.IN_FEATURES ["res3","res4","res5"]""".split()
REGNET = """MODEL.REGNET.OUT_FEATURES ["s2","s3","s4"]  MODEL.FPN.IN_FEATURES ["s2","s3","s4"]
    MODEL.REGNET.W_0 16  MODEL.REGNET.W_A 16.0  MODEL.REGNET.GROUP_WIDTH 8
    MODEL.FPN.OUT_CHANNELS 8""".split()


@pytest.mark.parametrize(
    ("model", "backbone", "opts"),
    [
        ("RetinaNet", "build_retinanet_resnet_fpn_backbone", RESNET),
        ("FCOS", "build_fcos_resnet_fpn_backbone", RESNET),
        ("RetinaNet", "build_regnet_fpn_backbone", REGNET),
        ("FCOS", "build_regnet_fpn_backbone", REGNET),
        ("RetinaNet", "timm/test_resnet", RESNET),
        ("FCOS", "timm/test_resnet", RESNET),
    ],
)
def test_pyramids_of_one_stage_detectors(zoo_cfg, model, backbone, opts):
    if backbone.startswith("timm"):
        pytest.importorskip("timm")
    cfg = zoo_cfg(
        "Base-RCNN-FPN.yaml", "MODEL.META_ARCHITECTURE", model, "MODEL.BACKBONE.NAME", backbone, *opts
    )
    fpn = build_backbone(cfg)
    levels = fpn(torch.randn(1, 3, 128, 192))
    sizes = {f"p{i}": (1, 8, 128 // 2**i, -(-192 // 2**i)) for i in range(3, 8)}
    assert {name: tuple(level.shape) for name, level in levels.items()} == sizes
    shapes = fpn.bottom_up.output_shape()
    coarsest = cfg.MODEL.FPN.IN_FEATURES[-1]
    assert fpn.top_block.in_feature == ("p5" if model == "FCOS" else coarsest)
    assert fpn.top_block.p6.in_channels == (8 if model == "FCOS" else shapes[coarsest].channels)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_top_levels_of_fcos(zoo_cfg, count):
    opts = ("MODEL.BACKBONE.NAME", "build_fcos_resnet_fpn_backbone", "MODEL.FCOS.TOP_LEVELS", count)
    fpn = build_backbone(zoo_cfg("Base-RCNN-FPN.yaml", *RESNET, *opts))
    assert list(fpn.output_shape()) == ["p3", "p4", "p5", "p6", "p7"][: 3 + count]
    if count < 2:
        return
    opts += ("MODEL.META_ARCHITECTURE", "FCOS", "MODEL.FCOS.IN_FEATURES", ["p3", "p4", "p5", "p6"])
    with pytest.raises(InputError, match=r"TOP_LEVELS is 2, but p7, .* is not in MODEL\.FCOS\.IN_FEATURES"):
        build_backbone(zoo_cfg("Base-RCNN-FPN.yaml", *RESNET, *opts))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_top_levels_of_retinanet_are_those_that_it_reads(zoo_cfg, count):
    """A level that nobody reads would have weights without a gradient, which several processes refuse."""
    levels = ["p3", "p4", "p5", "p6", "p7"][: 3 + count]
    opts = ("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.RETINANET.IN_FEATURES", levels)
    name = ("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone")
    assert list(build_backbone(zoo_cfg("Base-RCNN-FPN.yaml", *RESNET, *name, *opts)).output_shape()) == levels


def test_selected_features(tiny_cfg):
    fpn = build_backbone(tiny_cfg())
    assert [shape.stride for shape in select_features(fpn, ["p2", "p4"], "KEY")] == [4, 16]
    for names in (["p4", "p2"], ["p2", "p2", "p3"]):
        with pytest.raises(InputError, match=r"KEY: .*: name each level once, the finest first"):
            select_features(fpn, names, "KEY")
    for names in (["p2", "p9"], []):
        with pytest.raises(InputError, match=r"KEY: .*: allowed are one or more of \['p2', .*'p6'\]"):
            select_features(fpn, names, "KEY")
