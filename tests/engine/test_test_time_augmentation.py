"""Test-time augmentation: versions of an image, what merging does, and invariances that follow."""

import numpy as np
import pytest
import torch

from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.data import transforms as T
from panomask.engine import DatasetMapperTTA, GeneralizedRCNNWithTTA
from panomask.engine.test_time_augmentation import _unflip
from panomask.errors import InputError
from panomask.modeling import GeneralizedRCNN, build_model
from panomask.structures import Boxes, Instances


def _input(height: int = 64, width: int = 96, seed: int = 0) -> dict:
    pixels = np.random.default_rng(seed).integers(0, 255, (3, height, width), dtype=np.uint8)
    return {"image": torch.from_numpy(pixels), "height": height, "width": width}


def test_versions_of_an_image():
    mapper = DatasetMapperTTA([32, 64], max_size=72, flip=True)
    record = {**_input(), "height": 128, "width": 192, "image_id": 5}
    versions = mapper(record)
    assert [tuple(x["image"].shape) for x in versions] == [(3, 32, 48)] * 2 + [(3, 48, 72)] * 2
    assert torch.equal(versions[0]["image"].flip(2), versions[1]["image"])
    assert versions[0]["image"].dtype == torch.uint8
    assert all((x["height"], x["width"], x["image_id"]) == (128, 192, 5) for x in versions)
    box = np.array([[0.0, 64.0, 96.0, 128.0]])  # of the original image
    moved = [x["transforms"].apply_box(box).tolist() for x in versions]
    assert moved == [[[0, 16, 24, 32]], [[24, 16, 48, 32]], [[0, 24, 36, 48]], [[36, 24, 72, 48]]]
    for version in versions:
        there = version["transforms"].apply_box(box)
        np.testing.assert_allclose(version["transforms"].inverse().apply_box(there), box)
    assert "transforms" not in record


def test_the_config_says_which_versions_there_are():
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.AUG.MIN_SIZES", [40], "TEST.AUG.MAX_SIZE", 50, "TEST.AUG.FLIP", False])
    (version,) = DatasetMapperTTA(cfg)(_input())
    assert tuple(version["image"].shape) == (3, 33, 50)


@pytest.fixture
def cfg(tiny_run, tmp_path):
    """The tiny Mask R-CNN, which finds something at random weights."""
    cfg = get_cfg()
    cfg.merge_from_file(str(tiny_run))
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])
    cfg.merge_from_list(["MODEL.RPN.POST_NMS_TOPK_TEST", 10, "TEST.DETECTIONS_PER_IMAGE", 20])
    cfg.merge_from_list(["TEST.AUG.MIN_SIZES", [64, 80], "TEST.AUG.MAX_SIZE", 128])
    return cfg


def _build(cfg, *, seed: int = 0) -> GeneralizedRCNN:
    """A model whose scores are neither all alike nor all 0 and 1."""
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    for name, weight in model.named_parameters():
        if name.endswith("cls_score.weight"):
            weight.data *= 0.1
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8]),
    ],
    ids=["masks", "cascade", "keypoints"],
)
def test_the_image_as_it_is_gives_the_plain_result(cfg, opts):
    cfg.merge_from_list(["TEST.AUG.MIN_SIZES", [64], "TEST.AUG.FLIP", False, *opts])
    model = _build(cfg)
    record = {**_input(), "height": 128, "width": 192}
    plain = model([record])[0]["instances"]
    augmented = GeneralizedRCNNWithTTA(cfg, model).eval()([record])[0]["instances"]
    assert len(plain) == 20
    assert augmented.image_size == (128, 192)
    torch.testing.assert_close(augmented.pred_boxes.tensor, plain.pred_boxes.tensor)
    torch.testing.assert_close(augmented.scores, plain.scores)
    assert torch.equal(augmented.pred_classes, plain.pred_classes)
    assert (augmented.pred_masks != plain.pred_masks).sum() < 0.01 * plain.pred_masks.sum()
    assert augmented.get_fields().keys() == plain.get_fields().keys()
    if "MODEL.KEYPOINT_ON" in opts:
        # where they are highest is asked pixel by pixel, here in boxes of twice the size
        torch.testing.assert_close(augmented.pred_keypoint_heatmaps, plain.pred_keypoint_heatmaps)
    assert model.roi_heads.mask_on


@torch.no_grad()
@pytest.mark.parametrize("mask_on", [True, False])
def test_mirroring_the_image_mirrors_the_result(cfg, mask_on):
    """Image and mirror image have the same versions, so that nothing else may differ."""
    cfg.MODEL.MASK_ON = mask_on
    model = GeneralizedRCNNWithTTA(cfg, _build(cfg), batch_size=2).eval()
    record = _input()
    mirrored = {**record, "image": record["image"].flip(2)}
    first, second = (model([x])[0]["instances"] for x in (record, mirrored))
    x0, y0, x1, y1 = second.pred_boxes.tensor.unbind(1)
    back = torch.stack([96 - x1, y0, 96 - x0, y1], dim=1)
    torch.testing.assert_close(first.pred_boxes.tensor, back, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(first.scores, second.scores)
    assert len(first) == 20
    assert first.has("pred_masks") is mask_on
    if mask_on:
        differing = first.pred_masks != second.pred_masks.flip(2)
        assert differing.sum() < 0.01 * first.pred_masks.sum()


class _Stub(GeneralizedRCNN):
    """Gives what it is told for each width of image, and notes what it is asked for."""

    def __init__(self, found: dict[int, Instances]):
        torch.nn.Module.__init__(self)
        self.proposal_generator, self.input_format = torch.nn.Identity(), "BGR"
        self.roi_heads = torch.nn.Module()
        self.found, self.given = found, []

    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        assert not do_postprocess
        outputs = [self.found[x["image"].shape[2]] for x in batched_inputs]
        if detected_instances is None:
            return [x for x in outputs]
        self.given += detected_instances
        return outputs


def _found(width: int, boxes: list, scores: list, classes: list, **fields) -> Instances:
    size, scores, classes = (width, width), torch.tensor(scores), torch.tensor(classes)
    return Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes, **fields)


def _merge_cfg(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.AUG.MIN_SIZES", [10, 20], "TEST.AUG.FLIP", False, *opts])
    return cfg


def test_merging_by_hand():
    """The box of the small version covers that of the large one, in pixels of the original image (40)."""
    small = _found(10, [[0.0, 0, 5, 5], [5.0, 5, 10, 10]], [0.6, 0.5], [0, 1])
    large = _found(20, [[0.0, 0, 10, 9], [0.0, 0, 10, 10]], [0.9, 0.3], [0, 1])
    model = GeneralizedRCNNWithTTA(_merge_cfg(), _Stub({10: small, 20: large}))
    record = {"image": torch.zeros(3, 40, 40, dtype=torch.uint8)}
    (output,) = model([record])
    instances = output["instances"]
    assert instances.image_size == (40, 40)
    assert instances.pred_boxes.tensor.tolist() == [[0, 0, 20, 18], [20, 20, 40, 40], [0, 0, 20, 20]]
    assert instances.pred_classes.tolist() == [0, 1, 1]
    assert instances.scores.tolist() == pytest.approx([0.9, 0.5, 0.3])
    limited = _merge_cfg("TEST.DETECTIONS_PER_IMAGE", 1)
    assert len(GeneralizedRCNNWithTTA(limited, model.model)([record])[0]["instances"]) == 1


@pytest.mark.parametrize(("scores", "is_foreground"), [((0.9, 0.3), True), ((0.6, 0.3), False)])
def test_masks_are_averaged_in_the_merged_boxes(scores, is_foreground):
    small, large = (torch.full((1, 1, 4, 4), score) for score in scores)
    small = _found(10, [[0.0, 0, 5, 5]], [0.6], [0], pred_masks=small)
    large = _found(20, [[0.0, 0, 10, 10]], [0.9], [0], pred_masks=large)
    stub = _Stub({10: small, 20: large})
    (output,) = GeneralizedRCNNWithTTA(_merge_cfg("MODEL.MASK_ON", True), stub)(
        [{"image": torch.zeros(3, 40, 40, dtype=torch.uint8)}]
    )
    instances = output["instances"]
    assert instances.pred_masks.shape == (1, 40, 40)
    assert (instances.pred_masks[0, 5:15, 5:15] == is_foreground).all()
    assert not instances.pred_masks[0, 20:].any()
    assert [x.pred_boxes.tensor.tolist() for x in stub.given] == [[[0, 0, 5, 5]], [[0, 0, 10, 10]]]


@pytest.fixture
def two_sided():
    """A data set whose keypoints are left, right and middle."""
    name = "test_tta_keypoints"
    pairs = [("left", "right")]
    MetadataCatalog.get(name).set(
        keypoint_names=["left", "right", "middle"], keypoint_flip_map=pairs, thing_classes=["a"]
    )
    yield name
    MetadataCatalog.remove(name)


def test_keypoints_of_mirror_images_are_turned_back(two_sided):
    """Heatmaps of 5 x 5 cells; the mirror image shows left where right was, columns counted backwards."""
    cfg = _merge_cfg("MODEL.KEYPOINT_ON", True, "TEST.AUG.FLIP", True, "TEST.AUG.MIN_SIZES", [20])
    cfg.DATASETS.TEST = (two_sided,)
    heatmaps = torch.full((1, 3, 5, 5), -9.0)
    for keypoint, column in enumerate((0, 3, 2)):
        heatmaps[0, keypoint, 1, column] = 9.0
    mirrored = heatmaps[:, [1, 0, 2]].flip(3)
    seen = iter([heatmaps, mirrored])

    class Stub(_Stub):
        def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
            found = [_found(20, [[5.0, 5, 15, 15]], [0.5], [0]) for _ in batched_inputs]
            if detected_instances is not None:
                for instances in found:
                    instances.pred_keypoint_heatmaps = next(seen)
            return found

    (output,) = GeneralizedRCNNWithTTA(cfg, Stub({}))([{"image": torch.zeros(3, 20, 20, dtype=torch.uint8)}])
    instances = output["instances"]
    torch.testing.assert_close(instances.pred_keypoint_heatmaps, heatmaps)
    assert instances.pred_keypoints.shape == (1, 3, 3)
    # a box of 10 pixels and 5 cells: column k is around pixel 5 + 2k + 1, row 1 around pixel 8
    columns = instances.pred_keypoints[0, :, 0]
    assert columns.tolist() == pytest.approx([6, 12, 10], abs=1)
    assert instances.pred_keypoints[0, :, 1].tolist() == pytest.approx([8, 8, 8], abs=1)


def test_mirror_images_need_to_know_the_sides():
    with pytest.raises(InputError):
        GeneralizedRCNNWithTTA(_merge_cfg("MODEL.KEYPOINT_ON", True, "TEST.AUG.FLIP", True), _Stub({}))


@torch.no_grad()
def test_nothing_found(cfg):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    model = GeneralizedRCNNWithTTA(cfg, _build(cfg)).eval()
    instances = model([_input()])[0]["instances"]
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, 64, 96)


def test_an_image_is_read_from_its_file(cfg, tmp_path):
    model = GeneralizedRCNNWithTTA(cfg, _build(cfg)).eval()
    (output,) = model([{"file_name": str(tmp_path / "images" / "0.png")}])
    assert output["instances"].image_size == (96, 64)


def test_models_that_it_is_not_for_are_refused(cfg):
    with pytest.raises(InputError, match="for GeneralizedRCNN, not Linear"):
        GeneralizedRCNNWithTTA(cfg, torch.nn.Linear(1, 1))
    panoptic = cfg.clone()
    panoptic.MODEL.META_ARCHITECTURE, panoptic.MODEL.MASK_ON = "PanopticFPN", True
    with pytest.raises(InputError, match="for GeneralizedRCNN, not PanopticFPN"):
        GeneralizedRCNNWithTTA(panoptic, build_model(panoptic))
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    with pytest.raises(InputError, match="proposals that are read from files are not augmented"):
        GeneralizedRCNNWithTTA(cfg, build_model(cfg))


def test_an_even_number_of_flips_is_none():
    maps = torch.arange(4.0).reshape(1, 1, 2, 2)
    flip = T.HFlipTransform(2)
    assert torch.equal(_unflip(maps, T.TransformList([flip, T.NoOpTransform(), flip])), maps)
    turned = _unflip(maps, T.TransformList([flip, T.VFlipTransform(2)]))
    assert turned.flatten().tolist() == [3, 2, 1, 0]
