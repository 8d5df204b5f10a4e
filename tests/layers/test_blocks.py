from torch import nn

from panomask.layers import CNNBlockBase, Conv2d, FrozenBatchNorm2d


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
