"""Panoptic FPN: the merge of things and stuff, its losses and its output."""

import numpy as np
import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.modeling import build_model
from panomask.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from panomask.structures import Instances

PANOPTIC = """MODEL.META_ARCHITECTURE PanopticFPN  MODEL.SEM_SEG_HEAD.NUM_CLASSES 4
    MODEL.SEM_SEG_HEAD.CONVS_DIM 32""".split()


def _instances(scores, classes, masks):
    masks = torch.as_tensor(np.array(masks, dtype=bool)).reshape(len(scores), 4, 6)
    return Instances(
        (4, 6), scores=torch.tensor(scores), pred_classes=torch.tensor(classes), pred_masks=masks
    )


def _columns(*columns):
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, list(columns)] = True
    return mask


SEMANTIC = torch.tensor([[0, 0, 0, 2, 2, 1]] * 4)
"""Things in three columns, 8 pixels of label 2 and 4 of label 1."""


def test_better_instances_take_their_pixels_first():
    masks = [_columns(1, 2, 3), _columns(0, 1), _columns(1), _columns(5)]
    found = _instances([0.8, 0.9, 0.7, 0.4], [5, 6, 7, 8], masks)
    ids, segments_info = combine_semantic_and_instance_outputs(found, SEMANTIC, 0.5, 4, 0.5)
    # The second has 8 pixels; the first loses a third of its own; of the third all are taken; the fourth is
    # too unsure. Label 2 keeps one column, label 1 another, in the order of the labels.
    assert ids.dtype == torch.int32
    assert ids.tolist() == [[1, 1, 2, 2, 4, 3]] * 4
    assert segments_info == [
        {"id": 1, "isthing": True, "score": pytest.approx(0.9), "category_id": 6, "instance_id": 1},
        {"id": 2, "isthing": True, "score": pytest.approx(0.8), "category_id": 5, "instance_id": 0},
        {"id": 3, "isthing": False, "category_id": 1, "area": 4},
        {"id": 4, "isthing": False, "category_id": 2, "area": 4},
    ]


def test_thresholds_are_met_by_what_equals_them():
    found = _instances([0.5, 0.25], [0, 1], [_columns(0, 1), _columns(1, 2)])
    ids, segments_info = combine_semantic_and_instance_outputs(found, SEMANTIC, 0.5, 8, 0.25)
    assert ids.tolist() == [[1, 1, 2, 3, 3, 0]] * 4
    assert [segment["category_id"] for segment in segments_info] == [0, 1, 2]
    ids, _ = combine_semantic_and_instance_outputs(found, SEMANTIC, 0.49, 9, 0.26)
    assert ids.tolist() == [[1, 1, 0, 0, 0, 0]] * 4
    ids, _ = combine_semantic_and_instance_outputs(found, SEMANTIC, 0.5 - 1e-12, 0, 0.25)
    assert ids.tolist() == [[1, 1, 0, 3, 3, 2]] * 4


def test_without_instances():
    ids, segments_info = combine_semantic_and_instance_outputs(_instances([], [], []), SEMANTIC, 0.5, 0, 0.5)
    assert ids.tolist() == [[0, 0, 0, 2, 2, 1]] * 4
    assert [segment["id"] for segment in segments_info] == [1, 2]
    nothing = torch.zeros(4, 6, dtype=torch.int64)
    ids, segments_info = combine_semantic_and_instance_outputs(_instances([], [], []), nothing, 0.5, 0, 0.5)
    assert not ids.any()
    assert segments_info == []


def test_a_segment_without_pixels_is_none():
    """An empty mask, one that is covered, and stuff that is covered: whatever the thresholds allow."""
    found = _instances([0.9, 0.8, 0.7], [0, 1, 2], [_columns(), _columns(4, 5), _columns(4)])
    ids, segments_info = combine_semantic_and_instance_outputs(found, SEMANTIC, 1.0, 0, 0.0)
    assert ids.tolist() == [[0, 0, 0, 2, 1, 1]] * 4
    assert [(segment["isthing"], segment["category_id"]) for segment in segments_info] == [
        (True, 1),
        (False, 2),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_map_agrees_with_one_made_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    count, size = 12, (4, 6)
    masks = rng.random((count, *size)) < rng.random((count, 1, 1))
    scores = np.round(rng.random(count), 1).astype(np.float32)  # some tie
    classes = rng.integers(0, 5, count)
    semantic = rng.integers(0, 4, size)
    expected = np.zeros(size, dtype=int)
    for idx in np.argsort(-scores, kind="stable"):
        taken = (masks[idx] & (expected > 0)).sum() / max(masks[idx].sum(), 1)
        if scores[idx] >= 0.3 and taken <= 0.4 and masks[idx].any():
            expected[masks[idx] & (expected == 0)] = expected.max() + 1
    num_things = expected.max()
    for label in (1, 2, 3):
        free = (semantic == label) & (expected == 0)
        if free.sum() >= 2:
            expected[free] = expected.max() + 1

    found = _instances(scores, classes, masks)
    ids, segments_info = combine_semantic_and_instance_outputs(found, torch.as_tensor(semantic), 0.4, 2, 0.3)
    assert ids.tolist() == expected.tolist()
    assert torch.equal(found.pred_masks, torch.as_tensor(masks))  # the caller's are left as they are
    assert [x["id"] for x in segments_info] == list(range(1, expected.max() + 1))
    assert [x["isthing"] for x in segments_info] == [x["id"] <= num_things for x in segments_info]
    for segment in segments_info:
        pixels = expected == segment["id"]
        if segment["isthing"]:
            assert segment["category_id"] == classes[segment["instance_id"]]
            assert (masks[segment["instance_id"]] | ~pixels).all()
        else:
            assert set(semantic[pixels]) == {segment["category_id"]}
            assert segment["area"] == pixels.sum()


@pytest.fixture(scope="module")
def make_panoptic_input(make_input, golden_recipe):
    """make_panoptic_input(height, width, count=2): an input with objects and labels of four classes."""

    def make(height, width, count=2, seed=0):
        labels = torch.from_numpy(golden_recipe.semantic_map(height, width, 4, seed=seed))
        return {**make_input(height, width, count, seed=seed), "sem_seg": labels}

    return make


def test_every_parameter_learns(tiny_cfg, make_panoptic_input):
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*PANOPTIC))
    losses = model([make_panoptic_input(64, 64, seed=1), make_panoptic_input(48, 64, seed=2)])
    assert set(losses) == {
        *("loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")
    }
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_training_without_objects_or_labels(tiny_cfg, make_panoptic_input):
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*PANOPTIC))
    batch = [make_panoptic_input(64, 64, count=0)]
    batch[0]["sem_seg"].fill_(255)
    losses = model(batch)
    assert losses["loss_sem_seg"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_instance_loss_weight_is_of_the_heads_alone(tiny_cfg, make_panoptic_input):
    batch = [make_panoptic_input(64, 64, seed=1)]
    losses = []
    for weight in (1.0, 0.25):
        torch.manual_seed(0)
        model = build_model(tiny_cfg(*PANOPTIC, "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", weight))
        torch.manual_seed(0)
        losses.append({name: loss.item() for name, loss in model(batch).items()})
    factors = {name: pytest.approx(0.25) for name in ("loss_cls", "loss_box_reg", "loss_mask")}
    assert {name: losses[1][name] / loss for name, loss in losses[0].items()} == {
        **{name: pytest.approx(1.0) for name in losses[0]},
        **factors,
    }


@torch.no_grad()
def test_output(tiny_cfg, make_input):
    torch.manual_seed(0)
    thresholds = """MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0  MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT 1
        MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH 0.0"""
    model = build_model(tiny_cfg(*PANOPTIC, *thresholds.split())).eval()
    batch = [{**make_input(64, 64), "height": 100, "width": 50}, make_input(48, 64)]
    with EventStorage():
        outputs = model(batch)
    for output, size in zip(outputs, [(100, 50), (48, 64)], strict=True):
        assert set(output) == {"sem_seg", "instances", "panoptic_seg"}
        assert output["sem_seg"].shape == (4, *size)
        assert output["instances"].image_size == size
        ids, segments_info = output["panoptic_seg"]
        assert ids.shape == size
        assert set(ids.unique().tolist()) - {0} == {x["id"] for x in segments_info}
    model.combine = False
    assert set(model(batch)[0]) == {"sem_seg", "instances"}
    detections, logits = model.inference(batch, do_postprocess=False)
    assert [x.image_size for x in detections] == [(64, 64), (48, 64)]
    assert logits.shape == (2, 4, 64, 64)


def test_labels_are_asked_for(tiny_cfg, make_input):
    model = build_model(tiny_cfg(*PANOPTIC))
    with pytest.raises(InputError, match="PanopticFPN learns from 'sem_seg', which an input does not have"):
        model([make_input(64, 64)])
