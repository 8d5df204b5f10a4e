"""Models of the zoo compute what Detectron2 recorded: one body for all of them."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from panomask.structures import Boxes, Instances

FILES = [
    json.loads(lzma.decompress((Path(__file__).parents[1] / f"golden_{family}.json.xz").read_bytes()))
    for family in ("rcnn", "panoptic", "dense")
]
GOLDEN = {kind: {k: v for file in FILES for k, v in file[kind].items()} for kind in ("inference", "training")}
"""Kind -> name -> what Detectron2 recorded, its masks and detections thinned out."""

QUICK = {
    "inference": {"mask_rcnn_R_50_FPN_1x", "cascade_mask_rcnn_R_50_FPN_1x", "panoptic_fpn_R_50_1x"}
    | {"fcos_R_50_FPN_1x", "retinanet_R_50_FPN_1x"},
    "training": {
        "mask_rcnn_R_50_FPN_1x",
        "semantic_R_50_FPN_1x",
        "fcos_R_50_FPN_1x",
        "retinanet_R_50_FPN_1x",
    },
}
"""What also runs where slow tests do not; of training the first step alone."""


NUM_STEPS = {"faster_rcnn_R_50_FPN_1x": 2, "keypoint_rcnn_R_50_FPN_1x": 2}
"""Training steps compared, where they are not 3.

In the third step of these two, some proposals overlap by the threshold of the suppression, to within 3e-6.
Rounding, which changes with the number of threads, decides which of them stay: recorded numbers come out of
Faster R-CNN with one thread and of Keypoint R-CNN with sixteen; with two threads, one RoI of 2010 and one of
2875 is another.
"""


def _cases(kind):
    return [
        pytest.param(name, marks=() if name in QUICK[kind] else pytest.mark.slow) for name in GOLDEN[kind]
    ]


@pytest.mark.parametrize("name", _cases("inference"))
def test_golden_inference(golden_checks, golden_recipe, zoo_cfg, name):
    recorded = GOLDEN["inference"][name]
    golden_checks.check_inference(golden_recipe, zoo_cfg(recorded["config"], *recorded["opts"]), recorded)


@pytest.mark.parametrize("name", sorted(QUICK["training"]))
def test_golden_first_step(golden_checks, golden_recipe, zoo_cfg, name):
    recorded = GOLDEN["training"][name]
    golden_checks.check_training(golden_recipe, _training_cfg(zoo_cfg, recorded), recorded, num_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(GOLDEN["training"]))
def test_golden_training(golden_checks, golden_recipe, zoo_cfg, name):
    recorded = GOLDEN["training"][name]
    cfg = _training_cfg(zoo_cfg, recorded)
    golden_checks.check_training(golden_recipe, cfg, recorded, num_steps=NUM_STEPS.get(name, 3))


def _training_cfg(zoo_cfg, recorded):
    return zoo_cfg(recorded["config"], *recorded["opts"], "SOLVER.BASE_LR", recorded["base_lr"])


def _detections():
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[:, :10] = True
    return Instances(
        (20, 20),
        pred_boxes=Boxes([[0.0, 0, 10, 10], [5.0, 5, 20, 20]]),
        scores=torch.tensor([0.9, 0.8]),
        pred_classes=torch.tensor([3, 1]),
        pred_masks=masks,
        pred_keypoints=torch.tensor([[[1.0, 2.0, 0.5]], [[3.0, 4.0, 0.6]]]),
    )


def test_differences_are_seen(golden_checks):
    """The comparison lets rounding and another order pass, and nothing else."""
    found = _detections()
    expected = {
        "image_size": [20, 20],
        "n": 2,
        "boxes": found.pred_boxes.tensor.tolist(),
        "scores": found.scores.tolist(),
        "classes": found.pred_classes.tolist(),
        "mask_rle": [coco_mask.encode(np.asfortranarray(x))["counts"].decode() for x in found.pred_masks],
        "mask_area": [200, 200],
        "keypoints": found.pred_keypoints.flatten(1).tolist(),
    }
    golden_checks.check_instances(found[torch.tensor([1, 0])], expected)
    changes = {
        "pred_boxes": Boxes(found.pred_boxes.tensor + torch.tensor([0.02, 0, 0, 0])),
        "scores": found.scores + 2e-4,
        "pred_classes": torch.tensor([3, 2]),
        "pred_masks": found.pred_masks.roll(1, dims=1),
        "pred_keypoints": found.pred_keypoints + torch.tensor([0.06, 0, 0]),
    }
    for name, value in changes.items():
        changed = _detections()
        changed.set(name, value)
        with pytest.raises(AssertionError):
            golden_checks.check_instances(changed, expected)
    with pytest.raises(AssertionError):
        golden_checks.check_instances(found[:1], expected)


def test_differences_of_maps_are_seen(golden_checks):
    ids = torch.ones(20, 20, dtype=torch.int32)
    ids[:5] = 2
    rle = {str(i): coco_mask.encode(np.asfortranarray(ids == i))["counts"].decode() for i in (1, 2)}
    segments_info = [
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 3, "instance_id": 0},
        {"id": 2, "isthing": False, "category_id": 3, "area": 100},
    ]
    expected = {
        "segments_info": segments_info,
        "segment_area": {"1": 300, "2": 100},
        "segment_rle": rle,
    }
    golden_checks.check_panoptic_seg((ids, segments_info), expected)
    changed = [{**segments_info[0], "score": 0.89}, segments_info[1]]
    for actual in ((ids.roll(2, dims=0), segments_info), (ids, changed), (ids, segments_info[:1])):
        with pytest.raises(AssertionError):
            golden_checks.check_panoptic_seg(actual, expected)

    logits = torch.stack([ids.float(), 3 - ids.float()])
    expected = {
        **{"shape": [2, 20, 20], "mean": 1.5, "std": logits.double().std().item(), "absmax": 2},
        **{"head": [2.0] * 8, "argmax_rle": [rle["2"], rle["1"]]},
    }
    golden_checks.check_sem_seg(logits, expected)
    for changed in (logits * 1.001, logits.roll(1, dims=1).roll(-1, dims=2), logits.flip(0)):
        with pytest.raises(AssertionError):
            golden_checks.check_sem_seg(changed, expected)
