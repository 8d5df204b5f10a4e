"""Golden numbers: six augmentations of one image with six objects, from pixels to mask targets."""

import gzip
import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.data import transforms as T
from panomask.data.detection_utils import annotations_to_instances, transform_instance_annotations
from panomask.structures import BoxMode

GOLDEN = json.loads(gzip.decompress(Path(__file__).with_name("golden_input_pipeline.json.gz").read_bytes()))
HEIGHT, WIDTH, SEED = GOLDEN["height"], GOLDEN["width"], GOLDEN["image_seed"]

# COCO's keypoints: nose, then left and right of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
HFLIP_INDICES = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]

AUGMENTATIONS = {
    "resize_up": [T.Resize((240, 320))],
    "resize_short_240_max_300": [T.ResizeShortestEdge([240], 300, "choice")],
    "hflip": [T.RandomFlip(prob=1.0)],
    "vflip": [T.RandomFlip(prob=1.0, horizontal=False, vertical=True)],
    "resize_then_hflip": [T.Resize((150, 200)), T.RandomFlip(prob=1.0)],
    "fixed_crop_pad": [T.FixedSizeCrop((256, 320))],
}


@pytest.fixture(params=AUGMENTATIONS, scope="module")
def case(request, golden_recipe):
    """(golden numbers, augmented image, what was applied, the objects' annotations)"""
    aug_input = T.AugInput(golden_recipe.image(HEIGHT, WIDTH, seed=SEED))
    transforms = aug_input.apply_augmentations(AUGMENTATIONS[request.param])
    objects = golden_recipe.instances(HEIGHT, WIDTH, GOLDEN["num_objects"], GOLDEN["num_classes"], seed=SEED)
    return GOLDEN["cases"][request.param], aug_input.image, transforms, objects


def _instances(image, transforms, objects, mask_format):
    annotations = [
        {
            "bbox": obj["bbox"],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": obj["category_id"],
            "segmentation": [obj["polygon"]],
            "keypoints": np.ravel(obj["keypoints"]).tolist(),
        }
        for obj in objects
    ]
    transformed = [
        transform_instance_annotations(
            anno, transforms, image.shape[:2], keypoint_hflip_indices=HFLIP_INDICES
        )
        for anno in annotations
    ]
    return annotations_to_instances(transformed, image.shape[:2], mask_format)


def _target_areas(instances):
    return instances.gt_masks.crop_and_resize(instances.gt_boxes.tensor, 28).sum((1, 2)).tolist()


def test_pixels(case):
    """Exact where nothing is resized; else PIL's to one grey level, in one pixel out of a thousand."""
    golden, image, transforms, _ = case
    is_resized = any(isinstance(transform, T.ResizeTransform) for transform in transforms.transforms)
    assert list(image.shape) == golden["shape"]
    assert abs(image.sum(dtype=np.int64) - golden["image_sum"]) <= is_resized * image.size / 1000
    for row, pixels in golden["image_rows"].items():
        np.testing.assert_allclose(image[int(row)].astype(int), pixels, rtol=0, atol=int(is_resized))


def test_boxes_polygons_and_keypoints(case):
    golden, *inputs = case
    instances = _instances(*inputs, "polygon")
    np.testing.assert_allclose(instances.gt_boxes.tensor.numpy(), golden["boxes"], rtol=0, atol=1e-5)
    assert instances.gt_classes.tolist() == golden["classes"]
    keypoints = instances.gt_keypoints.tensor.numpy()
    np.testing.assert_allclose(keypoints, golden["keypoints"], rtol=0, atol=1e-5)
    areas = instances.gt_masks.area().tolist()
    np.testing.assert_allclose(areas, golden["polygon_area"], rtol=1e-6)
    assert _target_areas(instances) == golden["polygon_targets_28"]


def test_bit_masks(case):
    golden, *inputs = case
    instances = _instances(*inputs, "bitmask")
    masks = instances.gt_masks.tensor.numpy()
    codes = [mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() for mask in masks]
    assert codes == golden["bitmask_rle"]
    assert masks.sum((1, 2)).tolist() == golden["bitmask_area"]
    np.testing.assert_array_equal(
        instances.gt_masks.get_bounding_boxes().tensor.numpy(), golden["bitmask_boxes"]
    )
    assert _target_areas(instances) == golden["bitmask_targets_28"]
