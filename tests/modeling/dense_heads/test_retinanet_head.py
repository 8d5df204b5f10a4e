import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import CycleBatchNormList, ShapeSpec
from panomask.modeling.dense_heads import RetinaNetHead

SHAPES = [ShapeSpec(channels=8, stride=stride) for stride in (8, 16)]
MAPS = [torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]


def build(**kwargs):
    arguments = {"input_shape": SHAPES, "num_classes": 3, "num_anchors": 2, "conv_dims": [8, 6], **kwargs}
    return RetinaNetHead(**arguments)


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN", "FrozenBN"])
def test_shapes_and_gradients(norm):
    head = build(norm=norm, conv_dims=[32, 32])
    logits, deltas = head(MAPS)
    assert [tuple(x.shape) for x in logits] == [(2, 6, 4, 6), (2, 6, 2, 3)]
    assert [tuple(x.shape) for x in deltas] == [(2, 8, 4, 6), (2, 8, 2, 3)]
    sum(x.square().sum() for x in [*logits, *deltas]).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_names_in_checkpoints():
    names = [name for name, _ in build().named_parameters() if "bias" not in name]
    towers = [f"{tower}_subnet.{idx}.weight" for tower in ("cls", "bbox") for idx in (0, 2)]
    assert names == [*towers, "cls_score.weight", "bbox_pred.weight"]
    with_norm = [name for name in build(norm="GN", conv_dims=[32]).state_dict() if "cls_subnet" in name]
    assert with_norm == [f"cls_subnet.{idx}.{kind}" for idx in (0, 1) for kind in ("weight", "bias")]


def test_towers_of_different_depths():
    head = build(conv_dims=[8], bbox_conv_dims=[4, 4, 4])
    assert (len(head.cls_subnet), len(head.bbox_subnet)) == (2, 6)
    assert head.bbox_pred.in_channels == 4
    bare = build(conv_dims=[])
    assert len(bare.cls_subnet) == 0
    assert bare(MAPS)[0][0].shape == (2, 6, 4, 6)


def test_every_class_begins_at_the_prior():
    head = build(prior_prob=0.02)
    scores = head([torch.zeros(1, 8, 2, 2)] * 2)[0][0].sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02))
    convs = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    weights = torch.cat([conv.weight.flatten() for conv in convs])
    assert abs(weights.std() - 0.01) < 0.001


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_batch_norm_has_statistics_for_each_level(norm):
    head = build(norm=norm, conv_dims=[8])
    norms = head.cls_subnet[1]
    assert len(norms) == len(MAPS)
    assert isinstance(norms, CycleBatchNormList)
    head([MAPS[0] + 5, MAPS[1] - 5])
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)
    assert set(head.state_dict()) >= {"cls_subnet.1.weight", "cls_subnet.1.0.running_mean"}


def test_levels_of_different_channels_are_refused():
    with pytest.raises(InputError, match=r"must be the same, not \[4, 8\]"):
        build(input_shape=[ShapeSpec(channels=8), ShapeSpec(channels=4)])


def test_levels_of_different_numbers_of_anchors_are_refused(zoo_cfg):
    cfg = zoo_cfg("COCO-Detection/retinanet_R_50_FPN_1x.yaml", "MODEL.ANCHOR_GENERATOR.SIZES", [[8], [8, 16]])
    with pytest.raises(InputError, match=r"anchors per cell, not \[3, 6\]"):
        RetinaNetHead(cfg, SHAPES)
