import torch
from torch import nn

from panomask.layers import msra_fill, xavier_fill


def test_msra_has_variance_two_over_fan_out():
    conv = nn.Conv2d(8, 64, 3)
    msra_fill(conv)
    assert abs(conv.weight.var().item() / (2 / (64 * 9)) - 1) < 0.1
    assert not conv.bias.any()


def test_xavier_is_uniform_with_variance_one_over_fan_in():
    linear = nn.Linear(300, 50)
    xavier_fill(linear)
    bound = (3 / 300) ** 0.5
    assert bound * 0.99 < linear.weight.abs().max().item() <= bound
    assert abs(linear.weight.var().item() * 300 - 1) < 0.1
    assert torch.equal(linear.bias, torch.zeros(50))


def test_a_layer_without_bias():
    msra_fill(nn.Conv2d(1, 1, 1, bias=False))
    xavier_fill(nn.Linear(1, 1, bias=False))
