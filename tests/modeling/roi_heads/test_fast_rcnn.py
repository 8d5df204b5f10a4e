"""Box predictor: losses and detections by hand."""

import math

import pytest
import torch

from panomask.data import MetadataCatalog
from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import FastRCNNOutputLayers, build_model
from panomask.modeling.box_regression import Box2BoxTransform
from panomask.modeling.roi_heads.fast_rcnn import fast_rcnn_inference, fast_rcnn_inference_single_image
from panomask.structures import Boxes, Instances

A, A_SHIFTED, B = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [20.0, 20, 40, 30]


def _predictor(**changes) -> FastRCNNOutputLayers:
    """Two classes; one input feature."""
    arguments = {"box2box_transform": Box2BoxTransform((1.0, 1.0, 1.0, 1.0)), "num_classes": 2}
    return FastRCNNOutputLayers(ShapeSpec(channels=1), **{**arguments, **changes})


def _detect(boxes, scores, **changes):
    arguments = {"score_thresh": 0.05, "nms_thresh": 0.5, "topk_per_image": 10}
    return fast_rcnn_inference_single_image(
        torch.tensor(boxes), torch.tensor(scores), (32, 50), **{**arguments, **changes}
    )


def test_layers():
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=3, height=2, width=2),
        box2box_transform=Box2BoxTransform((1, 1, 1, 1)),
        num_classes=5,
    )
    assert predictor.cls_score.weight.shape == (6, 12)
    assert predictor.bbox_pred.weight.shape == (20, 12)
    scores, deltas = predictor(torch.zeros(4, 3, 2, 2))
    assert (scores.shape, deltas.shape) == ((4, 6), (4, 20))
    assert _predictor(cls_agnostic_bbox_reg=True).bbox_pred.out_features == 4


def test_nms_per_class_and_order():
    """Two classes sharing a box each; the first two RoIs overlap with IoU 90 / 110."""
    boxes = [A, A_SHIFTED, B]
    scores = [[0.6, 0.1, 0.3], [0.5, 0.3, 0.2], [0.01, 0.9, 0.09]]
    result, rois = _detect(boxes, scores)
    assert result.pred_classes.tolist() == [1, 0, 1]
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.6, 0.3]))
    assert result.pred_boxes.tensor.tolist() == [B, A, A_SHIFTED]
    assert rois.tolist() == [2, 0, 1]
    assert len(_detect(boxes, scores, nms_thresh=0.9)[0]) == 5
    assert _detect(boxes, scores, topk_per_image=1)[1].tolist() == [2]
    assert len(_detect(boxes, scores, topk_per_image=-1)[0]) == 3
    assert len(_detect(boxes, scores, score_thresh=0.3)[0]) == 2


def test_boxes_per_class_and_clipping():
    boxes = [[*A, 30.0, 10, 90, 20]]
    result, _ = _detect(boxes, [[0.6, 0.3, 0.1]])
    assert result.pred_boxes.tensor.tolist() == [A, [30, 10, 50, 20]]
    assert result.image_size == (32, 50)


def test_not_finite_rows_are_dropped_and_indices_stay():
    boxes = [[float("nan"), 0, 1, 1], B, A]
    result, rois = _detect(boxes, [[0.9, 0.0, 0.1], [0.8, 0.0, 0.2], [float("inf"), 0.0, 0.0]])
    assert rois.tolist() == [1]
    assert result.pred_boxes.tensor.tolist() == [B]


def test_no_rois():
    results, rois = fast_rcnn_inference([torch.zeros(0, 8)], [torch.zeros(0, 3)], [(8, 8)], 0.05, 0.5, 10)
    assert (len(results[0]), len(rois[0])) == (0, 0)
    assert results[0].pred_boxes.tensor.shape == (0, 4)
    assert fast_rcnn_inference([], [], [], 0.05, 0.5, 10) == ([], [])


def _sample() -> list[Instances]:
    """Of class 1, of class 0, background; and an image without objects."""
    shifted = [5.0, 0, 15, 10]  # half a width to the right
    first = Instances((32, 50), proposal_boxes=Boxes([A, A, B]), gt_boxes=Boxes([shifted, A, A]))
    first.gt_classes = torch.tensor([1, 0, 2])
    second = Instances((32, 50), proposal_boxes=Boxes([B]), gt_classes=torch.tensor([2]))
    return [first, second]


@pytest.mark.parametrize("agnostic", [False, True])
def test_losses_by_hand(agnostic):
    predictor = _predictor(cls_agnostic_bbox_reg=agnostic, loss_weight={"loss_box_reg": 3.0})
    logits = torch.zeros(4, 3, requires_grad=True)
    deltas = torch.zeros(4, 4 if agnostic else 8)
    deltas[1, 0] = 0.25  # class 0 of the second RoI
    if not agnostic:
        deltas[0, 0] = deltas[2, :] = 100.0  # another class's, and background's: not looked at
    deltas.requires_grad_()
    with EventStorage() as storage:
        losses = predictor.losses((logits, deltas), _sample())
    assert math.isclose(losses["loss_cls"].item(), math.log(3), rel_tol=1e-6)
    assert math.isclose(losses["loss_box_reg"].item(), 3 * (0.5 + 0.25) / 4, rel_tol=1e-6)
    sum(losses.values()).backward()
    expected = torch.zeros_like(deltas)
    expected[0, 0 if agnostic else 4] = -3 / 4
    expected[1, 0] = 3 / 4
    touched = expected != 0
    torch.testing.assert_close(deltas.grad[touched], expected[touched])
    assert not deltas.grad[2:].any()
    # Every logit is equal, so argmax says class 0: one of four right, one of two foreground, none missed.
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged["fast_rcnn/cls_accuracy"] == 0.25
    assert logged["fast_rcnn/fg_cls_accuracy"] == 0.5
    assert logged["fast_rcnn/false_negative"] == 0.0


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_losses_of_nothing(kind):
    predictor = _predictor(box_reg_loss_type=kind)
    for proposals in ([], _sample()[1:]):
        rois = sum(len(x) for x in proposals)
        losses = predictor.losses(predictor(torch.randn(rois, 1)), proposals)
        assert losses["loss_box_reg"] == 0
        assert losses["loss_cls"].isfinite()
        predictor.zero_grad()
        sum(losses.values()).backward()
        assert predictor.bbox_pred.weight.grad is not None
        assert predictor.cls_score.weight.grad is not None


def test_boxes_of_true_classes():
    predictor = _predictor()
    deltas = torch.zeros(4, 8)
    deltas[0, 4] = 1.0
    deltas[1, 4] = 1.0  # class 1's, but the truth is class 0
    boxes = predictor.predict_boxes_for_gt_classes((torch.zeros(4, 3), deltas), _sample())
    assert [box.tolist() for box in boxes] == [[[10.0, 0, 20, 10], A, B], [B]]
    assert predictor.predict_boxes_for_gt_classes((torch.zeros(0, 3), torch.zeros(0, 8)), []) == []
    assert [x.shape for x in predictor.predict_boxes((torch.zeros(4, 3), deltas), _sample())] == [
        (3, 8),
        (1, 8),
    ]
    probs = predictor.predict_probs((torch.zeros(4, 3), deltas), _sample())
    torch.testing.assert_close(probs[0], torch.full((3, 3), 1 / 3))


def test_from_config(tiny_cfg):
    cfg = tiny_cfg("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", 2.0, "TEST.DETECTIONS_PER_IMAGE", 7)
    predictor = FastRCNNOutputLayers(cfg, ShapeSpec(channels=4))
    assert predictor.num_classes == 3
    assert predictor.test_topk_per_image == 7
    assert predictor.loss_weight == {"loss_box_reg": 2.0}
    assert predictor.box2box_transform.weights == (10, 10, 5, 5)
    with pytest.raises(InputError, match="BBOX_REG_LOSS_TYPE"):
        _predictor(box_reg_loss_type="l2")


def test_sigmoid_loss_by_hand():
    """Zero logits: log 2 a class and RoI, for two classes, whatever the truth and the logit of background."""
    predictor = _predictor(use_sigmoid_ce=True)
    logits = torch.zeros(4, 3)
    logits[:, 2] = 50.0
    losses = predictor.losses((logits, torch.zeros(4, 8)), _sample())
    assert math.isclose(losses["loss_cls"].item(), 2 * math.log(2), rel_tol=1e-6)
    logits = torch.tensor([[-100.0, 100, 0], [100, -100, 0], [-100, -100, 0], [-100, -100, 0]])
    assert predictor.losses((logits, torch.zeros(4, 8)), _sample())["loss_cls"] < 1e-30  # all right
    (first, _) = predictor.predict_probs((torch.zeros(4, 3), None), _sample())
    assert first.tolist() == [[0.5] * 3] * 3


def _federated(counts, num_fed_classes: int, num_classes: int = 5) -> FastRCNNOutputLayers:
    return _predictor(
        num_classes=num_classes,
        use_sigmoid_ce=True,
        use_fed_loss=True,
        get_fed_loss_cls_weights=lambda: torch.tensor(counts, dtype=torch.float32),
        fed_loss_num_classes=num_fed_classes,
    )


def test_federated_classes():
    """Classes 1 and 3 and background (5) occur; of the others only 0 and 4 may be drawn."""
    predictor = _federated([2, 9, 0, 9, 1], 4)
    gt_classes = torch.tensor([3, 5, 1, 3, 5])
    weight = torch.tensor([2.0, 9, 0, 9, 1])
    drawn = [predictor.get_fed_loss_classes(gt_classes, 4, 5, weight).tolist() for _ in range(200)]
    assert {tuple(classes[:3]) for classes in drawn} == {(1, 3, 5)}
    last = [classes[3] for classes in drawn]
    assert set(last) == {0, 4}
    assert last.count(0) > last.count(4)  # odds of 2 to 1
    assert predictor.get_fed_loss_classes(gt_classes, 3, 5, weight).tolist() == [1, 3, 5]
    assert predictor.get_fed_loss_classes(gt_classes, 1, 5, weight).tolist() == [1, 3, 5]
    assert sorted(predictor.get_fed_loss_classes(gt_classes, 5, 5, weight).tolist()) == [0, 1, 3, 4, 5]
    drawn = [predictor.get_fed_loss_classes(gt_classes[:1], 4, 5, weight).tolist() for _ in range(20)]
    assert {tuple(sorted(classes)) for classes in drawn} == {(0, 1, 3, 4)}  # background is never drawn


def test_federated_loss_counts_chosen_classes_only():
    """Background and two classes occur, so that of three all are chosen: 2 classes of log 2 instead of 5."""
    predictor = _federated([1] * 5, 3)
    logits = torch.zeros(4, 6, requires_grad=True)
    sample = _sample()
    sample[0].gt_classes = torch.tensor([1, 0, 5])
    sample[1].gt_classes = torch.tensor([5])
    loss = predictor.losses((logits, torch.zeros(4, 20)), sample)["loss_cls"]
    assert math.isclose(loss.item(), 2 * math.log(2), rel_tol=1e-6)
    loss.backward()
    assert logits.grad.any(dim=0).tolist() == [True, True, False, False, False, False]
    assert predictor.losses((torch.zeros(0, 6), torch.zeros(0, 20)), [])["loss_cls"] == 0


def test_federated_weights_are_in_checkpoints_as_detectron2_has_them():
    """Those of a checkpoint are used; without a federated loss there is no such entry."""
    predictor = _federated([1, 2, 3, 4, 5], 3)
    state = {**predictor.state_dict(), "fed_loss_cls_weights": torch.tensor([5.0, 4, 3, 2, 1])}
    predictor.load_state_dict(state)
    predictor.losses((torch.zeros(4, 6), torch.zeros(4, 20)), _sample())
    assert predictor.fed_loss_cls_weights.tolist() == [5, 4, 3, 2, 1]
    assert "fed_loss_cls_weights" not in _predictor().state_dict()


def test_federated_loss_that_cannot_be():
    with pytest.raises(InputError, match="USE_SIGMOID_CE"):
        _predictor(use_fed_loss=True, get_fed_loss_cls_weights=lambda: torch.ones(2))
    with pytest.raises(InputError, match="get_fed_loss_cls_weights"):
        _predictor(use_fed_loss=True, use_sigmoid_ce=True)
    logits = torch.zeros(4, 6), torch.zeros(4, 20)
    with pytest.raises(InputError, match=r"NUM_CLASSES is 5.*4 classes"):
        _federated([1, 1, 1, 1], 3).losses(logits, _sample())
    with pytest.raises(InputError, match="only 2 classes"):
        _federated([1, 0, 0, 1, 0], 3).losses(logits, _sample())


def test_federated_loss_from_config(tiny_cfg):
    """The data's frequencies are asked for in training, not where a model is built or run."""
    opts = "MODEL.ROI_BOX_HEAD.USE_FED_LOSS True MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True".split()
    opts += (
        "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER 2. MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES 3".split()
    )
    cfg = tiny_cfg(*opts, "DATASETS.TRAIN", ["m_frequencies"])
    predictor = FastRCNNOutputLayers(cfg, ShapeSpec(channels=1))
    assert not predictor.fed_loss_cls_weights.any()
    counts = [{"id": 1, "image_count": 3}, {"id": 2, "image_count": 1}, {"id": 3, "image_count": 2}]
    MetadataCatalog.get("m_frequencies").class_image_count = counts
    try:
        predictor.losses((torch.zeros(4, 4), torch.zeros(4, 12)), _sample())
    finally:
        MetadataCatalog.remove("m_frequencies")
    assert predictor.fed_loss_cls_weights.tolist() == [9, 1, 4]
    with pytest.raises(InputError, match="a softmax cannot"):
        build_model(tiny_cfg(*opts, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False))
