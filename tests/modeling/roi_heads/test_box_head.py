"""Box head: layers, names, shapes."""

import pytest
import torch

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling import build_box_head
from panomask.modeling.roi_heads import FastRCNNConvFCHead

POOLED = ShapeSpec(channels=4, height=3, width=3)


def test_layers_and_shapes():
    head = FastRCNNConvFCHead(POOLED, conv_dims=[6, 5], fc_dims=[7, 8])
    names = [name for name, _ in head.named_parameters() if name.endswith("weight")]
    assert names == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    assert head.fc1.in_features == 5 * 9
    assert head.output_shape == ShapeSpec(channels=8)
    assert head(torch.randn(2, 4, 3, 3)).shape == (2, 8)
    assert head(torch.randn(0, 4, 3, 3)).shape == (0, 8)
    assert (head(torch.randn(20, 4, 3, 3)) >= 0).all()


def test_convolutions_alone():
    head = FastRCNNConvFCHead(POOLED, conv_dims=[32], fc_dims=[], conv_norm="GN")
    assert head.output_shape == ShapeSpec(channels=32, height=3, width=3)
    assert head(torch.randn(2, 4, 3, 3)).shape == (2, 32, 3, 3)
    assert head.conv1.bias is None
    assert "conv1.norm.weight" in head.state_dict()


def test_initialisation():
    """Xavier, fan in: uniform up to sqrt(3 / inputs)."""
    head = FastRCNNConvFCHead(POOLED, conv_dims=[], fc_dims=[50])
    bound = (3 / 36) ** 0.5
    assert 0.9 * bound < head.fc1.weight.abs().max() <= bound
    assert not head.fc1.bias.any()


def test_from_config(tiny_cfg):
    head = build_box_head(
        tiny_cfg("MODEL.ROI_BOX_HEAD.NUM_CONV", 1, "MODEL.ROI_BOX_HEAD.CONV_DIM", 6), POOLED
    )
    assert isinstance(head, FastRCNNConvFCHead)
    assert (head.conv1.out_channels, head.fc1.out_features, head.fc2.out_features) == (6, 32, 32)
    with pytest.raises(InputError, match="NUM_CONV and NUM_FC"):
        build_box_head(tiny_cfg("MODEL.ROI_BOX_HEAD.NUM_FC", 0), POOLED)
