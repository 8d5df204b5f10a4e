"""The stem and the blocks of ResNet and ResNeXt (He et al. 2015, arXiv:1512.03385; Xie et al. 2016,
arXiv:1611.05431), with deformable convolution too (arXiv:1703.06211, arXiv:1811.11168).

Shapes: N images, C channels, H x W cells.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.layers import CNNBlockBase, Conv2d, DeformConv, ModulatedDeformConv, get_norm, msra_fill

ResNetBlockBase = CNNBlockBase


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
        # In place, here and below: of the largest maps there are, one fewer to allocate.
        return F.relu_(residual.add_(shortcut))


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
        return F.relu_(residual.add_(shortcut))


class DeformBottleneckBlock(CNNBlockBase):
    """`BottleneckBlock` whose 3 x 3 convolution is deformable, by offsets that another 3 x 3 predicts.

    `deform_modulated` chooses version 2, in which each sampling point also has a weight; offsets are
    predicted for each of `deform_num_groups` groups of channels. Other arguments as for `BottleneckBlock`.
    Untrained offsets are 0 (and untrained weights 1/2).
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
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ):
        super().__init__(in_channels, out_channels, stride)
        self.deform_modulated = deform_modulated
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, 1, norm, stride=stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        sampling: dict[str, Any] = {
            "kernel_size": 3,
            "stride": stride_3x3,
            "padding": dilation,
            "dilation": dilation,
        }
        numbers_per_point = 3 if deform_modulated else 2  # dy, dx and perhaps a weight
        self.conv2_offset = Conv2d(bottleneck_channels, numbers_per_point * 9 * deform_num_groups, **sampling)
        nn.init.zeros_(self.conv2_offset.weight)
        assert self.conv2_offset.bias is not None
        nn.init.zeros_(self.conv2_offset.bias)
        self.conv2: nn.Module = (ModulatedDeformConv if deform_modulated else DeformConv)(
            bottleneck_channels,
            bottleneck_channels,
            **sampling,
            groups=num_groups,
            deformable_groups=deform_num_groups,
            bias=False,
            norm=get_norm(norm, bottleneck_channels),
        )
        msra_fill(self.conv2)  # type: ignore[arg-type]
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        residual = F.relu_(self.conv1(x))
        sampling = self.conv2_offset(residual)  # (N, 2 G P or 3 G P, H', W')
        if self.deform_modulated:
            # Detectron2 speaks of x, y and mask, each a third; its operator reads the first two thirds as
            # pairs (dy, dx) all the same.
            num_weights = sampling.shape[1] // 3
            offset, weight = sampling.split([2 * num_weights, num_weights], dim=1)
            residual = self.conv2(residual, offset, weight.sigmoid())
        else:
            residual = self.conv2(residual, sampling)
        residual = self.conv3(F.relu_(residual))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(residual.add_(shortcut))


class BasicStem(CNNBlockBase):
    """A 7 x 7 convolution of stride 2 and a 3 x 3 max pool of stride 2."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Any = "BN"):
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)
