import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from panomask.config import get_cfg
from panomask.data import detection_utils
from panomask.data import transforms as T
from panomask.data.dataset_mapper import DatasetMapper
from panomask.errors import InputError
from panomask.structures import BitMasks, BoxMode, PolygonMasks

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def dataset_dict(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a_seg.png")
    polygon = [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]
    box = {"bbox": [5, 5, 10, 10], "bbox_mode": BoxMode.XYWH_ABS}
    crowd = mask_util.encode(np.asfortranarray(np.ones((20, 30), np.uint8)))
    return {
        "file_name": str(tmp_path / "a.png"),
        "sem_seg_file_name": str(tmp_path / "a_seg.png"),
        "image_id": 7,
        "height": 20,
        "width": 30,
        "annotations": [
            {
                **box,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [polygon],
                "keypoints": [6, 6, 2, 14, 6, 1],
            },
            {**box, "category_id": 2, "segmentation": [polygon], "iscrowd": 0},
            {**box, "category_id": 3, "segmentation": crowd, "iscrowd": 1},
        ],
    }


def _mapper(is_train=True, **kwargs):
    arguments = {"augmentations": [T.HFlipTransform(30)], "image_format": "RGB", **kwargs}
    return DatasetMapper(is_train, **arguments)


def test_training_sample(dataset_dict):
    before = copy.deepcopy(dataset_dict)
    sample = _mapper(use_instance_mask=True)(dataset_dict)
    assert dataset_dict == before  # not edited
    assert sample["image"].dtype == torch.uint8
    np.testing.assert_array_equal(sample["image"].numpy(), PIXELS[:, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(sample["sem_seg"].numpy(), PIXELS[:, ::-1, 0])
    assert sample["sem_seg"].dtype == torch.int64
    instances = sample["instances"]
    assert instances.image_size == (20, 30)
    assert instances.gt_classes.tolist() == [1, 2]  # no crowd
    assert instances.gt_boxes.tensor.tolist() == [[15, 5, 25, 15]] * 2
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert not instances.has("gt_keypoints")
    assert sample.keys() == {"file_name", "image_id", "height", "width", "image", "sem_seg", "instances"}


def test_inference_sample_has_no_truth(dataset_dict):
    sample = _mapper(is_train=False, augmentations=[T.Resize((40, 60))])(dataset_dict)
    assert sample["image"].shape == (3, 40, 60)
    assert (sample["height"], sample["width"]) == (20, 30)
    assert "annotations" not in sample
    assert "instances" not in sample


def test_keypoints_swap_and_missing_ones_are_unlabelled(dataset_dict):
    sample = _mapper(use_keypoint=True, keypoint_hflip_indices=[1, 0])(dataset_dict)
    keypoints = sample["instances"].gt_keypoints.tensor.tolist()
    assert keypoints == [[[16, 6, 1], [24, 6, 2]], [[0, 0, 0], [0, 0, 0]]]


def test_an_object_with_another_number_of_keypoints_is_named(dataset_dict):
    mapper = _mapper(use_keypoint=True, keypoint_hflip_indices=[1, 0])
    dataset_dict["annotations"][0]["keypoints"] = np.array([[6, 6, 2], [14, 6, 1]])  # an array will do
    assert len(mapper(dataset_dict)["instances"]) == 2
    dataset_dict["annotations"][0]["keypoints"] = [6, 6, 2]
    with pytest.raises(InputError, match=r"object 0 has 1 keypoints .* names 2"):
        mapper(dataset_dict)


def test_bitmask_format(dataset_dict):
    sample = _mapper(use_instance_mask=True, instance_mask_format="bitmask")(dataset_dict)
    assert isinstance(sample["instances"].gt_masks, BitMasks)
    assert sample["instances"].gt_masks.tensor.sum((1, 2)).tolist() == [100, 100]


def test_crop_recomputes_boxes_and_drops_what_it_cuts_off(dataset_dict):
    far = {"bbox": [25, 16, 3, 3], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 4}
    far["segmentation"] = [[25.0, 16.0, 28.0, 16.0, 28.0, 19.0]]
    dataset_dict["annotations"].append(far)
    mapper = _mapper(
        augmentations=[T.CropTransform(0, 0, 10, 12)], use_instance_mask=True, recompute_boxes=True
    )
    instances = mapper(dataset_dict)["instances"]
    assert instances.gt_classes.tolist() == [1, 2]
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 10, 12]] * 2


def test_image_without_objects(dataset_dict):
    dataset_dict["annotations"] = []
    assert len(_mapper(use_instance_mask=True)(dataset_dict)["instances"]) == 0


@pytest.mark.parametrize("segmentation", [None, []])
def test_missing_mask_names_image_and_object(dataset_dict, segmentation):
    dataset_dict["annotations"][1]["segmentation"] = segmentation
    with pytest.raises(InputError) as error:
        _mapper(use_instance_mask=True)(dataset_dict)
    assert str(error.value).startswith(dataset_dict["file_name"])
    assert "object 1 has no segmentation" in str(error.value)
    assert "MODEL.MASK_ON" in str(error.value)
    assert len(_mapper()(dataset_dict)["instances"]) == 2  # boxes alone
    dataset_dict["annotations"][1]["id"] = 77
    with pytest.raises(InputError, match=r"object 1 \(annotation id 77\) has no segmentation"):
        _mapper(use_instance_mask=True)(dataset_dict)


@pytest.mark.parametrize("is_train", [True, False])
def test_precomputed_proposals(dataset_dict, is_train):
    boxes = np.array([[0, 0, 4, 4], [2, 2, 8, 8], [1, 1, 3, 3]], np.float32)
    dataset_dict |= {"proposal_boxes": boxes, "proposal_objectness_logits": np.array([3, 2, 1], np.float32)}
    dataset_dict |= {"proposal_bbox_mode": BoxMode.XYXY_ABS}
    result = _mapper(precomputed_proposal_topk=2, is_train=is_train)(dataset_dict)
    assert result["proposals"].proposal_boxes.tensor.tolist() == [[26, 0, 30, 4], [22, 2, 28, 8]]
    assert result["proposals"].image_size == tuple(result["image"].shape[1:])
    assert "proposal_boxes" not in result
    assert "proposal_boxes" in dataset_dict
    assert "proposals" not in _mapper(is_train=is_train)(dataset_dict)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="recompute_boxes"):
        _mapper(recompute_boxes=True)


def test_from_config(dataset_dict):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = (16, 16)
    mapper = DatasetMapper(cfg, True)
    assert mapper.recompute_boxes
    assert mapper(dataset_dict)["image"].shape == (3, 40, 40)
    assert DatasetMapper(cfg, is_train=False)(dataset_dict)["image"].shape == (3, 800, 1200)


def test_number_of_proposals_from_config():
    cfg = get_cfg()
    cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN, cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST = 5, 3
    assert [DatasetMapper(cfg, is_train).proposal_topk for is_train in (True, False)] == [None, None]
    cfg.MODEL.LOAD_PROPOSALS = True
    assert [DatasetMapper(cfg, is_train).proposal_topk for is_train in (True, False)] == [5, 3]


def test_large_scale_jitter_recomputes_boxes(dataset_dict):
    cfg = get_cfg()
    cfg.merge_from_list("MODEL.MASK_ON True INPUT.RANDOM_FLIP none INPUT.LSJ.ENABLED True".split())
    # 20 x 30 pixels fit into 4 x (24, 15) at 60 wide: twice as large, and 24 x 15 of it are cut out
    cfg.merge_from_list(["INPUT.LSJ.SIZE", (24, 15), "INPUT.LSJ.MIN_SCALE", 4, "INPUT.LSJ.MAX_SCALE", 4])
    mapper = DatasetMapper(cfg, True)
    assert mapper.recompute_boxes
    sample = mapper(dataset_dict)
    assert sample["image"].shape == (3, 24, 15)
    instances = sample["instances"]
    assert instances.image_size == (24, 15)
    torch.testing.assert_close(instances.gt_boxes.tensor, instances.gt_masks.get_bounding_boxes().tensor)
    assert not DatasetMapper(cfg, False).recompute_boxes


def test_label_files_are_checked_in_training(dataset_dict, tmp_path):
    labels = np.array([[0, 2, 255]] * 20, dtype=np.uint8).repeat(10, axis=1)
    Image.fromarray(labels).save(dataset_dict["sem_seg_file_name"])
    assert _mapper(num_sem_seg_classes=3)(dataset_dict)["sem_seg"][0, ::10].tolist() == [255, 2, 0]
    with pytest.raises(InputError, match=r"a_seg\.png: label 2, but there are 2 classes"):
        _mapper(num_sem_seg_classes=2)(dataset_dict)
    assert "sem_seg" in _mapper(num_sem_seg_classes=2, is_train=False)(dataset_dict)
    with pytest.raises(InputError, match=r"a_seg\.png: label 255"):
        _mapper(num_sem_seg_classes=3, sem_seg_ignore_label=7)(dataset_dict)
    Image.fromarray(labels[:19]).save(dataset_dict["sem_seg_file_name"])
    with pytest.raises(InputError, match=r"a_seg\.png: 30 x 19 .* its image is 30 x 20"):
        _mapper()(dataset_dict)


def test_jitter_pads_label_files_by_the_ignored_label(dataset_dict):
    cfg = get_cfg()
    cfg.merge_from_list("INPUT.RANDOM_FLIP none INPUT.LSJ.ENABLED True".split())
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 54]
    )
    cfg.merge_from_list(["INPUT.LSJ.SIZE", (40, 30), "INPUT.LSJ.MIN_SCALE", 1.0, "INPUT.LSJ.MAX_SCALE", 1.0])
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(dataset_dict["sem_seg_file_name"])
    sem_seg = DatasetMapper(cfg, True)(dataset_dict)["sem_seg"]
    assert sem_seg.shape == (40, 30)
    assert sem_seg.sum(dim=1).tolist() == [0] * 20 + [54 * 30] * 20


def test_subclass_overrides_annotations(dataset_dict):
    class BoxesOnly(DatasetMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            dataset_dict["instances"] = len(dataset_dict.pop("annotations"))

    assert BoxesOnly(get_cfg(), True)(dataset_dict)["instances"] == 3


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize(
    "augmentation", [T.NoOpTransform(), T.HFlipTransform(30), T.CropTransform(0, 0, 20, 9)]
)
def test_the_dict_stays_as_it_is_and_shares_nothing(dataset_dict, is_train, as_array, augmentation):
    if as_array:
        first = dataset_dict["annotations"][0]
        first["bbox"] = np.array(first["bbox"], dtype=np.float64)
        first["segmentation"] = [np.array(ring) for ring in first["segmentation"]]
        first["keypoints"] = np.array(first["keypoints"], dtype=np.float64)
    dataset_dict["notes"] = [{"of": "a user"}]
    before = copy.deepcopy(dataset_dict)
    mapper = _mapper(
        is_train,
        augmentations=[augmentation],
        use_instance_mask=True,
        use_keypoint=True,
        keypoint_hflip_indices=[1, 0],
    )
    sample = mapper(dataset_dict)
    np.testing.assert_equal(dataset_dict, before)
    sample["image"].zero_()
    sample["notes"][0]["of"] = "another"
    if is_train:
        sample["instances"].gt_boxes.tensor.zero_()
        sample["instances"].gt_keypoints.tensor.zero_()
        for rings in sample["instances"].gt_masks.polygons:
            for ring in rings:
                ring[:] = 0
    np.testing.assert_equal(dataset_dict, before)


def _edit(dataset_dict):
    for annotation in dataset_dict.pop("annotations"):
        annotation["bbox"][0] = -1
        annotation["segmentation"] = None


def test_a_subclass_may_edit_the_annotations(dataset_dict, monkeypatch):
    class Editing(DatasetMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            _edit(dataset_dict)

    before = copy.deepcopy(dataset_dict)
    Editing(get_cfg(), True)(dataset_dict)
    assert dataset_dict == before
    mapper = _mapper()
    monkeypatch.setattr(mapper, "_transform_annotations", lambda dataset_dict, *_: _edit(dataset_dict))
    mapper(dataset_dict)
    assert dataset_dict == before


def test_a_subclass_may_go_object_by_object(dataset_dict):
    """As Detectron2's mapper does, and those made of it."""

    class ByObject(DatasetMapper):
        def _transform_annotations(self, dataset_dict, transforms, image_shape):
            annotations = [
                detection_utils.transform_instance_annotations(annotation, transforms, image_shape)
                for annotation in dataset_dict.pop("annotations")
                if annotation.get("iscrowd", 0) == 0
            ]
            for annotation in annotations:
                annotation.pop("keypoints", None)
            instances = detection_utils.annotations_to_instances(annotations, image_shape)
            dataset_dict["instances"] = detection_utils.filter_empty_instances(instances)

    arguments = {"augmentations": [T.ResizeTransform(20, 30, 40, 60)], "image_format": "RGB"}
    found = ByObject(True, **arguments, use_instance_mask=True)(dataset_dict)["instances"]
    expected = _mapper(**arguments, use_instance_mask=True)(dataset_dict)["instances"]
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    for rings, expected_rings in zip(found.gt_masks, expected.gt_masks, strict=True):
        np.testing.assert_array_equal(rings, expected_rings)
