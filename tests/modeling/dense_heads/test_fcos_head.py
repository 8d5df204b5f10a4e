import pytest
import torch

from panomask.layers import ShapeSpec
from panomask.modeling.dense_heads import FCOSHead

SHAPES = [ShapeSpec(channels=8, stride=stride) for stride in (8, 16)]
MAPS = [torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]


def build(**kwargs):
    return FCOSHead(**{"input_shape": SHAPES, "num_classes": 3, "conv_dims": [8], **kwargs})


@pytest.mark.parametrize("centerness_on_reg", [True, False])
@pytest.mark.parametrize("use_scale", [True, False])
@pytest.mark.parametrize("exp_distances", [True, False])
def test_shapes_and_gradients(centerness_on_reg, use_scale, exp_distances):
    head = build(centerness_on_reg=centerness_on_reg, use_scale=use_scale, exp_distances=exp_distances)
    outputs = head(MAPS)
    for output, channels in zip(outputs, (3, 4, 1), strict=True):
        assert [tuple(x.shape) for x in output] == [(2, channels, 4, 6), (2, channels, 2, 3)]
    sum(x.square().sum() for levels in outputs for x in levels).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert ("scales" in dict(head.named_parameters())) is use_scale


@pytest.mark.parametrize("centerness_on_reg", [True, False])
def test_tower_of_the_centerness(centerness_on_reg):
    head = build(centerness_on_reg=centerness_on_reg, bbox_conv_dims=[8, 8])
    _, _, centerness = head(MAPS)
    sum(x.sum() for x in centerness).backward()
    assert (head.bbox_subnet[0].weight.grad is not None) is centerness_on_reg
    assert (head.cls_subnet[0].weight.grad is not None) is not centerness_on_reg


def test_scale_of_a_level_multiplies_its_distances():
    head = build(use_scale=True)
    _, plain, _ = head(MAPS)
    with torch.no_grad():
        head.scales.copy_(torch.tensor([2.0, 3.0]))
    _, scaled, _ = head(MAPS)
    torch.testing.assert_close(scaled, [2 * plain[0], 3 * plain[1]])
    head.exp_distances = True
    torch.testing.assert_close(head(MAPS)[1][1], (3 * plain[1]).exp())


def test_distances_of_huge_logarithms_stay_finite():
    head = build(exp_distances=True)
    with torch.no_grad():
        head.bbox_pred.bias.fill_(1000)
    assert (head(MAPS)[1][0] < 1e5).all()
    assert (head(MAPS)[1][0] > 20_000).all()  # objects of images of 10,000 pixels are none of them


def test_logarithms_in_half_precision():
    with torch.autocast("cpu", dtype=torch.float16):
        head = build(exp_distances=True)
        with torch.no_grad():
            head.bbox_pred.bias.fill_(1000)
        assert head(MAPS)[1][0].isfinite().all()


def test_towers_of_different_widths():
    for centerness_on_reg in (True, False):
        head = build(conv_dims=[6], bbox_conv_dims=[4], centerness_on_reg=centerness_on_reg)
        assert head.ctrness.in_channels == (4 if centerness_on_reg else 6)
        assert head(MAPS)[2][0].shape == (2, 1, 4, 6)


@pytest.mark.parametrize("is_normalized", [True, False])
def test_config(zoo_cfg, is_normalized):
    opts = ("MODEL.FCOS.NORM_REG_TARGETS", is_normalized, "MODEL.FCOS.NUM_CLS_CONVS", 1)
    opts += ("MODEL.FCOS.PRIOR_PROB", 0.02)
    cfg = zoo_cfg("COCO-Detection/fcos_R_50_FPN_1x.yaml", *opts, "MODEL.FCOS.NUM_BOX_CONVS", 2)
    head = FCOSHead(cfg, [ShapeSpec(channels=32, stride=stride) for stride in (8, 16)])
    assert head.exp_distances is not is_normalized
    assert (len(head.cls_subnet), len(head.bbox_subnet)) == (3, 6)
    torch.testing.assert_close(head.cls_score.bias.sigmoid(), torch.full((80,), 0.02))
