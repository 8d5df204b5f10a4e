"""From input to output size, by hand."""

import torch

from panomask.modeling import detector_postprocess, sem_seg_postprocess
from panomask.structures import Boxes, Instances


def _detections() -> Instances:
    boxes = Boxes([[0.0, 0, 10, 20], [15, 5, 20, 20], [25, 5, 30, 10]])  # the third lies outside of the image
    return Instances((20, 20), pred_boxes=boxes, scores=torch.tensor([0.9, 0.8, 0.7]))


def test_boxes_are_scaled_clipped_and_dropped():
    detections = _detections()
    result = detector_postprocess(detections, 40, 10)
    assert result.image_size == (40, 10)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 5, 40], [7.5, 10, 10, 40]]
    torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.8]))
    # The argument is as it was.
    assert len(detections) == 3
    assert detections.image_size == (20, 20)
    assert detections.pred_boxes.tensor[0].tolist() == [0, 0, 10, 20]


def test_masks_are_pasted():
    detections = _detections()
    masks = torch.zeros(3, 1, 4, 4)
    masks[0] = 1.0
    masks[1, 0, :2] = 1.0  # the upper half
    detections.pred_masks = masks
    result = detector_postprocess(detections, 20, 20)
    assert result.pred_masks.shape == (2, 20, 20)
    assert result.pred_masks.dtype == torch.bool
    first = torch.zeros(20, 20, dtype=torch.bool)
    first[:, :10] = True
    # Pasting softens the outermost half cell, more than a pixel here: compare inside and outside.
    assert result.pred_masks[0, 3:17, 2:8].all()
    assert not result.pred_masks[0, :, 10:].any()
    assert result.pred_masks[1, 8:11, 17:19].all()
    assert not result.pred_masks[1, 14:].any()


def test_keypoints_are_scaled():
    detections = _detections()
    detections.pred_keypoints = torch.tensor([[[2.0, 4.0, 0.5]]]).repeat(3, 1, 1)
    result = detector_postprocess(detections, 40, 10)
    assert result.pred_keypoints[0].tolist() == [[1.0, 8.0, 0.5]]
    assert detections.pred_keypoints[0].tolist() == [[2.0, 4.0, 0.5]]


def test_proposals():
    proposals = Instances(
        (20, 20), proposal_boxes=Boxes([[0.0, 0, 10, 20]]), objectness_logits=torch.tensor([1.0])
    )
    assert detector_postprocess(proposals, 10, 20).proposal_boxes.tensor.tolist() == [[0, 0, 10, 10]]


def test_no_detections():
    empty = Instances(
        (20, 20), pred_boxes=Boxes([]), scores=torch.zeros(0), pred_masks=torch.zeros(0, 1, 4, 4)
    )
    result = detector_postprocess(empty, 30, 40)
    assert len(result) == 0
    assert result.pred_masks.shape == (0, 30, 40)


def test_semantic_logits_lose_their_padding_and_are_resized():
    padded = torch.full((2, 4, 4), 99.0)
    padded[:, :2, :2] = torch.tensor([[[0.0, 4.0], [0.0, 4.0]], [[1.0, 1.0], [5.0, 5.0]]])
    resized = sem_seg_postprocess(padded, (2, 2), 4, 2)
    # The new rows lie at -1/4, 1/4, 3/4, 5/4 of the old ones; beyond the old ones' centres nothing changes.
    assert resized.tolist() == [[[0.0, 4.0]] * 4, [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [5.0, 5.0]]]
    assert torch.equal(sem_seg_postprocess(padded, (2, 2), 2, 2), padded[:, :2, :2])
