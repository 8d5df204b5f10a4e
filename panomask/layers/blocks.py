"""Blocks of convolutions: the base class of those in backbones, and the one that heads repeat."""

from typing import Any, TypeVar

from torch import nn

from panomask.layers.batch_norm import FrozenBatchNorm2d, get_norm
from panomask.layers.initialization import msra_fill
from panomask.layers.wrappers import Conv2d

BlockT = TypeVar("BlockT", bound="CNNBlockBase")


class CNNBlockBase(nn.Module):
    """A block with one input and one output feature map, which can be frozen.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: by how much the block shrinks height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self: BlockT) -> BlockT:
        """Stop training this block: no gradients, and batch norms become FrozenBatchNorm2d. Returns self."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


def conv3x3_relu(in_channels: int, out_channels: int, norm: Any = "") -> Conv2d:
    """A "same" 3 x 3 convolution, `norm` (see `get_norm`) and ReLU; a bias only where there is no norm."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=nn.ReLU(),
    )
    msra_fill(conv)
    return conv
