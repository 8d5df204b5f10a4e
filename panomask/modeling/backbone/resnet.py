"""ResNet and ResNeXt (He et al. 2015, arXiv:1512.03385; Xie et al. 2016, arXiv:1611.05431).

Shapes: N images, C channels, H x W pixels in, Hi x Wi cells out at stride i.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.layers import CNNBlockBase, ShapeSpec
from panomask.modeling.backbone.backbone import Backbone
from panomask.modeling.backbone.resnet_blocks import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    ResNetBlockBase,
)
from panomask.registry import BACKBONE_REGISTRY

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "make_stage",
]

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth -> number of blocks in res2, res3, res4, res5 (arXiv:1512.03385, table 1)."""


class ResNet(Backbone):
    """A stem and stages res2, res3, ...; features by the names in `out_features`.

    Args:
        stem: a `CNNBlockBase`; its output is feature "stem".
        stages: the blocks of res2, res3, ...; stages behind the last wanted feature are not built.
        num_classes: adds average pooling and a linear classifier (feature "linear").
        out_features: default: the last one.
        freeze_at: see `freeze`.

    Raises:
        InputError: an entry of `out_features` is none of the network's features.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ):
        super().__init__()
        names = [f"res{number}" for number in range(2, 2 + len(stages))]
        known = ["stem", *names] + ([] if num_classes is None else ["linear"])
        wanted = list(known[-1:] if out_features is None else out_features)
        if not wanted or not set(wanted) <= set(known):
            raise InputError(f"MODEL.RESNETS.OUT_FEATURES: {wanted}: allowed are one or more of {known}")
        if "linear" not in wanted and num_classes is None:
            names = names[: max((names.index(name) + 1 for name in wanted if name in names), default=0)]

        self.stem = stem
        self.num_classes = num_classes
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        stride = stem.stride
        for name, blocks in zip(names, stages[: len(names)], strict=True):
            self.add_module(name, nn.Sequential(*blocks))
            for block in blocks:
                stride *= block.stride
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = blocks[-1].out_channels
        self.stage_names = tuple(names)
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.linear = nn.Linear(self._out_feature_channels[known[-2]], num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)
        self._out_features = wanted
        self.freeze(freeze_at)

    @property
    def stages(self) -> list[nn.Sequential]:
        """The stages in order, each a sequence of blocks."""
        return [getattr(self, name) for name in self.stage_names]

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W) -> the features of `out_features`, each (N, Ci, Hi, Wi); "linear" is (N, K)."""
        features = {"stem": self.stem(x)}
        x = features["stem"]
        for name, stage in zip(self.stage_names, self.stages, strict=True):
            x = features[name] = stage(x)
        if self.num_classes is not None:
            features["linear"] = self.linear(self.avgpool(x).flatten(1))
        return {name: features[name] for name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature ("linear": neither)."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels.get(name), stride=self._out_feature_strides.get(name)
            )
            for name in self._out_features
        }

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Stop training the first `freeze_at` parts: 1 is the stem, 2 the stem and res2, and so on.

        Their parameters need no gradient and their batch norms become `FrozenBatchNorm2d`.
        """
        if freeze_at >= 1:
            self.stem.freeze()
        for stage in self.stages[: max(freeze_at - 1, 0)]:
            for block in stage:
                assert isinstance(block, CNNBlockBase), type(block)
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """`num_blocks` blocks of one kind, the first with `in_channels` inputs.

        A keyword `xxx_per_block=[...]` gives each block its own `xxx`; any other keyword goes to all of them.
        """
        blocks = []
        for block_idx in range(num_blocks):
            arguments = {}
            for key, value in kwargs.items():
                if key.endswith("_per_block"):
                    assert len(value) == num_blocks, f"{key} has {len(value)} entries for {num_blocks} blocks"
                    key, value = key.removesuffix("_per_block"), value[block_idx]
                assert key not in arguments, f"{key} is given twice, per block and for all"
                arguments[key] = value
            blocks.append(block_class(in_channels, out_channels, **arguments))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Stages res2 to res5 of the published ResNet of this depth; `kwargs` go to every block."""
        is_basic = depth < 50
        if block_class is None:
            block_class = BasicBlock if is_basic else BottleneckBlock
        stages = []
        in_channels, out_channels = 64, 64 if is_basic else 256
        for stage_idx, num_blocks in enumerate(blocks_per_stage(depth)):
            width = {} if is_basic else {"bottleneck_channels": out_channels // 4}
            stages.append(
                ResNet.make_stage(
                    block_class,
                    num_blocks,
                    in_channels=in_channels,
                    out_channels=out_channels,
                    stride_per_block=[1 if stage_idx == 0 else 2] + [1] * (num_blocks - 1),
                    **{**width, **kwargs},
                )
            )
            in_channels, out_channels = out_channels, 2 * out_channels
        return stages


make_stage = ResNet.make_stage


def blocks_per_stage(depth: int) -> tuple[int, ...]:
    """Number of blocks in res2 to res5; InputError for a depth that was never published."""
    if depth not in BLOCKS_PER_STAGE:
        raise InputError(f"MODEL.RESNETS.DEPTH: {depth}: allowed are {sorted(BLOCKS_PER_STAGE)}")
    return BLOCKS_PER_STAGE[depth]


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """The ResNet of MODEL.RESNETS, frozen up to MODEL.BACKBONE.FREEZE_AT.

    Raises:
        InputError: an unknown depth or feature, a dilation other than 1 or 2, a setting that the basic block
            of depth 18 and 34 does not have, or groups that do not divide the channels.
    """
    res = cfg.MODEL.RESNETS
    stage_sizes = blocks_per_stage(res.DEPTH)
    is_basic = res.DEPTH < 50
    _check_resnet(res)
    stem = BasicStem(input_shape.channels or 3, res.STEM_OUT_CHANNELS, res.NORM)
    in_channels, out_channels = res.STEM_OUT_CHANNELS, res.RES2_OUT_CHANNELS
    bottleneck_channels = res.NUM_GROUPS * res.WIDTH_PER_GROUP
    stages = []
    for number, (num_blocks, is_deformable) in enumerate(
        zip(stage_sizes, res.DEFORM_ON_PER_STAGE, strict=True), start=2
    ):
        dilation = res.RES5_DILATION if number == 5 else 1
        stride = 1 if number == 2 or dilation == 2 else 2  # dilation takes the place of the stride
        arguments: dict[str, Any] = {"stride_per_block": [stride] + [1] * (num_blocks - 1), "norm": res.NORM}
        block_class: type[CNNBlockBase] = BasicBlock
        if not is_basic:
            block_class = BottleneckBlock
            arguments.update(
                bottleneck_channels=bottleneck_channels,
                num_groups=res.NUM_GROUPS,
                stride_in_1x1=res.STRIDE_IN_1X1,
                dilation=dilation,
            )
        if is_deformable:
            block_class = DeformBottleneckBlock
            arguments.update(deform_modulated=res.DEFORM_MODULATED, deform_num_groups=res.DEFORM_NUM_GROUPS)
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        stages.append(make_stage(block_class, num_blocks, **channels, **arguments))
        in_channels, out_channels = out_channels, 2 * out_channels
        bottleneck_channels *= 2
    return ResNet(stem, stages, out_features=res.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


def _check_resnet(res: CfgNode) -> None:
    """InputError for settings of MODEL.RESNETS that no block has, or that do not fit one another."""
    if res.RES5_DILATION not in (1, 2):
        raise InputError(f"MODEL.RESNETS.RES5_DILATION: {res.RES5_DILATION}: allowed are 1 and 2")
    deformable = list(res.DEFORM_ON_PER_STAGE)
    if len(deformable) != 4:
        raise InputError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE: {deformable}: one entry is needed for each of res2, res3,"
            " res4 and res5"
        )
    if res.DEPTH < 50 and (res.RES5_DILATION, res.NUM_GROUPS, any(deformable)) != (1, 1, False):
        raise InputError(
            f"MODEL.RESNETS.DEPTH: {res.DEPTH} has neither groups nor dilation nor deformable convolution;"
            f" NUM_GROUPS and RES5_DILATION must be 1 and DEFORM_ON_PER_STAGE all False, not"
            f" {res.NUM_GROUPS}, {res.RES5_DILATION} and {deformable}"
        )
    width = res.NUM_GROUPS * res.WIDTH_PER_GROUP
    if any(deformable) and width % res.DEFORM_NUM_GROUPS:
        raise InputError(
            f"MODEL.RESNETS.DEFORM_NUM_GROUPS: {res.DEFORM_NUM_GROUPS} does not divide the {width} channels"
            " of a block's 3 x 3 convolution (NUM_GROUPS * WIDTH_PER_GROUP)"
        )
