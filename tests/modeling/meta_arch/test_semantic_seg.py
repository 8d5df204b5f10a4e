"""Semantic head and the model made of it alone."""

import math

import pytest
import torch

from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.modeling import build_model
from panomask.modeling.meta_arch.semantic_seg import SemSegFPNHead

SEMANTIC = """MODEL.META_ARCHITECTURE SemanticSegmentor  MODEL.SEM_SEG_HEAD.NUM_CLASSES 4
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32""".split()
LEVELS = {"p3": ShapeSpec(channels=3, stride=8), "p2": ShapeSpec(channels=3, stride=4)}


def _head(input_shape=LEVELS, **changes):
    arguments = {"num_classes": 2, "conv_dims": 4, "common_stride": 4, **changes}
    return SemSegFPNHead(input_shape, **arguments)


def test_levels_come_to_the_common_stride_and_are_added():
    """A convolution a doubling, and one where there is none to do."""
    shapes = {f"p{i}": ShapeSpec(channels=3, stride=2**i) for i in (5, 2, 3)}
    head = _head(shapes).eval()
    assert head.in_features == ["p2", "p3", "p5"]
    assert [len([x for x in getattr(head, name) if hasattr(x, "weight")]) for name in head.in_features] == [
        *(1, 1, 3)
    ]
    features = {
        name: torch.ones(1, 3, 64 // shape.stride, 32 // shape.stride) for name, shape in shapes.items()
    }
    logits, losses = head(features)
    assert logits.shape == (1, 2, 64, 32)
    assert losses == {}
    alone = [_without(head, name, features) for name in head.in_features]
    torch.testing.assert_close(sum(alone), head.layers(features))


def _without(head, kept, features):
    """What the predictor makes of one level; the other levels and the bias (zero in fresh weights) are 0."""
    assert not head.predictor.bias.any()
    return head.predictor(getattr(head, kept)(features[kept]))


def test_norm_takes_the_place_of_the_bias():
    assert set(_head(norm="").p2.state_dict()) == {"0.weight", "0.bias"}
    normed = _head(norm="GN", conv_dims=32).p2.state_dict()
    assert set(normed) == {"0.weight", "0.norm.weight", "0.norm.bias"}


def test_fresh_weights_are_normal_by_their_fan_out():
    """As He et al. (arXiv:1502.01852, equation 14) for what follows ReLU; biases are 0."""
    torch.manual_seed(0)
    head = _head({"p3": ShapeSpec(channels=32, stride=8)}, num_classes=100, conv_dims=64)
    for conv, fan_out in ((head.p3[0], 64 * 9), (head.predictor, 100)):
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert not conv.bias.any()


def test_loss_is_the_mean_over_the_labelled_pixels():
    head = _head(loss_weight=3.0, ignore_value=9)
    logits = torch.zeros(1, 2, 1, 1)
    logits[0, 0] = math.log(3)  # class 0 has three quarters
    targets = torch.full((1, 4, 4), 9)
    targets[0, 0] = torch.tensor([0, 0, 1, 9])
    expected = 3.0 * (2 * math.log(4 / 3) + math.log(4)) / 3
    assert head.losses(logits, targets)["loss_sem_seg"].item() == pytest.approx(expected)


def test_nothing_labelled_costs_nothing():
    head = _head(ignore_value=9)
    logits = torch.randn(2, 2, 3, 3, requires_grad=True)
    loss = head.losses(logits, torch.full((2, 12, 12), 9))["loss_sem_seg"]
    assert loss == 0
    loss.backward()
    assert logits.grad.eq(0).all()


def test_half_precision_logits_make_a_float32_loss():
    head = _head()
    logits = torch.randn(1, 2, 32, 32).half() * 8
    targets = torch.randint(0, 2, (1, 128, 128))
    loss = head.losses(logits, targets)["loss_sem_seg"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, head.losses(logits.float(), targets)["loss_sem_seg"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shapes", "common_stride", "message"),
    [
        ({}, 4, "IN_FEATURES is empty"),
        (LEVELS, 8, "COMMON_STRIDE is 8, to which doubling does not bring p2 .* whose stride is 4"),
        ({"c": ShapeSpec(channels=3, stride=12)}, 4, "does not bring c .* whose stride is 12"),
    ],
)
def test_strides_that_do_not_fit_are_refused(shapes, common_stride, message):
    with pytest.raises(InputError, match=message):
        _head(shapes, common_stride=common_stride)


def test_levels_of_an_image_that_is_not_padded_are_refused():
    features = {"p2": torch.zeros(1, 3, 9, 4), "p3": torch.zeros(1, 3, 5, 2)}
    with pytest.raises(InputError, match=r"p3 has \(10, 4\) cells at stride 4, finer levels have \(9, 4\)"):
        _head()(features)


def test_unknown_feature_is_refused(tiny_cfg):
    with pytest.raises(InputError, match=r"SEM_SEG_HEAD.IN_FEATURES: \['p2', 'p9'\]: the backbone returns"):
        build_model(tiny_cfg(*SEMANTIC, "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p9"]))


def test_model(tiny_cfg, golden_recipe, make_input):
    """Every parameter that is used learns; logits have the size asked for."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*SEMANTIC))
    batch = [{**make_input(64, 64, count=0), "height": 100, "width": 50}, make_input(48, 64)]
    with pytest.raises(InputError, match="SemanticSegmentor learns from 'sem_seg'"):
        model(batch)
    for x in batch:
        x["sem_seg"] = torch.from_numpy(golden_recipe.semantic_map(*x["image"].shape[1:], 4))
    losses = model(batch)
    assert set(losses) == {"loss_sem_seg"}
    losses["loss_sem_seg"].backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    with torch.no_grad():
        outputs = model.eval()(batch)
    assert [set(output) for output in outputs] == [{"sem_seg"}] * 2
    assert [output["sem_seg"].shape for output in outputs] == [(4, 100, 50), (4, 48, 64)]


def test_padding_is_in_no_loss(tiny_cfg, make_input):
    """Without any label there is no loss, though the second image is padded."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*SEMANTIC, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 3))
    batch = [make_input(64, 64), make_input(32, 64)]
    for x in batch:
        x["sem_seg"] = torch.full(x["image"].shape[1:], 3)
    assert model(batch)["loss_sem_seg"] == 0
