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
from panomask.semantic_png import IGNORE_LABEL
from panomask.structures import BitMasks, Boxes, Instances
from panomask.structures.segment_map import segment_extents, segment_masks, semantic_map


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
    instances.gt_boxes = Boxes(torch.from_numpy(boxes[positions].astype(np.float32)).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if use_masks:
        instances.gt_masks = BitMasks(segment_masks(segment_map, positions))
    return instances
