"""All annotations of one image at once: one call of a transform for all boxes, rings and keypoints.

Object by object, a transform costs some microseconds for each box, ring and set of keypoints whatever its
size: together as much as half of what decoding the image takes. The numbers are those of
`detection_utils.transform_instance_annotations` and `detection_utils.annotations_to_instances`, which remain
the way for whoever writes a mapper.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from panomask.data import detection_utils
from panomask.data import transforms as T
from panomask.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

Annotations = Sequence[dict[str, Any]]
Rings = list[np.ndarray]
"""The polygons of one object, (points, 2) each."""

_POINT_BY_POINT = T.Transform.apply_polygons  # of transforms that do not cut polygons


def transform_image_annotations(
    annotations: Annotations,
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
    mask_format: str = "polygon",
) -> Instances:
    """The objects of one image, transformed, as `Instances`.

    Args:
        annotations: as `transform_instance_annotations` takes them, crowds excluded. They stay as they are.
        transforms: what was applied to the image. Each gets the boxes of all objects in one call, and so the
            points of all polygons and all keypoints: what it makes of one must not depend on the others.
        image_size: (height, width) after the transforms; boxes are clipped to it.
        keypoint_hflip_indices: see `create_keypoint_hflip_indices`.
        mask_format: see `annotations_to_instances`.

    Returns:
        What `annotations_to_instances` makes of the annotations transformed one by one.

    Raises:
        InputError: as they do.
    """
    if not isinstance(transforms, T.Transform):
        transforms = T.TransformList(list(transforms))
    rings, keypoints = _rings_of(annotations), _keypoints_of(annotations)
    if len(annotations) == 0 or rings is None or keypoints is None:
        return _one_by_one(annotations, transforms, image_size, keypoint_hflip_indices, mask_format)
    detection_utils.check_mask_format(mask_format)
    height, width = image_size
    boxes = np.stack([detection_utils.get_bbox(annotation) for annotation in annotations])  # (N, 4)
    boxes = np.clip(transforms.apply_box(boxes), 0, (width, height, width, height))
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    classes = [int(annotation["category_id"]) for annotation in annotations]
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if rings:
        moved = transform_rings(rings, transforms)
        polygons = [[ring.reshape(-1) for ring in rings_of_object] for rings_of_object in moved]
        is_polygon = mask_format == "polygon"
        instances.gt_masks = (
            PolygonMasks(polygons) if is_polygon else BitMasks.from_polygon_masks(polygons, height, width)
        )
    if len(keypoints):
        points = detection_utils.transform_keypoint_array(
            keypoints, transforms, image_size, keypoint_hflip_indices
        )
        instances.gt_keypoints = Keypoints(torch.as_tensor(points, dtype=torch.float32))
    return instances


def transform_rings(objects: Sequence[Rings], transforms: T.Transform) -> list[Rings]:
    """The polygons of every object, transformed.

    Args:
        objects: for each its rings, (points, 2) float64.
        transforms: one that cuts polygons (a crop) may leave an object fewer of them, or none.
    """
    objects = list(objects)
    for step in transforms.transforms if isinstance(transforms, T.TransformList) else [transforms]:
        # Asked of the object, not of its class: it may have a method of its own.
        if getattr(step.apply_polygons, "__func__", None) is not _POINT_BY_POINT:
            objects = [step.apply_polygons(rings) for rings in objects]
        elif flat := list(itertools.chain.from_iterable(objects)):
            points = step.apply_coords(np.concatenate(flat))
            ends = itertools.accumulate(map(len, flat))
            moved = (points[end - len(ring) : end] for ring, end in zip(flat, ends, strict=True))
            objects = [list(itertools.islice(moved, len(rings))) for rings in objects]
    return objects


def _rings_of(annotations: Annotations) -> list[Rings] | None:
    """Every object's rings; [] if no object has a segmentation, None if some are not of flat polygons."""
    segmentations = [a["segmentation"] for a in annotations if "segmentation" in a]
    if len(segmentations) not in (0, len(annotations)) or not all(isinstance(s, list) for s in segmentations):
        return None
    try:
        objects = [[np.array(ring, dtype=np.float64) for ring in rings] for rings in segmentations]
    except (TypeError, ValueError):
        return None
    if any(ring.ndim != 1 or len(ring) % 2 for rings in objects for ring in rings):
        return None
    return [[ring.reshape(-1, 2) for ring in rings] for rings in objects]


def _keypoints_of(annotations: Annotations) -> np.ndarray | None:
    """(N, K, 3) float64; (0, 0, 3) if no object has keypoints, None if they are not as many for each."""
    keypoints = [np.ravel(a["keypoints"]) for a in annotations if "keypoints" in a]
    if not keypoints:
        return np.zeros((0, 0, 3))
    sizes = {len(points) for points in keypoints}
    if len(keypoints) != len(annotations) or len(sizes) != 1 or sizes.pop() % 3:
        return None
    return np.stack(keypoints).astype(np.float64).reshape(len(annotations), -1, 3)


def _one_by_one(
    annotations: Annotations,
    transforms: T.Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None,
    mask_format: str,
) -> Instances:
    """For RLE and mixed annotations, for none, and for faulty ones: these say what is wrong."""
    transformed = [
        detection_utils.transform_instance_annotations(
            dict(annotation), transforms, image_size, keypoint_hflip_indices=keypoint_hflip_indices
        )
        for annotation in annotations
    ]
    return detection_utils.annotations_to_instances(transformed, image_size, mask_format)
