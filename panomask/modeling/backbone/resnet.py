"""ResNet and ResNeXt (He et al. 2015, arXiv:1512.03385; Xie et al. 2016, arXiv:1611.05431).

Shapes: N images, C channels, H x W pixels in, Hi x Wi cells out at stride i.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm, msra_fill
from panomask.modeling.backbone.backbone import Backbone
from panomask.registry import BACKBONE_REGISTRY

ResNetBlockBase = CNNBlockBase

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth -> number of blocks in res2, res3, res4, res5 (arXiv:1512.03385, table 1)."""


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: Any, **kwargs: Any) -> Conv2d:
    """A bias-free convolution of odd size with "same" padding, followed by `norm`; MSRA initialisation."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2 * kwargs.get("dilation", 1),
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )
    msra_fill(conv)
    return conv


class BasicBlock(CNNBlockBase):
    """Two 3 x 3 convolutions and a shortcut: the block of ResNet-18 and ResNet-34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Any = "BN"):
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        residual = self.conv2(F.relu_(self.conv1(x)))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual + shortcut)


class BottleneckBlock(CNNBlockBase):
    """1 x 1, 3 x 3 and 1 x 1 convolution and a shortcut: the block of ResNet-50 and deeper.

    `stride_in_1x1` puts the stride on the first convolution (the original weights from MSRA), else it is on
    the 3 x 3 (torchvision, ResNeXt). `num_groups` and `dilation` belong to the 3 x 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Any = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=stride_3x3,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        residual = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual + shortcut)


class BasicStem(CNNBlockBase):
    """A 7 x 7 convolution of stride 2 and a 3 x 3 max pool of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Any = "BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


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
        InputError: an unknown depth or feature, a dilation other than 1 or 2, or a setting that the basic
            block of depth 18 and 34 does not have.
    """
    res = cfg.MODEL.RESNETS
    depth, dilation = res.DEPTH, res.RES5_DILATION
    stage_sizes = blocks_per_stage(depth)
    is_basic = depth < 50
    if dilation not in (1, 2):
        raise InputError(f"MODEL.RESNETS.RES5_DILATION: {dilation}: allowed are 1 and 2")
    if is_basic and (dilation, res.NUM_GROUPS) != (1, 1):
        raise InputError(
            f"MODEL.RESNETS.DEPTH: {depth} has neither groups nor dilation; NUM_GROUPS and RES5_DILATION must"
            f" be 1, not {res.NUM_GROUPS} and {dilation}"
        )

    stem = BasicStem(input_shape.channels or 3, res.STEM_OUT_CHANNELS, res.NORM)
    in_channels, out_channels = res.STEM_OUT_CHANNELS, res.RES2_OUT_CHANNELS
    bottleneck_channels = res.NUM_GROUPS * res.WIDTH_PER_GROUP
    stages = []
    for number, num_blocks in enumerate(stage_sizes, start=2):
        stage_dilation = dilation if number == 5 else 1
        stride = 1 if number == 2 or stage_dilation == 2 else 2  # dilation takes the place of the stride
        arguments: dict[str, Any] = {"stride_per_block": [stride] + [1] * (num_blocks - 1), "norm": res.NORM}
        if not is_basic:
            arguments.update(
                bottleneck_channels=bottleneck_channels,
                num_groups=res.NUM_GROUPS,
                stride_in_1x1=res.STRIDE_IN_1X1,
                dilation=stage_dilation,
            )
        block_class = BasicBlock if is_basic else BottleneckBlock
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        stages.append(make_stage(block_class, num_blocks, **channels, **arguments))
        in_channels, out_channels = out_channels, 2 * out_channels
        bottleneck_channels *= 2
    return ResNet(stem, stages, out_features=res.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
