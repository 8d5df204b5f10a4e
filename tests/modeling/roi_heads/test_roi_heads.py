"""Labelling and sampling by hand, and the standard heads around it."""

import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import ROIHeads, StandardROIHeads, build_roi_heads
from panomask.modeling.matcher import Matcher
from panomask.modeling.roi_heads import (
    select_foreground_proposals,
    select_proposals_with_visible_keypoints,
)
from panomask.structures import Boxes, ImageList, Instances, Keypoints

A, A_SHIFTED, B, C = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [20.0, 20, 40, 30], [0.0, 20, 10, 30]
SHAPES = {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in range(2, 7)}


def _heads(**changes) -> ROIHeads:
    arguments = {
        "num_classes": 3,
        "batch_size_per_image": 10,
        "positive_fraction": 0.5,
        "proposal_matcher": Matcher([0.5], [0, 1]),
    }
    return ROIHeads(**{**arguments, **changes})


def _proposals(*boxes) -> Instances:
    return Instances((64, 64), proposal_boxes=Boxes(list(boxes)), objectness_logits=torch.zeros(len(boxes)))


def _targets(boxes, classes) -> Instances:
    classes = torch.tensor(classes, dtype=torch.int64)
    return Instances((64, 64), gt_boxes=Boxes(boxes), gt_classes=classes)


class _Fields(list):
    """A field that indexes like a tensor."""

    def __getitem__(self, item):
        return _Fields(list.__getitem__(self, i) for i in item.tolist())


def test_labels_by_hand():
    """B is object 0, of class 2; A is object 1, of class 0; A_SHIFTED overlaps A with IoU 90 / 110."""
    targets = _targets([B, A], [2, 0])
    targets.set("gt_ids", _Fields(["b", "a"]))
    with EventStorage() as storage:
        (sample,) = _heads(proposal_append_gt=False).label_and_sample_proposals(
            [_proposals(A_SHIFTED, C, B)], [targets]
        )
    assert sample.gt_classes.tolist() == [0, 2, 3]
    assert sample.proposal_boxes.tensor.tolist() == [A_SHIFTED, B, C]
    assert sample.gt_boxes.tensor[:2].tolist() == [A, B]
    assert list(sample.gt_ids)[:2] == ["a", "b"]
    assert storage.latest()["roi_head/num_fg_samples"][0] == 2
    assert storage.latest()["roi_head/num_bg_samples"][0] == 1


def test_truth_is_among_the_proposals():
    targets = _targets([B, A], [2, 0])
    (sample,) = _heads().label_and_sample_proposals([_proposals(C)], [targets])
    assert sample.gt_classes.tolist() == [2, 0, 3]


def test_image_without_objects_and_ignored_proposals():
    empty = _targets([], [])
    full = _targets([A], [1])
    heads = _heads(proposal_append_gt=False, proposal_matcher=Matcher([0.3, 0.9], [0, -1, 1]))
    first, second = heads.label_and_sample_proposals(
        [_proposals(A, B), _proposals(A_SHIFTED, A)], [empty, full]
    )
    assert first.gt_classes.tolist() == [3, 3]
    assert not first.has("gt_boxes")
    assert second.gt_classes.tolist() == [1]  # A_SHIFTED lies between the thresholds


def test_sample_size():
    targets = _targets([A, B, C], [0, 1, 2])
    background = [[50.0, float(i), 60, float(i) + 5] for i in range(20)]
    heads = _heads(batch_size_per_image=8, positive_fraction=0.25)
    (sample,) = heads.label_and_sample_proposals([_proposals(A, B, C, *background)], [targets])
    assert (sample.gt_classes < 3).sum() == 2
    assert len(sample) == 8


def test_foreground():
    samples = [_proposals(A, B, C), _proposals(A)]
    samples[0].gt_classes = torch.tensor([0, 3, -1])
    samples[1].gt_classes = torch.tensor([3])
    foreground, masks = select_foreground_proposals(samples, bg_label=3)
    assert [len(x) for x in foreground] == [1, 0]
    assert [mask.tolist() for mask in masks] == [[True, False, False], [False]]


def test_foreground_in_any_order():
    """A slice where it leads, as in a sample; else chosen by its mask. Images need not have any."""
    orders = [[0, 2, 3, 3], [3, 0, 3, 1], [-1, 2, 3, 3], [1, 1, 1, 1], []]
    samples = [_proposals(*[[0.0, 0, i + 1, 10] for i in range(len(order))]) for order in orders]
    for sample, order in zip(samples, orders, strict=True):
        sample.gt_classes = torch.tensor(order, dtype=torch.int64)
    foreground, masks = select_foreground_proposals(samples, bg_label=3)
    assert [x.gt_classes.tolist() for x in foreground] == [[0, 2], [0, 1], [2], [1, 1, 1, 1], []]
    for sample, chosen, mask in zip(samples, foreground, masks, strict=True):
        assert torch.equal(chosen.proposal_boxes.tensor, sample.proposal_boxes.tensor[mask])
    assert select_foreground_proposals([], bg_label=3) == ([], [])


def test_proposals_with_visible_keypoints():
    """Of A's copies: a keypoint on the border, outside, not labelled; and two of which one is inside."""
    points = [[[10.0, 10, 1], [30, 5, 2]], [[11, 5, 2]] * 2, [[5, 5, 0]] * 2, [[30, 5, 2], [5, 5, 2]]]
    proposals = _proposals(A, A, A, A)
    proposals.gt_keypoints = Keypoints(points)
    empty = _proposals()
    with EventStorage() as storage:
        selected, of_empty = select_proposals_with_visible_keypoints([proposals, empty])
        assert storage.latest()["keypoint_head/num_fg_samples"][0] == 2
    assert selected.gt_keypoints.tensor[:, 0].tolist() == [[10, 10, 1], [30, 5, 2]]
    assert len(of_empty) == 0
    with EventStorage() as storage:
        select_proposals_with_visible_keypoints([empty])
        assert storage.latest()["keypoint_head/num_fg_samples"][0] == 0


def test_keypoint_branch(tiny_cfg):
    """Trains on the RoI that holds its keypoint alone; predicts beside the masks, also where nothing is."""
    torch.manual_seed(0)
    keypoint_head = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 2 MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS [8,8]"
    heads = build_roi_heads(tiny_cfg("MODEL.KEYPOINT_ON", True, *keypoint_head.split()), SHAPES)
    features = {
        name: torch.randn(1, 16, 64 // shape.stride, 64 // shape.stride) for name, shape in SHAPES.items()
    }
    given = [
        Instances((64, 64), pred_boxes=Boxes([A, B]), pred_classes=torch.tensor([0, 2])),
        Instances((64, 64), pred_boxes=Boxes([]), pred_classes=torch.zeros(0, dtype=torch.int64)),
    ]
    proposals = _proposals(A, B)
    proposals.gt_classes = torch.tensor([0, 2])
    proposals.gt_keypoints = Keypoints([[[5, 5, 2], [2, 2, 0]], [[5, 5, 2], [2, 2, 0]]])
    one = _proposals(A)
    one.gt_classes = torch.tensor([0])
    one.gt_keypoints = proposals.gt_keypoints[:1]
    with EventStorage() as storage:
        losses = [heads._forward_keypoint(features, [each])["loss_keypoint"] for each in (proposals, one)]
    torch.testing.assert_close(*losses)
    assert storage.history("keypoint_head/num_fg_samples").latest() == 1
    losses[0].backward()
    assert all(p.grad.any() for name, p in heads.named_parameters() if name.startswith("keypoint_head"))
    pairs = {name: value.repeat(2, 1, 1, 1) for name, value in features.items()}
    result = heads.eval().forward_with_given_boxes(pairs, given)
    assert [x.pred_keypoints.shape for x in result] == [(2, 2, 3), (0, 2, 3)]
    assert [x.pred_masks.shape for x in result] == [(2, 1, 28, 28), (0, 1, 28, 28)]


def test_masks_in_given_boxes(tiny_cfg):
    torch.manual_seed(0)
    heads = build_roi_heads(tiny_cfg(), SHAPES).eval()
    assert isinstance(heads, StandardROIHeads)
    features = {
        name: torch.randn(2, 16, 64 // shape.stride, 64 // shape.stride) for name, shape in SHAPES.items()
    }
    given = [
        Instances((64, 64), pred_boxes=Boxes([A, B]), pred_classes=torch.tensor([0, 2])),
        Instances((64, 64), pred_boxes=Boxes([]), pred_classes=torch.zeros(0, dtype=torch.int64)),
    ]
    result = heads.forward_with_given_boxes(features, given)
    assert [x.pred_masks.shape for x in result] == [(2, 1, 28, 28), (0, 1, 28, 28)]


def test_no_proposals(tiny_cfg):
    """Training and testing with images in which nothing was proposed and nothing is."""
    heads = build_roi_heads(tiny_cfg(), SHAPES)
    features = {
        name: torch.randn(1, 16, 64 // shape.stride, 64 // shape.stride) for name, shape in SHAPES.items()
    }
    images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    targets = _targets([], [])
    _, losses = heads(images, features, [_proposals()], [targets])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask"}
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    (detections,), losses = heads.eval()(images, features, [_proposals()])
    assert not losses
    assert len(detections) == 0
    assert detections.pred_masks.shape == (0, 1, 28, 28)


def test_training_on_predicted_boxes(tiny_cfg, make_instances):
    torch.manual_seed(0)
    heads = build_roi_heads(tiny_cfg(), SHAPES)
    heads.train_on_pred_boxes = True
    features = {
        name: torch.randn(1, 16, 64 // shape.stride, 64 // shape.stride) for name, shape in SHAPES.items()
    }
    proposals, losses = heads(
        ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]),
        features,
        [_proposals(A, B)],
        [make_instances(64, 64, 2, 3)],
    )
    assert losses["loss_mask"].isfinite()
    assert not proposals[0].proposal_boxes.tensor.requires_grad


def test_a_keypoint_branch_of_a_subclass_is_called(tiny_cfg):
    class Heads(StandardROIHeads):
        def _forward_keypoint(self, features, instances):
            assert super()._forward_keypoint(features, instances) is instances
            return [len(image) for image in instances]

    heads = Heads(tiny_cfg(), SHAPES).eval()
    features = {f"p{i}": torch.randn(1, 16, 2 ** (7 - i), 2 ** (7 - i)) for i in range(2, 6)}
    given = Instances((64, 64), pred_boxes=Boxes([A, B]), pred_classes=torch.zeros(2, dtype=torch.int64))
    assert heads.forward_with_given_boxes(features, [given]) == [2]


def test_without_masks(tiny_cfg):
    heads = build_roi_heads(tiny_cfg("MODEL.MASK_ON", False), SHAPES)
    assert not heads.mask_on
    assert not heads.keypoint_on
    assert not any("mask" in name or "keypoint" in name for name in heads.state_dict())


def test_bad_settings(tiny_cfg):
    with pytest.raises(InputError, match=r"IN_FEATURES: \['p2', 'p7'\]: the backbone returns"):
        build_roi_heads(tiny_cfg("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p7"]), SHAPES)
    uneven = {**SHAPES, "p3": ShapeSpec(channels=8, stride=8)}
    with pytest.raises(InputError, match="channels must"):
        build_roi_heads(tiny_cfg(), uneven)
