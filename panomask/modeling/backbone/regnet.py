"""RegNetX and RegNetY (Radosavovic et al. 2020, arXiv:2003.13678).

Shapes: N images, C channels, H x W pixels in, Hi x Wi cells out at stride i. Module names are those of the
published weights (pycls): stage s1 has blocks b1, b2, ...
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.layers import CNNBlockBase, ShapeSpec
from panomask.modeling.backbone.backbone import Backbone
from panomask.modeling.backbone.regnet_blocks import (
    SE,
    Activation,
    BasicTransform,
    BottleneckTransform,
    ResBasicBlock,
    ResBottleneckBlock,
    ResStem,
    SimpleStem,
    VanillaBlock,
    conv2d,
    gap2d,
    init_weights,
    pool2d,
    run_chain,
)
from panomask.registry import BACKBONE_REGISTRY

__all__ = [
    "SE",
    "AnyNet",
    "AnyStage",
    "BasicTransform",
    "BottleneckTransform",
    "RegNet",
    "ResBasicBlock",
    "ResBottleneckBlock",
    "ResStem",
    "SimpleStem",
    "VanillaBlock",
    "adjust_block_compatibility",
    "build_regnet_backbone",
    "conv2d",
    "gap2d",
    "generate_regnet_parameters",
    "init_weights",
    "pool2d",
]


class AnyStage(nn.Module):
    """`d` blocks b1, b2, ...; the first changes width and resolution."""

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        d: int,
        block_class: Callable[..., CNNBlockBase],
        norm: Any,
        activation_class: Activation,
        params: dict[str, Any],
    ):
        super().__init__()
        for number in range(1, d + 1):
            block = block_class(w_in, w_out, stride, norm, activation_class, params)
            self.add_module(f"b{number}", block)
            w_in, stride = w_out, 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        return run_chain(x, *self.children())


class AnyNet(Backbone):
    """A stem and stages s1, s2, ...; features "stem", "s1", ... by the names in `out_features`.

    Args:
        stem_class, stem_width: the stem and its channels.
        block_class: the block of all stages.
        depths, widths, group_widths, strides, bottleneck_ratios: one entry for each stage.
        se_ratio: see `BottleneckTransform`.
        activation_class: makes an activation.
        freeze_at: see `freeze`.
        norm: see `get_norm`.
        out_features: default: the last one.

    Raises:
        InputError: an entry of `out_features` is none of the network's features.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., CNNBlockBase],
        depths: Sequence[int],
        widths: Sequence[int],
        group_widths: Sequence[int],
        strides: Sequence[int],
        bottleneck_ratios: Sequence[float],
        se_ratio: float,
        activation_class: Activation,
        freeze_at: int = 0,
        norm: Any = "BN",
        out_features: Sequence[str] | None = None,
    ):
        super().__init__()
        self.stem = stem_class(3, stem_width, norm, activation_class)
        names = [f"s{number}" for number in range(1, len(depths) + 1)]
        known = ["stem", *names]
        self._out_features = list(known[-1:] if out_features is None else out_features)
        if not self._out_features or not set(self._out_features) <= set(known):
            raise InputError(
                f"MODEL.REGNET.OUT_FEATURES: {self._out_features}: allowed are one or more of {known}"
            )
        self._out_feature_strides = {"stem": self.stem.stride}
        self._out_feature_channels = {"stem": self.stem.out_channels}
        self.stage_names = tuple(names)
        width, stride = stem_width, self.stem.stride
        per_stage = zip(names, depths, widths, strides, bottleneck_ratios, group_widths, strict=True)
        for name, depth, w_out, stage_stride, bot_mul, group_w in per_stage:
            params = {"bot_mul": bot_mul, "group_w": group_w, "se_r": se_ratio}
            stage = AnyStage(width, w_out, stage_stride, depth, block_class, norm, activation_class, params)
            self.add_module(name, stage)
            width, stride = w_out, stride * stage_stride
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = width
        self.apply(init_weights)
        self.freeze(freeze_at)

    @property
    def stages_and_names(self) -> list[tuple[nn.Module, str]]:
        """The stages in order, each with its name."""
        return [(getattr(self, name), name) for name in self.stage_names]

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, 3, H, W) -> the features of `out_features`, each (N, Ci, Hi, Wi)."""
        assert x.dim() == 4, x.shape
        x = self.stem(x)
        features = {"stem": x}
        for stage, name in self.stages_and_names:
            x = features[name] = stage(x)
        return {name: features[name] for name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "AnyNet":
        """Stop training the first `freeze_at` parts: 1 is the stem, 2 the stem and s1, and so on.

        Their parameters need no gradient and their batch norms become `FrozenBatchNorm2d`.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for stage, _ in self.stages_and_names[: max(freeze_at - 1, 0)]:
            for block in stage.children():
                assert isinstance(block, CNNBlockBase), type(block)
                block.freeze()
        return self


class RegNet(AnyNet):
    """An `AnyNet` whose widths follow section 3.3 of the paper; see `generate_regnet_parameters`.

    Args:
        stem_class, stem_width, block_class, se_ratio, freeze_at, norm, out_features: see `AnyNet`.
        depth, w_a, w_0, w_m: number of blocks and the three numbers that give their widths.
        group_width, stride, bottleneck_ratio: the same for all stages.
        activation_class: default: ReLU.
    """

    def __init__(
        self,
        *,
        stem_class: Callable[..., CNNBlockBase],
        stem_width: int,
        block_class: Callable[..., CNNBlockBase],
        depth: int,
        w_a: float,
        w_0: int,
        w_m: float,
        group_width: int,
        stride: int = 2,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0,
        activation_class: Activation | None = None,
        freeze_at: int = 0,
        norm: Any = "BN",
        out_features: Sequence[str] | None = None,
    ):
        widths, depths = generate_regnet_parameters(w_a, w_0, w_m, depth)[:2]
        ratios = [bottleneck_ratio] * len(widths)
        widths, ratios, group_widths = adjust_block_compatibility(widths, ratios, [group_width] * len(widths))
        super().__init__(
            stem_class=stem_class,
            stem_width=stem_width,
            block_class=block_class,
            depths=depths,
            widths=widths,
            group_widths=group_widths,
            strides=[stride] * len(widths),
            bottleneck_ratios=ratios,
            se_ratio=se_ratio,
            activation_class=activation_class or (lambda: nn.ReLU(inplace=True)),
            freeze_at=freeze_at,
            norm=norm,
            out_features=out_features,
        )


def generate_regnet_parameters(
    w_a: float, w_0: int, w_m: float, d: int, q: int = 8
) -> tuple[list[int], list[int], int, int]:
    """Widths and depths of a RegNet's stages (arXiv:2003.13678, equations 2 to 4).

    Block j of `d` would be w_0 + w_a j wide; it gets the nearest w_0 * w_m**k, k whole, rounded to a multiple
    of `q`. Blocks of one width form a stage.

    Returns:
        The width of each stage, its number of blocks, the number of stages, and the largest k plus 1.

    Raises:
        InputError: `w_a` negative, `w_0` not a positive multiple of `q`, or `w_m` not above 1.
    """
    if w_a < 0 or w_0 <= 0 or w_m <= 1 or w_0 % q:
        raise InputError(
            f"MODEL.REGNET: W_A {w_a}, W_0 {w_0}, W_M {w_m}: W_A must not be negative, W_0 a positive"
            f" multiple of {q}, and W_M above 1"
        )
    ks = np.round(np.log((np.arange(d) * w_a + w_0) / w_0) / np.log(w_m))
    widths, depths = np.unique(np.round(w_0 * np.power(w_m, ks) / q).astype(int) * q, return_counts=True)
    return widths.tolist(), depths.tolist(), len(widths), int(ks.max()) + 1


def adjust_block_compatibility(
    ws: Sequence[int], bs: Sequence[float], gs: Sequence[int]
) -> tuple[list[int], list[float], list[int]]:
    """Widths, bottleneck ratios and group widths of stages, changed as little as makes groups divide widths.

    A group is at most as wide as the bottleneck (w * b), which becomes a multiple of the group.

    Raises:
        InputError: a fractional ratio above 1 for which there is no such width.
    """
    assert len(ws) == len(bs) == len(gs), (ws, bs, gs)
    assert min(*ws, *bs, *gs) > 0, (ws, bs, gs)
    inner = [int(max(1, w * b)) for w, b in zip(ws, bs, strict=True)]
    groups = [int(min(g, v)) for g, v in zip(gs, inner, strict=True)]
    steps = [math.lcm(g, int(b)) if b > 1 else g for g, b in zip(groups, bs, strict=True)]
    inner = [max(step, int(round(v / step) * step)) for v, step in zip(inner, steps, strict=True)]
    widths = [int(v / b) for v, b in zip(inner, bs, strict=True)]
    if any(w * b % g for w, b, g in zip(widths, bs, groups, strict=True)):
        raise InputError(
            f"MODEL.REGNET: BOTTLENECK_RATIO {bs[0]} and GROUP_WIDTH {gs[0]}: the groups do not"
            " divide the widths; choose a ratio that is a whole number, or 1 over one"
        )
    return widths, list(bs), groups


_STEMS = {"SimpleStem": SimpleStem, "ResStem": ResStem}
_BLOCKS = {
    "ResBottleneckBlock": ResBottleneckBlock,
    "ResBasicBlock": ResBasicBlock,
    "VanillaBlock": VanillaBlock,
}


@BACKBONE_REGISTRY.register()
def build_regnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> RegNet:
    """The RegNet of MODEL.REGNET, frozen up to MODEL.BACKBONE.FREEZE_AT, for images of three channels."""
    net = cfg.MODEL.REGNET
    if input_shape.channels not in (None, 3):
        raise InputError(
            f"MODEL.PIXEL_MEAN has {input_shape.channels} channels, but a RegNet takes images of three"
        )
    return RegNet(
        stem_class=_STEMS[net.STEM],
        stem_width=net.STEM_WIDTH,
        block_class=_BLOCKS[net.BLOCK],
        depth=net.DEPTH,
        w_a=net.W_A,
        w_0=net.W_0,
        w_m=net.W_M,
        group_width=net.GROUP_WIDTH,
        bottleneck_ratio=net.BOTTLENECK_RATIO,
        se_ratio=net.SE_RATIO,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=net.NORM,
        out_features=net.OUT_FEATURES,
    )
