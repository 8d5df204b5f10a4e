"""The base class of the blocks that backbones are made of."""

from typing import TypeVar

from torch import nn

from panomask.layers.batch_norm import FrozenBatchNorm2d

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
