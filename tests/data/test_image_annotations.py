import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from panomask.data import detection_utils
from panomask.data import transforms as T
from panomask.data.image_annotations import transform_image_annotations, transform_rings
from panomask.errors import InputError
from panomask.structures import BitMasks, BoxMode, PolygonMasks

SIZE = (60, 80)
HFLIP_INDICES = [0, 2, 1]


class Wave(T.Transform):
    """A user's own transform, that bends straight lines and leaves its argument alone."""

    def apply_image(self, img):
        return img

    def apply_coords(self, coords):
        return coords + np.sin(coords[:, ::-1])


class FirstRings(T.HFlipTransform):
    """One that says what becomes of polygons."""

    def apply_polygons(self, polygons):
        return [self.apply_coords(polygon)[::-1] for polygon in polygons[:1]]


def _with_method_of_its_own(transform):
    transform.apply_polygons = lambda polygons: [polygon + 1 for polygon in polygons[:1]]
    return transform


TRANSFORMS = {
    "none": lambda: T.NoOpTransform(),
    "empty list": lambda: T.TransformList([]),
    "flip": lambda: T.HFlipTransform(80),
    "resize, flip": lambda: T.TransformList([T.ResizeTransform(60, 80, 100, 133), T.HFlipTransform(133)]),
    "two flips": lambda: T.TransformList([T.HFlipTransform(80), T.VFlipTransform(60), T.HFlipTransform(80)]),
    "crop": lambda: T.CropTransform(10, 5, 40, 30),
    "resize, crop, pad, flip": lambda: T.TransformList(
        [
            *(T.ResizeTransform(60, 80, 90, 120), T.CropTransform(30, 20, 60, 50)),
            *(T.PadTransform(0, 0, 7, 9), T.HFlipTransform(67)),
        ]
    ),
    "empty window": lambda: T.CropTransform(0, 0, 1, 1),
    "extent": lambda: T.ExtentTransform((-5, 3, 70, 50), (60, 80)),
    "own": lambda: T.TransformList([Wave(), FirstRings(80)]),
    "own, in place": lambda: FirstRings(80),
    "on the object": lambda: _with_method_of_its_own(T.HFlipTransform(80)),
}


def _annotations(generator, count, *, keypoints=3, as_array=False):
    annotations = []
    for _ in range(count):
        rings = []
        for _ in range(generator.integers(1, 4)):
            corner = generator.uniform(0, 60, 2)
            points = (corner + generator.uniform(0, 25, (generator.integers(3, 12), 2))).ravel().round(2)
            rings.append(points if as_array else points.tolist())
        box = generator.uniform(0, 40, 4).tolist()
        annotation = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": int(generator.integers(9))}
        if generator.random() < 0.5:
            mode = BoxMode.XYXY_ABS
            annotation |= {"bbox": BoxMode.convert(box, BoxMode.XYWH_ABS, mode), "bbox_mode": mode}
        annotation["segmentation"] = rings
        if keypoints:
            points = np.c_[generator.uniform(-5, 85, (keypoints, 2)), generator.integers(0, 3, keypoints)]
            annotation["keypoints"] = points if as_array else points.ravel().tolist()
        annotations.append(annotation)
    return annotations


def _one_by_one(annotations, transforms, size=SIZE, mask_format="polygon"):
    transformed = [
        detection_utils.transform_instance_annotations(
            copy.deepcopy(annotation), transforms, size, keypoint_hflip_indices=HFLIP_INDICES
        )
        for annotation in annotations
    ]
    return detection_utils.annotations_to_instances(transformed, size, mask_format)


def _at_once(annotations, transforms, size=SIZE, mask_format="polygon"):
    return transform_image_annotations(
        annotations, transforms, size, keypoint_hflip_indices=HFLIP_INDICES, mask_format=mask_format
    )


def _assert_equal(found, expected):
    assert found.image_size == expected.image_size
    assert set(found.get_fields()) == set(expected.get_fields())
    assert len(found) == len(expected)
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert torch.equal(found.gt_classes, expected.gt_classes)
    if expected.has("gt_keypoints"):
        assert torch.equal(found.gt_keypoints.tensor, expected.gt_keypoints.tensor)
    if expected.has("gt_masks"):
        assert type(found.gt_masks) is type(expected.gt_masks)
    if isinstance(found.get_fields().get("gt_masks"), PolygonMasks):
        for rings, expected_rings in zip(found.gt_masks, expected.gt_masks, strict=True):
            assert [ring.tolist() for ring in rings] == [ring.tolist() for ring in expected_rings]
            assert all(ring.dtype == np.float64 for ring in rings)
    elif expected.has("gt_masks"):
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_numbers_are_those_of_one_by_one(name, as_array, mask_format):
    for seed in range(5):
        generator = np.random.default_rng(seed)
        keypoints = 3 if seed > 1 else 0
        annotations = _annotations(generator, count=seed, keypoints=keypoints, as_array=as_array)
        before = copy.deepcopy(annotations)
        transforms = TRANSFORMS[name]()
        expected = _one_by_one(annotations, transforms, mask_format=mask_format)
        found = _at_once(annotations, transforms, mask_format=mask_format)
        _assert_equal(found, expected)
        np.testing.assert_equal(annotations, before)  # not edited


def test_rotated_points_agree():
    """A product of matrices may round otherwise for many points than for few."""
    annotations = _annotations(np.random.default_rng(3), 4)
    rotation = T.RotationTransform(60, 80, 33)
    found, expected = _at_once(annotations, rotation), _one_by_one(annotations, rotation)
    torch.testing.assert_close(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    torch.testing.assert_close(found.gt_keypoints.tensor, expected.gt_keypoints.tensor)
    for rings, expected_rings in zip(found.gt_masks, expected.gt_masks, strict=True):
        for ring, expected_ring in zip(rings, expected_rings, strict=True):
            np.testing.assert_allclose(ring, expected_ring, rtol=1e-12)


def test_by_hand():
    """Twice as wide, then mirrored: x becomes 40 - 2x."""
    annotation = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 5}
    annotation |= {
        "segmentation": [[1, 2, 4, 2, 4, 6], [1, 2, 1, 3, 0, 3]],
        "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0],
    }
    transforms = [T.ResizeTransform(10, 20, 10, 40), T.HFlipTransform(40)]
    instances = _at_once([annotation], transforms, (10, 40))
    assert instances.gt_boxes.tensor.tolist() == [[32, 2, 38, 6]]
    assert instances.gt_classes.tolist() == [5]
    (rings,) = instances.gt_masks
    assert [ring.tolist() for ring in rings] == [[38, 2, 32, 2, 32, 6], [38, 2, 38, 3, 40, 3]]
    # Left and right, the second and the third, have changed places.
    assert instances.gt_keypoints.tensor.tolist() == [[[38, 2, 2], [0, 0, 0], [34, 4, 1]]]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_bit_masks_and_polygons_mixed(mask_format):
    annotations = _annotations(np.random.default_rng(0), 3)
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[10:20, 5:50] = 1
    annotations[1]["segmentation"] = mask_util.encode(np.asfortranarray(mask))
    annotations[2]["segmentation"] = mask
    before = copy.deepcopy(annotations)
    found = _at_once(annotations, T.HFlipTransform(80), mask_format=mask_format)
    assert isinstance(found.gt_masks, BitMasks)
    _assert_equal(found, _one_by_one(annotations, T.HFlipTransform(80), mask_format=mask_format))
    np.testing.assert_equal(annotations, before)


def test_no_objects_no_masks_no_polygons():
    assert len(_at_once([], T.HFlipTransform(80))) == 0
    annotations = _annotations(np.random.default_rng(0), 2)
    for annotation in annotations:
        annotation["segmentation"] = []
    _assert_equal(_at_once(annotations, T.HFlipTransform(80)), _one_by_one(annotations, T.HFlipTransform(80)))
    for annotation in annotations:
        del annotation["segmentation"], annotation["keypoints"]
    found = _at_once(annotations, T.HFlipTransform(80))
    assert set(found.get_fields()) == {"gt_boxes", "gt_classes"}
    assert transform_rings([], T.HFlipTransform(80)) == []
    assert transform_rings([[], []], T.HFlipTransform(80)) == [[], []]


FAULTS = {
    "no box": lambda a: a.pop("bbox"),
    "no mask": lambda a: a.pop("segmentation"),
    "flat polygon": lambda a: a.update(segmentation=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "odd": lambda a: a.update(segmentation=[[1.0, 2.0, 3.0]]),
    "pairs": lambda a: a.update(segmentation=[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]),
    "two points": lambda a: a.update(segmentation=[[1.0, 2.0, 3.0, 4.0]]),
    "text": lambda a: a.update(segmentation="polygon"),
    "other keypoints": lambda a: a.update(keypoints=[1, 2, 2]),
    "no keypoints": lambda a: a.pop("keypoints"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_annotations_are_named_as_one_by_one(fault):
    annotations = _annotations(np.random.default_rng(0), 2)
    FAULTS[fault](annotations[1])
    flip = T.HFlipTransform(80)
    with pytest.raises(InputError) as expected:
        _one_by_one(annotations, flip)
    with pytest.raises(InputError) as found:
        _at_once(annotations, flip)
    assert str(found.value) == str(expected.value)


def test_mask_format_and_missing_flip_indices():
    annotations = _annotations(np.random.default_rng(0), 2)
    with pytest.raises(InputError, match=r"'rle'.*polygon, bitmask"):
        _at_once(annotations, T.NoOpTransform(), mask_format="rle")
    with pytest.raises(ValueError, match="keypoint_hflip_indices"):
        transform_image_annotations(annotations, T.HFlipTransform(80), SIZE)
