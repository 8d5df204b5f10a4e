"""Draws a video's predictions frame by frame, so that an object keeps its colour."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_coding
import torch

from panomask.data.catalog import Metadata
from panomask.structures import Instances
from panomask.structures.segment_map import FIRST_SEGMENT, segment_rles
from panomask.visualization.canvas import VisImage
from panomask.visualization.colormap import Color, colormap
from panomask.visualization.drawn_maps import panoptic_segments
from panomask.visualization.generic_mask import masks_union
from panomask.visualization.segment_map_drawing import number_segments
from panomask.visualization.segment_style import num_thing_classes, panoptic_styles, shade, thing_color
from panomask.visualization.visualizer import ColorMode, Visualizer, _create_text_labels

__all__ = ["VideoVisualizer"]

_FRAMES_TO_LIVE = 8
"""An object that was not found for so many frames is forgotten."""
_NUM_SHADES = 64
_MIN_IOU = {"mask": 0.6, "box": 0.5}
"""Two detections in neighbouring frames that overlap less are different objects."""
_MIN_SEGMENT_IOU = 0.3
"""The same for panoptic segments, which never lie on each other: thin ones move by their width and more."""


class _DetectedInstance:
    """What is remembered of an object.

    Attributes:
        label: class.
        bbox: (4,) xyxy, or None.
        mask_rle: compressed RLE, or None.
        color: RGB in [0, 1], None until assigned.
        ttl: frames it will be remembered for.
    """

    __slots__ = ("bbox", "color", "label", "mask_rle", "ttl")

    def __init__(self, label: int, bbox: Any, mask_rle: Any, color: Color | None, ttl: int) -> None:
        self.label, self.bbox, self.mask_rle, self.color, self.ttl = label, bbox, mask_rle, color, ttl


class VideoVisualizer:
    """Keeps the memory between frames; one for each video."""

    def __init__(self, metadata: Metadata | None, instance_mode: ColorMode = ColorMode.IMAGE) -> None:
        self.metadata = Metadata() if metadata is None else metadata
        self._instance_mode = instance_mode
        self._old_instances: list[_DetectedInstance] = []

    def draw_instance_predictions(self, frame: np.ndarray, predictions: Instances) -> VisImage:
        """Draw a model's output for the next frame.

        Args:
            frame: (H, W, 3) RGB, 0-255.
            predictions: see `Visualizer.draw_instance_predictions`.
        """
        fields = predictions.to("cpu").get_fields()
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        masks = visualizer._convert_masks(fields["pred_masks"]) if "pred_masks" in fields else None
        boxes = fields.get("pred_boxes")
        classes = fields["pred_classes"].tolist() if "pred_classes" in fields else [0] * len(predictions)
        rles = [None] * len(predictions)
        if masks is not None:
            rles = [mask_coding.encode(np.asfortranarray(mask.mask)) for mask in masks]
        box_rows = [None] * len(predictions) if boxes is None else visualizer._convert_boxes(boxes)
        found = [
            _DetectedInstance(label, box, rle, None, _FRAMES_TO_LIVE)
            for label, box, rle in zip(classes, box_rows, rles, strict=True)
        ]
        if self._instance_mode == ColorMode.SEGMENTATION:
            colors: list[Any] = list(visualizer._class_colors(classes, False))
        else:
            colors = self._assign_colors(found)
        if self._instance_mode == ColorMode.IMAGE_BW:
            visualizer._gray_outside(masks_union(masks or [], frame.shape[:2]))
        known_classes = classes if "pred_classes" in fields else None
        scores = fields["scores"].tolist() if "scores" in fields else None
        return visualizer.overlay_instances(
            boxes=None if masks is not None else boxes,  # boxes beside masks flicker
            labels=_create_text_labels(known_classes, scores, self.metadata.get("thing_classes")),
            masks=masks,
            keypoints=fields.get("pred_keypoints"),
            assigned_colors=colors,
            alpha=0.3 if self._instance_mode == ColorMode.IMAGE_BW else 0.5,
        )

    def draw_panoptic_seg_predictions(
        self,
        frame: np.ndarray,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[dict[str, Any]] | None,
        area_threshold: float | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw panoptic segments for the next frame.

        Every thing keeps its shade of its class's colour, stuff has that of its class.

        Args:
            frame: (H, W, 3) RGB, 0-255.
            panoptic_seg, segments_info, area_threshold, alpha: see `Visualizer.draw_panoptic_seg`.
        """
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        ids, infos = panoptic_segments(panoptic_seg, segments_info, self.metadata)
        numbered = number_segments(ids, [info["id"] for info in infos])
        things = [i for i, info in enumerate(infos) if info["isthing"]]
        rles = segment_rles(np.where(numbered, numbered + (FIRST_SEGMENT - 1), 0), len(infos))
        found = [
            _DetectedInstance(int(infos[i]["category_id"]), None, rles[i], None, _FRAMES_TO_LIVE)
            for i in things
        ]
        colors = self._assign_colors(found, self._shades, _MIN_SEGMENT_IOU)
        return visualizer._draw_segments(
            numbered,
            panoptic_styles(infos, self.metadata, colors),
            area_threshold=area_threshold,
            alpha=alpha,
        )

    def draw_sem_seg(
        self, frame: np.ndarray, sem_seg: torch.Tensor | np.ndarray, area_threshold: float | None = None
    ) -> VisImage:
        """Draw semantic labels (H, W) on the next frame (H, W, 3) RGB: see `Visualizer.draw_sem_seg`."""
        visualizer = Visualizer(frame, self.metadata, instance_mode=self._instance_mode)
        return visualizer.draw_sem_seg(sem_seg, area_threshold)

    def _shades(self, label: int) -> list[Any]:
        """The shades of a thing class."""
        color = thing_color(label, self.metadata)
        return [shade(color, number, num_thing_classes(self.metadata)) for number in range(_NUM_SHADES)]

    def _assign_colors(
        self,
        instances: list[_DetectedInstance],
        palette: Callable[[int], list[Any]] | None = None,
        min_iou: float | None = None,
    ) -> list[Any]:
        """Colours of `instances`: of the remembered object that each overlaps most, or a free one.

        Args:
            palette: class -> colours to choose from, the preferred first; by default those of the colour map.
            min_iou: of an object in two frames; by default `_MIN_IOU`.
        """
        overlaps = _pairwise_iou(self._old_instances, instances, min_iou)  # (old, new)
        matched: set[int] = set()
        while overlaps.size and np.max(overlaps) > 0:
            old, new = np.unravel_index(int(np.argmax(overlaps)), overlaps.shape)
            instances[new].color = self._old_instances[old].color
            matched.add(int(old))
            overlaps[old, :] = overlaps[:, new] = 0

        forgotten = [known for i, known in enumerate(self._old_instances) if i not in matched]
        for instance in forgotten:
            instance.ttl -= 1
        remembered = [instance for instance in forgotten if instance.ttl > 0]
        in_use = {instance.color for instance in remembered} | {new.color for new in instances}
        table = [tuple(color) for color in colormap(rgb=True, maximum=1).tolist()]
        for number, instance in enumerate(instances):
            if instance.color is None:
                choice = table if palette is None else palette(instance.label)
                instance.color = next((c for c in choice if c not in in_use), choice[number % len(choice)])
                in_use.add(instance.color)
        self._old_instances = remembered + instances
        return [instance.color for instance in instances]


def _pairwise_iou(
    old: list[_DetectedInstance], new: list[_DetectedInstance], min_iou: float | None = None
) -> np.ndarray:
    """(old, new) IoU of masks, else of boxes; 0 where it is too small or the classes differ."""
    if not old or not new:
        return np.zeros((len(old), len(new)))
    kind = "box" if any(i.mask_rle is None for i in old + new) else "mask"
    if kind == "mask":
        overlaps = mask_coding.iou([i.mask_rle for i in old], [i.mask_rle for i in new], [0] * len(new))
    elif any(i.bbox is None for i in old + new):
        return np.zeros((len(old), len(new)))
    else:
        xywh = [np.array([(*i.bbox[:2], *(i.bbox[2:] - i.bbox[:2])) for i in part]) for part in (old, new)]
        overlaps = mask_coding.iou(*(part.astype(np.float64) for part in xywh), [0] * len(new))
    same_class = np.array([[o.label == n.label for n in new] for o in old])
    return np.where(same_class & (overlaps > (_MIN_IOU[kind] if min_iou is None else min_iou)), overlaps, 0.0)
