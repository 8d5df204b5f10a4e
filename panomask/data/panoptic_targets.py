"""What a model trains on, made of a panoptic PNG: semantic labels, and instances with boxes and masks.

The dataset dict names the PNG (`pan_seg_file_name`) and lists its segments (`segments_info`); its annotations
name their segment (`segment_id`) in place of a segmentation. The PNG is read once and augmented once, as one
map of segments, so that all that is derived from it agrees.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from panomask.data import transforms as T
from panomask.data.catalog import MetadataCatalog, things_label
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.semantic_png import IGNORE_LABEL
from panomask.structures import BitMasks, Boxes, Instances
from panomask.structures.segment_map import (
    build_segment_map,
    segment_extents,
    segment_masks,
    semantic_map,
)


def has_segments(dataset_dict: dict[str, Any]) -> bool:
    """Whether the dict names a panoptic PNG and its segments."""
    return "pan_seg_file_name" in dataset_dict and "segments_info" in dataset_dict


def are_of_segments(dataset_dict: dict[str, Any]) -> bool:
    """Whether the masks of its annotations are in the panoptic PNG: they name a segment, and have no mask."""
    return has_segments(dataset_dict) and any(
        "segment_id" in anno and "segmentation" not in anno for anno in dataset_dict.get("annotations", ())
    )


def read_segment_map(dataset_dict: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The segment map (H, W) of a dataset dict, see `build_segment_map`.

    Args:
        dataset_dict: with `pan_seg_file_name` and `segments_info`; with `on_bad_annotation` "drop", pixels of
            other segments are void.
        size: (height, width) of the image.

    Raises:
        InputError: names the PNG, which is missing, not in colour, of another size, or has other segments
            than `segments_info`.
    """
    path = dataset_dict["pan_seg_file_name"]
    ids = read_segment_ids(path, size)
    is_strict = dataset_dict.get("on_bad_annotation") != "drop"
    try:
        segment_ids = [segment["id"] for segment in dataset_dict["segments_info"]]
        return build_segment_map(ids, segment_ids, strict=is_strict)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def things_label_of(dataset_name: str) -> int | None:
    """`things_label` of a registered data set."""
    return things_label(MetadataCatalog.get(dataset_name))


class PanopticInput(T.AugInput):
    """An image with its segment map: augmentations transform both, and may look at `sem_seg`.

    Attributes:
        segment_map: (H, W) int32.
        sem_seg: (H, W) integer labels, made of the segment map at every look unless they were given; None if
            neither was asked for.
    """

    def __init__(
        self,
        image: np.ndarray,
        segment_map: np.ndarray,
        *,
        labels: Sequence[int] | None = None,
        ignore_label: int = IGNORE_LABEL,
        sem_seg: np.ndarray | None = None,
    ):
        """
        Args:
            image: as of `AugInput`.
            segment_map: of `read_segment_map`.
            labels: the semantic label of each segment.
            ignore_label: that of pixels without a segment.
            sem_seg: labels from elsewhere, in place of `labels`.
        """
        self.segment_map = segment_map
        self._labels = labels
        self._ignore_label = ignore_label
        super().__init__(image, sem_seg=sem_seg)

    @property
    def sem_seg(self) -> np.ndarray | None:  # type: ignore[override]
        if self._given is not None or self._labels is None:
            return self._given
        return semantic_map(self.segment_map, self._labels, self._ignore_label)

    @sem_seg.setter
    def sem_seg(self, value: np.ndarray | None) -> None:
        self._given = value

    def transform(self, tfm: T.Transform) -> None:
        """Apply a transform to the image and to what belongs to it, in place."""
        self.image = tfm.apply_image(self.image)
        self.segment_map = tfm.apply_segmentation(self.segment_map)
        if self._given is not None:
            self._given = tfm.apply_segmentation(self._given)


def segments_to_instances(
    annotations: Sequence[dict[str, Any]],
    segment_map: np.ndarray,
    segments_info: Sequence[dict[str, Any]],
    *,
    use_masks: bool,
) -> Instances:
    """The objects of an augmented segment map.

    Args:
        annotations: with `segment_id` and `category_id`; crowds, and what the map has no pixel of any more,
            are left out.
        segment_map: (H, W), augmented.
        segments_info: of the dataset dict.
        use_masks: give gt_masks.

    Returns:
        gt_classes, gt_boxes (tight around the pixels) and, if asked for, gt_masks (`BitMasks`).

    Raises:
        InputError: an annotation names no segment of `segments_info`.
    """
    position_of = {segment["id"]: position for position, segment in enumerate(segments_info)}
    areas, boxes = segment_extents(segment_map, len(segments_info))
    positions: list[int] = []
    classes: list[int] = []
    for number, annotation in enumerate(annotations):
        position = position_of.get(annotation.get("segment_id"))
        if position is None:
            raise InputError(
                f"object {number} has segment_id {annotation.get('segment_id')!r}, which segments_info does"
                " not list; each object without a segmentation needs the id of its segment"
            )
        if not annotation.get("iscrowd", 0) and areas[position] > 0:
            positions.append(position)
            classes.append(annotation["category_id"])
    instances = Instances((segment_map.shape[0], segment_map.shape[1]))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes[positions]).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if use_masks:
        instances.gt_masks = BitMasks(segment_masks(segment_map, positions))
    return instances
