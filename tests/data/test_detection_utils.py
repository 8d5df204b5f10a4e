import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from panomask.config import get_cfg
from panomask.data import DatasetCatalog, MetadataCatalog, detection_utils
from panomask.data import transforms as T
from panomask.errors import InputError
from panomask.structures import BitMasks, BoxMode, PolygonMasks

SIZE = (10, 12)
POLYGON = [2.0, 3.0, 8.0, 3.0, 8.0, 7.0, 2.0, 7.0]  # the rectangle [2, 8] x [3, 7]


def _mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[3:7, 2:8] = 1
    return mask


def _compressed():
    return mask_util.encode(np.asfortranarray(_mask()))


def _uncompressed():
    flat = _mask().ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(SIZE), "counts": counts}


def _text_counts():
    return {"size": list(SIZE), "counts": _compressed()["counts"].decode()}


def _anno(segmentation=None, category=3, **fields):
    anno = {"bbox": [2, 3, 6, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": category, **fields}
    return anno if segmentation is None else {**anno, "segmentation": segmentation}


SEGMENTATIONS = {
    "polygon": lambda: [list(POLYGON)],
    "compressed": _compressed,
    "uncompressed": _uncompressed,
    "text": _text_counts,
    "array": _mask,
}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_every_kind_of_segmentation_moves_with_its_box(kind):
    anno = detection_utils.transform_instance_annotations(
        _anno(SEGMENTATIONS[kind]()), [T.HFlipTransform(12)], SIZE
    )
    assert anno["bbox"].tolist() == [4, 3, 10, 7]
    assert anno["bbox_mode"] == BoxMode.XYXY_ABS
    masks = detection_utils.annotations_to_instances([anno], SIZE, "bitmask").gt_masks
    np.testing.assert_array_equal(masks.tensor[0].numpy(), _mask()[:, ::-1].astype(bool))


def test_boxes_are_clipped_to_the_image():
    crop = T.CropTransform(4, 0, 3, 10)
    anno = detection_utils.transform_instance_annotations(_anno(), crop, (10, 3))
    assert anno["bbox"].tolist() == [0, 3, 3, 7]


def test_mask_of_another_size_than_its_image_is_refused():
    wrong = mask_util.encode(np.asfortranarray(np.ones((5, 5), np.uint8)))
    with pytest.raises(InputError, match=r"5 x 5.*10 x 12"):
        detection_utils.transform_instance_annotations(_anno(wrong), T.NoOpTransform(), SIZE)


@pytest.mark.parametrize("segmentation", [7, {"size": [3, 3]}, np.zeros((2, 2, 2))])
def test_unknown_segmentation_is_refused(segmentation):
    with pytest.raises(InputError, match=r"polygons|\(H, W\)"):
        detection_utils.transform_instance_annotations(_anno(segmentation), T.NoOpTransform(), SIZE)


@pytest.mark.parametrize("segmentation", [list(POLYGON), [POLYGON[:-1]], [np.reshape(POLYGON, (4, 2))]])
def test_polygons_of_another_shape_are_refused(segmentation):
    with pytest.raises(InputError, match=r"list of lists, \[\[x, y, x, y"):
        detection_utils.transform_instance_annotations(_anno(segmentation), T.NoOpTransform(), SIZE)


@pytest.mark.parametrize("key", ["bbox", "bbox_mode"])
def test_an_annotation_without_a_box_is_refused(key):
    anno = _anno()
    del anno[key]
    with pytest.raises(InputError, match=f"lacks {key}:"):
        detection_utils.transform_instance_annotations(anno, T.NoOpTransform(), SIZE)


def _transformed(*segmentations):
    return [
        detection_utils.transform_instance_annotations(_anno(s), T.NoOpTransform(), SIZE)
        for s in segmentations
    ]


def test_polygons_and_rle_mix_without_a_switch():
    polygons = _transformed([POLYGON], [POLYGON])
    assert isinstance(detection_utils.annotations_to_instances(polygons, SIZE).gt_masks, PolygonMasks)
    mixed = _transformed([POLYGON], _compressed())
    masks = detection_utils.annotations_to_instances(mixed, SIZE, "polygon").gt_masks
    assert isinstance(masks, BitMasks)
    np.testing.assert_array_equal(masks.tensor.numpy(), np.stack([_mask(), _mask()]).astype(bool))


def test_instances_without_objects_masks_or_keypoints():
    instances = detection_utils.annotations_to_instances([], SIZE)
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64
    instances = detection_utils.annotations_to_instances([_anno()], SIZE)
    assert not instances.has("gt_masks")
    assert not instances.has("gt_keypoints")
    assert instances.gt_classes.tolist() == [3]


def test_bad_mask_format_and_missing_segmentation():
    with pytest.raises(InputError, match=r"'rle'.*polygon, bitmask"):
        detection_utils.annotations_to_instances([], SIZE, "rle")
    with pytest.raises(InputError, match="object 1 has no segmentation"):
        detection_utils.annotations_to_instances([_anno([np.array(POLYGON)]), _anno()], SIZE)


def test_keypoints_swap_under_an_odd_number_of_flips():
    points = [1, 2, 2, 5, 6, 1, 9, 9, 0]
    flip = T.HFlipTransform(12)
    once = detection_utils.transform_keypoint_annotations(points, T.TransformList([flip]), SIZE, [1, 0, 2])
    assert once.tolist() == [[7, 6, 1], [11, 2, 2], [0, 0, 0]]
    twice = detection_utils.transform_keypoint_annotations(
        points, T.TransformList([flip, flip]), SIZE, [1, 0, 2]
    )
    assert twice.tolist() == [[1, 2, 2], [5, 6, 1], [0, 0, 0]]
    alone = detection_utils.transform_keypoint_annotations(points, flip, SIZE, [1, 0, 2])
    assert alone.tolist() == once.tolist()


def test_keypoints_that_leave_the_image_vanish():
    shifted = detection_utils.transform_keypoint_annotations(
        [1, 2, 2, 11, 2, 1], T.CropTransform(4, 0, 8, 10), (10, 8)
    )
    assert shifted.tolist() == [[0, 0, 0], [7, 2, 1]]


def test_keypoint_flip_needs_fitting_indices():
    with pytest.raises(ValueError, match="keypoint_hflip_indices"):
        detection_utils.transform_keypoint_annotations([1, 2, 2], T.HFlipTransform(12), SIZE)
    with pytest.raises(InputError, match=r"1 keypoints.*names 2"):
        detection_utils.transform_keypoint_annotations([1, 2, 2], T.HFlipTransform(12), SIZE, [1, 0])


def test_filter_empty_instances():
    thin = {**_anno([POLYGON]), "bbox": [2, 3, 0, 4]}
    outside = _anno([[20.0, 20.0, 30.0, 20.0, 30.0, 30.0]])
    annos = [_anno([POLYGON], category=1), thin, outside]
    crop = T.CropTransform(0, 0, 12, 10)
    transformed = [detection_utils.transform_instance_annotations(a, crop, SIZE) for a in annos]
    instances = detection_utils.annotations_to_instances(transformed, SIZE)
    kept, keep = detection_utils.filter_empty_instances(instances, return_mask=True)
    assert keep.tolist() == [True, False, False]
    assert kept.gt_classes.tolist() == [1]
    assert len(detection_utils.filter_empty_instances(instances, by_mask=False)) == 2


@pytest.fixture
def people():
    names = ["e_people", "e_others"]
    MetadataCatalog.get(names[0]).set(
        keypoint_names=["nose", "left_eye", "right_eye"], keypoint_flip_map=[("left_eye", "right_eye")]
    )
    MetadataCatalog.get(names[1]).set(keypoint_names=["nose"], keypoint_flip_map=[])
    yield names
    for name in names:
        MetadataCatalog.remove(name)


def test_keypoint_hflip_indices(people):
    assert detection_utils.create_keypoint_hflip_indices(people[0]) == [0, 2, 1]
    with pytest.raises(InputError, match="'e_people' and 'e_others' differ in keypoint_names"):
        detection_utils.create_keypoint_hflip_indices(people)
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN is empty"):
        detection_utils.create_keypoint_hflip_indices([])


def test_metadata_consistency_needs_names():
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN"):
        detection_utils.check_metadata_consistency("thing_classes", [])


@pytest.mark.parametrize("seed", range(20))
def test_crop_holds_the_centre_of_the_instance(seed):
    np.random.seed(seed)
    crop = detection_utils.gen_crop_transform_with_instance((4, 5), SIZE, _anno())
    assert (crop.h, crop.w) == (4, 5)
    assert crop.x0 <= 5 <= crop.x0 + 5 <= 12
    assert crop.y0 <= 5 <= crop.y0 + 4 <= 10


def test_crop_larger_than_the_image_is_the_image():
    crop = detection_utils.gen_crop_transform_with_instance((40, 50), SIZE, _anno())
    assert (crop.x0, crop.y0, crop.w, crop.h) == (0, 0, 12, 10)


def test_build_augmentation():
    cfg = get_cfg()
    resize, flip = detection_utils.build_augmentation(cfg, is_train=True)
    assert (resize.short_edge_length, resize.max_size, resize.is_range) == ((800,), 1333, False)
    assert flip.horizontal
    cfg.INPUT.RANDOM_FLIP = "vertical"
    assert detection_utils.build_augmentation(cfg, is_train=True)[1].vertical
    cfg.INPUT.RANDOM_FLIP = "none"
    assert len(detection_utils.build_augmentation(cfg, is_train=True)) == 1
    (resize,) = detection_utils.build_augmentation(cfg, is_train=False)
    assert resize.get_transform(np.zeros((400, 600, 3))).new_h == 800


def test_build_augmentation_with_large_scale_jitter():
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.LSJ.ENABLED", True, "INPUT.LSJ.SIZE", (20, 30), "INPUT.LSJ.MIN_SCALE", 0.5])
    resize, crop, flip = detection_utils.build_augmentation(cfg, is_train=True)
    assert (resize.min_scale, resize.max_scale, resize.target_height, resize.target_width) == (0.5, 2, 20, 30)
    assert crop.crop_size == (20, 30)
    assert flip.horizontal
    for _ in range(10):  # scaled up and cut, or scaled down and padded
        aug_input = T.AugInput(np.zeros((40, 50, 3), dtype=np.uint8))
        T.AugmentationList([resize, crop, flip])(aug_input)
        assert aug_input.image.shape == (20, 30, 3)
    (resize,) = detection_utils.build_augmentation(cfg, is_train=False)  # no jitter in testing
    assert isinstance(resize, T.ResizeShortestEdge)


@pytest.mark.parametrize(
    "key,value",
    [("RANDOM_FLIP", "both"), ("MIN_SIZE_TRAIN_SAMPLING", "list"), ("MIN_SIZE_TRAIN_SAMPLING", "range")],
)
def test_build_augmentation_names_the_wrong_key(key, value):
    cfg = get_cfg()
    cfg.INPUT[key] = value
    with pytest.raises(InputError, match=r"INPUT\."):
        detection_utils.build_augmentation(cfg, is_train=True)


@pytest.fixture
def counted():
    """Two data sets of three classes whose metadata tells no counts."""
    records = {
        "u_first": [[0, 0, 2], [2], []],
        "u_second": [[2]],
    }
    for name, images in records.items():
        data = [{"annotations": [{"category_id": c} for c in image]} for image in images]
        DatasetCatalog.register(name, lambda data=data: data)
        MetadataCatalog.get(name).thing_classes = ["a", "b", "c"]
    yield list(records)
    for name in records:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_federated_class_weights(counted):
    """Class a lies in 1 image, b in none, c in 2 of the first and 1 of the second."""
    weights = detection_utils.get_fed_loss_cls_weights
    assert weights("u_first").tolist() == [1, 0, 2]
    assert weights(counted).tolist() == [1, 0, 3]
    torch.testing.assert_close(weights(counted, 0.5), torch.tensor([1, 0, 3**0.5]))
    told = [{"id": 7, "image_count": 4}, {"id": 3, "image_count": 25}, {"id": 5, "image_count": 0}]
    for name in counted:
        MetadataCatalog.get(name).class_image_count = list(told)
    assert weights(counted, 0.5).tolist() == [5, 0, 2]
    MetadataCatalog.remove("u_second")
    MetadataCatalog.get("u_second").class_image_count = told[:2]
    with pytest.raises(InputError, match="differ in class_image_count"):
        weights(counted)
    with pytest.raises(InputError, match="no data set is named"):
        weights([])
