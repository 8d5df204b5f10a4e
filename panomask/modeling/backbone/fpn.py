"""Feature pyramid network (Lin et al. 2016, arXiv:1612.03144).

Shapes: N images, L levels; level p{i} has stride 2**i and is (N, C, Hi, Wi).
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.layers import Conv2d, ShapeSpec, get_norm, xavier_fill
from panomask.modeling.backbone.backbone import Backbone
from panomask.modeling.backbone.regnet import build_regnet_backbone
from panomask.modeling.backbone.resnet import build_resnet_backbone
from panomask.registry import BACKBONE_REGISTRY


class LastLevelMaxPool(nn.Module):
    """p6 of Mask R-CNN: every second cell of p5."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, C, H, W) -> [(N, C, H / 2, W / 2)]."""
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6(nn.Module):
    """One level more, by a 3 x 3 convolution of stride 2.

    Args:
        in_channels: of `in_feature`.
        out_channels: C.
        in_feature: name of the map below, of the bottom-up backbone or of the pyramid.
    """

    num_levels = 1

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5"):
        super().__init__()
        self.in_feature = in_feature
        self.p6 = _stride_2_conv(in_channels, out_channels)

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        """(N, in_channels, H, W) -> [(N, C, H / 2, W / 2)]."""
        return [self.p6(c5)]


class LastLevelP6P7(LastLevelP6):
    """p6 and p7 of RetinaNet (arXiv:1708.02002, section 4): p7 is made of p6, with a ReLU between them."""

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5"):
        super().__init__(in_channels, out_channels, in_feature)
        self.p7 = _stride_2_conv(out_channels, out_channels)

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        """(N, in_channels, H, W) -> [(N, C, H / 2, W / 2), (N, C, H / 4, W / 4)]."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


def _stride_2_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
    xavier_fill(conv)
    return conv


class FPN(Backbone):
    """Pyramid p2, p3, ... above a bottom-up backbone.

    A level is a lateral 1 x 1 convolution plus the coarser level at twice its size, then a 3 x 3 convolution.

    Args:
        bottom_up: backbone whose features double their stride from one to the next.
        in_features: names of its features to use, finest first.
        out_channels: C of every level.
        norm: norm behind each convolution ("" for none: the convolutions then have a bias).
        top_block: makes further levels on top from its `in_feature` (a pyramid level or a bottom-up feature);
            its `num_levels` says how many.
        fuse_type: "sum" or "avg" of the lateral and the top-down map.
        square_pad: if positive, images are padded to a square of this side.

    Raises:
        InputError: another `fuse_type`, or strides that do not double.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ):
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise InputError(f"MODEL.FPN.FUSE_TYPE: {fuse_type!r}: allowed are 'sum' and 'avg'")
        shapes = bottom_up.output_shape()
        _check_in_features(in_features, shapes)
        strides = [int(shapes[name].stride or 0) for name in in_features]
        _assert_strides_are_log2_contiguous(strides)
        levels = [int(math.log2(stride)) for stride in strides]

        lateral_convs, output_convs = [], []
        for level, name in zip(levels, in_features, strict=True):
            lateral = _pyramid_conv(shapes[name].channels or 0, out_channels, 1, norm)
            output = _pyramid_conv(out_channels, out_channels, 3, norm)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
            lateral_convs.append(lateral)
            output_convs.append(output)
        # Plain lists, coarsest first as the top-down path runs; the modules above own the weights.
        self.lateral_convs = lateral_convs[::-1]
        self.output_convs = output_convs[::-1]
        self.top_block = top_block
        self.in_features = tuple(in_features)
        self.bottom_up = bottom_up
        self._fuse_type = fuse_type
        self._square_pad = square_pad
        self._size_divisibility = strides[-1]

        num_top_levels = 0 if top_block is None else int(top_block.num_levels)  # type: ignore[arg-type]
        levels += range(levels[-1] + 1, levels[-1] + 1 + num_top_levels)
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = {name: out_channels for name in self._out_features}

    @property
    def size_divisibility(self) -> int:
        """The coarsest input's stride: levels are doubled exactly on the way down."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """`square_size`: the side of the square to pad to, 0 for no such wish."""
        return {"square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, 3, H, W) -> levels by name, finest first, each (N, C, Hi, Wi)."""
        bottom_up = self.bottom_up(x)
        levels: list[torch.Tensor] = []
        top_down = None
        convs = zip(self.in_features[::-1], self.lateral_convs, self.output_convs, strict=True)
        for name, lateral, output in convs:
            merged = lateral(bottom_up[name])
            if top_down is not None:
                merged = merged + F.interpolate(top_down, scale_factor=2.0, mode="nearest")
                if self._fuse_type == "avg":
                    merged = merged / 2
            top_down = merged
            levels.insert(0, output(merged))
        if self.top_block is not None:
            source = bottom_up.get(self.top_block.in_feature)  # type: ignore[arg-type]
            if source is None:
                source = levels[self._out_features.index(self.top_block.in_feature)]  # type: ignore[arg-type]
            levels.extend(self.top_block(source))
        return dict(zip(self._out_features, levels, strict=True))


def _pyramid_conv(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> Conv2d:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
    )
    xavier_fill(conv)
    return conv


def _check_in_features(in_features: Sequence[str], shapes: dict[str, ShapeSpec]) -> None:
    if not in_features or not set(in_features) <= set(shapes):
        raise InputError(
            f"MODEL.FPN.IN_FEATURES: {list(in_features)}: allowed are one or more of {list(shapes)}, the"
            " features that the bottom-up backbone returns (OUT_FEATURES of MODEL.RESNETS or MODEL.REGNET)"
        )


def _assert_strides_are_log2_contiguous(strides: Sequence[int]) -> None:
    """InputError unless each stride is twice the one before it."""
    if any(fine * 2 != coarse for fine, coarse in itertools.pairwise(strides)):
        raise InputError(
            f"MODEL.FPN.IN_FEATURES: strides {list(strides)}: each must be twice the one before it"
        )


def build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None = None) -> FPN:
    """MODEL.FPN above `bottom_up`, with the levels of `top_block` on top."""
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_rcnn_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """The pyramid of Faster and Mask R-CNN: p6 is p5, max-pooled."""
    return build_fpn(cfg, bottom_up, LastLevelMaxPool())


def build_retinanet_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """RetinaNet's: p6 and p7 by convolutions on the coarsest feature of the bottom-up backbone.

    A RetinaNet gets those of them that it reads: in data-parallel training every weight needs a gradient.
    """
    level, shape = _coarsest(cfg.MODEL.FPN.IN_FEATURES, bottom_up)
    count = 2
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        count = max((i for i in (1, 2) if f"p{level + i}" in cfg.MODEL.RETINANET.IN_FEATURES), default=0)
    name = cfg.MODEL.FPN.IN_FEATURES[-1]
    return build_fpn(cfg, bottom_up, _top_block(count, shape.channels or 0, cfg.MODEL.FPN.OUT_CHANNELS, name))


def build_fcos_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """FCOS's: MODEL.FCOS.TOP_LEVELS levels by convolutions on the coarsest level of the pyramid.

    Raises:
        InputError: an FCOS that does not read the last of them.
    """
    level, _ = _coarsest(cfg.MODEL.FPN.IN_FEATURES, bottom_up)
    count, channels = cfg.MODEL.FCOS.TOP_LEVELS, cfg.MODEL.FPN.OUT_CHANNELS
    names = cfg.MODEL.FCOS.IN_FEATURES
    if cfg.MODEL.META_ARCHITECTURE == "FCOS" and count > 0 and f"p{level + count}" not in names:
        raise InputError(
            f"MODEL.FCOS.TOP_LEVELS is {count}, but p{level + count}, the last of these levels, is not in"
            f" MODEL.FCOS.IN_FEATURES {list(names)}; lower the one, or name it in the other"
        )
    return build_fpn(cfg, bottom_up, _top_block(count, channels, channels, f"p{level}"))


def _coarsest(in_features: Sequence[str], bottom_up: Backbone) -> tuple[int, ShapeSpec]:
    """The last of the features that a pyramid is built on: its level there, and its shape."""
    shapes = bottom_up.output_shape()
    _check_in_features(in_features, shapes)
    shape = shapes[in_features[-1]]
    return int(math.log2(shape.stride or 1)), shape


def _top_block(count: int, in_channels: int, out_channels: int, in_feature: str) -> nn.Module | None:
    kinds: list[type[LastLevelP6]] = [LastLevelP6, LastLevelP6P7]
    return kinds[count - 1](in_channels, out_channels, in_feature) if count > 0 else None


PYRAMIDS: dict[str, Callable[[CfgNode, Backbone], FPN]] = {
    "RetinaNet": build_retinanet_fpn,
    "FCOS": build_fcos_fpn,
}
"""MODEL.META_ARCHITECTURE -> how its pyramid is built where MODEL.BACKBONE.NAME names the bottom-up backbone
alone; `build_rcnn_fpn` for all others. Projects add theirs."""


def build_pyramid(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """The pyramid that MODEL.META_ARCHITECTURE needs (`PYRAMIDS`)."""
    return PYRAMIDS.get(cfg.MODEL.META_ARCHITECTURE, build_rcnn_fpn)(cfg, bottom_up)


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet with `build_rcnn_fpn`."""
    return build_rcnn_fpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet with `build_retinanet_fpn`."""
    return build_retinanet_fpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_fcos_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet with `build_fcos_fpn`."""
    return build_fcos_fpn(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_regnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """RegNet with `build_pyramid`."""
    return build_pyramid(cfg, build_regnet_backbone(cfg, input_shape))
