"""Cascade heads: matching and boxes by hand, gradients shared out, scores averaged."""

import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import build_model, build_roi_heads
from panomask.modeling.roi_heads import CascadeROIHeads
from panomask.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from panomask.structures import Boxes, ImageList, Instances

CASCADE = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
SHAPES = {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in range(2, 7)}
IMAGES = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
A, SHIFTED, FAR = (
    [0.0, 0, 10, 10],
    [2.5, 0, 12.5, 10],
    [40.0, 40, 60, 60],
)  # A and SHIFTED: IoU 75 / 125 = 0.6


@pytest.fixture
def heads(tiny_cfg) -> CascadeROIHeads:
    torch.manual_seed(0)
    return build_roi_heads(tiny_cfg(*CASCADE, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0), SHAPES)


def _features() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = {name: 64 // shape.stride for name, shape in SHAPES.items()}
    return {name: torch.randn(1, 16, side, side, generator=generator) for name, side in sides.items()}


def _proposals(*boxes) -> Instances:
    return Instances((64, 64), proposal_boxes=Boxes(list(boxes)), objectness_logits=torch.zeros(len(boxes)))


def _targets(boxes, classes) -> Instances:
    return Instances((64, 64), gt_boxes=Boxes(boxes), gt_classes=torch.tensor(classes, dtype=torch.int64))


def test_stages(heads):
    assert heads.num_cascade_stages == 3
    weights = [predictor.box2box_transform.weights for predictor in heads.box_predictor]
    assert weights == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    assert [matcher.thresholds[1] for matcher in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    assert heads.proposal_matcher is heads.proposal_matchers[0]
    assert {name.split(".")[1] for name in heads.box_head.state_dict()} == {"fc1", "fc2"}


def test_stricter_stages_label_the_same_box_otherwise(heads):
    """IoU 0.6 is foreground in the second stage, whose threshold it meets, and background in the third."""
    targets = [_targets([FAR, A], [2, 1])]
    for stage, expected in ((1, [1, 3, 2]), (2, [3, 3, 2])):
        proposals = [Instances((64, 64), proposal_boxes=Boxes([SHIFTED, [0.0, 50, 9, 60], FAR]))]
        with EventStorage() as storage:
            (labelled,) = heads._match_and_label_boxes(proposals, stage, targets)
        assert labelled.gt_classes.tolist() == expected
        assert labelled.gt_boxes.tensor[[0, 2]].tolist() == [A, FAR]
        assert storage.latest()[f"stage{stage}/roi_head/num_fg_samples"][0] == 3 - expected.count(3)
        assert storage.latest()[f"stage{stage}/roi_head/num_bg_samples"][0] == expected.count(3)


def test_the_next_stage_gets_clipped_boxes_without_a_graph(heads):
    boxes = [torch.tensor([[-5.0, 0, 10, 10], [70.0, 0, 80, 10]], requires_grad=True)]
    (trained,) = heads._create_proposals_from_boxes(boxes, [(64, 64)])
    assert trained.proposal_boxes.tensor.tolist() == [A]
    assert not trained.proposal_boxes.tensor.requires_grad
    (tested,) = heads.eval()._create_proposals_from_boxes(boxes, [(64, 64)])
    assert tested.proposal_boxes.tensor.tolist() == [A, [64, 0, 64, 10]]


def test_scaled_gradient():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    scaled = _ScaleGradient.apply(x, 0.25)
    assert scaled.tolist() == [1, 2]
    (scaled * torch.tensor([4.0, 8.0])).sum().backward()
    assert x.grad.tolist() == [1, 2]


def test_features_hear_the_mean_and_heads_the_whole(heads, monkeypatch):
    """Without the scaling the gradient of the features is three times as large, the heads' the same."""
    targets = [_targets([A, FAR], [0, 2])]

    def gradients():
        features = {name: feature.requires_grad_() for name, feature in _features().items()}
        heads.zero_grad()
        sample = heads.label_and_sample_proposals([_proposals(SHIFTED, FAR)], targets)
        sum(heads._forward_box(features, sample, targets).values()).backward()
        return features["p2"].grad, heads.box_head[0].fc1.weight.grad.clone()

    of_features, of_head = gradients()
    monkeypatch.setattr(_ScaleGradient, "apply", lambda x, scale: x)
    whole_of_features, whole_of_head = gradients()
    torch.testing.assert_close(of_features * 3, whole_of_features)
    torch.testing.assert_close(of_head, whole_of_head)


def test_losses_of_every_stage(heads):
    sample = _targets([A, FAR], [0, 2])
    heads.mask_on = False
    with EventStorage() as storage:
        _, losses = heads(IMAGES, _features(), [_proposals(SHIFTED, FAR)], [sample])
    assert set(losses) == {f"{name}_stage{i}" for name in ("loss_cls", "loss_box_reg") for i in range(3)}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert {f"stage{i}/fast_rcnn/cls_accuracy" for i in range(3)} <= set(storage.latest())


@torch.no_grad()
def test_scores_are_averaged_and_boxes_are_the_last(heads):
    """Stages that shift every box by one, two and four tenths of its width, whatever they see."""
    heads.eval()
    heads.mask_on = False
    for predictor, logit, shift in zip(heads.box_predictor, (0.0, 1.0, 2.0), (1, 2, 4), strict=True):
        for layer in (predictor.cls_score, predictor.bbox_pred):
            torch.nn.init.zeros_(layer.weight)
        predictor.cls_score.bias.copy_(torch.tensor([logit, 0, 0, 0]))
        predictor.bbox_pred.bias.copy_(
            torch.tensor([0.1 * shift * predictor.box2box_transform.weights[0], 0, 0, 0])
        )
    (detections,), losses = heads(IMAGES, _features(), [_proposals([10.0, 10, 20, 20])])
    assert not losses
    logits = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    torch.testing.assert_close(detections.scores[0], logits.softmax(dim=1)[:, 0].mean())
    torch.testing.assert_close(detections.pred_boxes.tensor[0], torch.tensor([17.0, 10, 27, 20]))
    assert detections.pred_classes[0] == 0


@pytest.mark.parametrize("proposals", [(), (A,)])
def test_nothing_to_learn_from(heads, proposals):
    _, losses = heads(IMAGES, _features(), [_proposals(*proposals)], [_targets([], [])])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    (detections,), _ = heads.eval()(IMAGES, _features(), [_proposals()])
    assert len(detections) == 0


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False], "class-agnostic"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6]], "one entry for each stage"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.4, 0.5, 0.6]], r"IOUS\[0\]"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6, 1.5]], "IOUS is .*one or more numbers in"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", [[1.0, 1.0]] * 3], "4 numbers"),
        (["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True], "StandardROIHeads"),
    ],
)
def test_bad_settings(tiny_cfg, opts, message):
    with pytest.raises(InputError, match=message):
        build_model(tiny_cfg(*CASCADE, *opts))
