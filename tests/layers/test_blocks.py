import torch
from torch import nn

from panomask.layers import CNNBlockBase, Conv2d, FrozenBatchNorm2d, conv3x3_relu


class Block(CNNBlockBase):
    def __init__(self):
        super().__init__(3, 8, stride=2)
        self.conv = Conv2d(3, 8, 3, stride=2, norm=nn.BatchNorm2d(8))


def test_freeze():
    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 8, 2)
    assert block.freeze() is block
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert isinstance(block.conv.norm, FrozenBatchNorm2d)


def test_conv3x3_relu():
    conv = conv3x3_relu(1, 2)
    nn.init.ones_(conv.weight)
    nn.init.constant_(conv.bias, -5)
    out = conv(torch.ones(1, 1, 3, 3))  # 4, 6 and 9 cells under the window, less 5
    assert out[0, 0].tolist() == [[0, 1, 0], [1, 4, 1], [0, 1, 0]]
    assert list(conv3x3_relu(3, 32, "GN").state_dict()) == ["weight", "norm.weight", "norm.bias"]
