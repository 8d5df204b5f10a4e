"""Draws objects and segments on an image, under Detectron2's names and calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch

from panomask.data.catalog import Metadata, things_label
from panomask.semantic_png import IGNORE_LABEL
from panomask.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks
from panomask.visualization.canvas import Label, VisImage
from panomask.visualization.colormap import Color, colormap, to_rgb
from panomask.visualization.drawn_maps import (
    has_panoptic_truth,
    panoptic_segments,
    panoptic_truth,
    semantic_truth,
)
from panomask.visualization.generic_mask import GenericMask, masks_union
from panomask.visualization.label_placement import place_labels
from panomask.visualization.object_style import ColorMode, _create_text_labels, keep_colors_apart
from panomask.visualization.segment_map_drawing import (
    EDGE_COLOR,
    SegmentLabels,
    number_segments,
    paint_segments,
    present_values,
)
from panomask.visualization.segment_style import SegmentStyle, panoptic_styles, semantic_styles

__all__ = ["ColorMode", "GenericMask", "VisImage", "Visualizer", "_create_text_labels"]

_KEYPOINT_THRESHOLD = 0.05
"""Keypoints of a lower score (or visibility) are not drawn."""
_DEFAULT_COLOR: Color = (0.10, 0.65, 0.20)
_SPINE_RULES = [("nose", "neck", (255, 0, 0)), ("neck", "pelvis", (255, 0, 0))]
"""What joins head, shoulders and hips of a COCO person: lines between points that `_spine` adds."""


class Visualizer:
    """Draws on one image; every `draw_*` and `overlay_*` returns the `VisImage` drawn on so far.

    Coordinates are continuous pixels of the given image, whatever `scale` is.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        """
        Args:
            img_rgb: (H, W, 3) RGB, 0-255.
            metadata: of the data set: thing_classes, thing_colors (0-255), stuff_classes, stuff_colors,
                keypoint_names, keypoint_connection_rules are used if there.
            scale: size of the result in image sizes; enlarge small images, for labels take room.
        """
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = Metadata() if metadata is None else metadata
        self.output = VisImage(self.img, scale=scale)
        self.cpu_device = torch.device("cpu")
        diagonal = float(np.hypot(*self.output.img.shape[:2]))
        self._default_font_size = max(8.0, diagonal / 70) * font_size_scale  # height of a capital
        self._line_width = max(1, round(diagonal / 450))
        self._instance_mode = instance_mode

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw a model's output.

        Args:
            predictions: fields used if there: pred_boxes, scores, pred_classes, pred_masks ((N, H, W) bool),
                pred_keypoints ((N, K, 3)).
            jittering: with ColorMode.SEGMENTATION, tell objects of a class apart by shades.
        """
        fields = predictions.to("cpu").get_fields()
        classes = fields["pred_classes"].tolist() if "pred_classes" in fields else None
        scores = fields["scores"].tolist() if "scores" in fields else None
        masks = self._convert_masks(fields["pred_masks"]) if "pred_masks" in fields else None
        alpha = 0.5
        colors = None
        if self._instance_mode == ColorMode.SEGMENTATION and classes is not None:
            colors = self._class_colors(classes, jittering)
            alpha = 0.6
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._gray_outside(masks_union(masks or [], self.img.shape[:2]))
            alpha = 0.3
        return self.overlay_instances(
            boxes=fields.get("pred_boxes"),
            labels=_create_text_labels(classes, scores, self.metadata.get("thing_classes")),
            masks=masks,
            keypoints=fields.get("pred_keypoints"),
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_panoptic_seg(
        self,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[dict[str, Any]] | None,
        area_threshold: float | None = None,
        alpha: float = 0.7,
    ) -> VisImage:
        """Draw panoptic segments: things in shades of their class's colour, stuff fainter, names inside.

        Args:
            panoptic_seg: (H, W) integer ids of segments; pixels of an id that is not listed stay as they are.
            segments_info: dicts with id, category_id (contiguous), isthing and, if there, score and iscrowd.
                None: ids are encoded by metadata.label_divisor, see `drawn_maps.panoptic_segments`.
            area_threshold: segments of fewer pixels get no name, as do those too small to hold it.
            alpha: opacity of things.
        """
        ids, infos = panoptic_segments(panoptic_seg, segments_info, self.metadata)
        return self._draw_segments(
            number_segments(ids, [info["id"] for info in infos]),
            panoptic_styles(infos, self.metadata),
            area_threshold=area_threshold,
            alpha=alpha,
        )

    draw_panoptic_seg_predictions = draw_panoptic_seg

    def draw_sem_seg(
        self,
        sem_seg: torch.Tensor | np.ndarray,
        area_threshold: float | None = None,
        alpha: float = 0.8,
        draw_text: bool = True,
        edge_color: Color | None = EDGE_COLOR,
    ) -> VisImage:
        """Draw semantic labels, every class in its colour, its name where it has most room.

        Args:
            sem_seg: (H, W) integer labels; metadata's ignore_label (255), and labels that are negative or
                beyond its stuff_classes, are left as they are.
            area_threshold: classes with fewer pixels get no name, as do those without room for it.
            alpha: opacity.
            draw_text: whether to write names.
            edge_color: of the lines between classes.
        """
        labels, names = np.asarray(_to_numpy(sem_seg)), self.metadata.get("stuff_classes")
        ignored = self.metadata.get("ignore_label", IGNORE_LABEL)
        classes = [
            int(label)
            for label in present_values(labels).tolist()
            if label != ignored and label >= 0 and (not names or label < len(names))
        ]
        styles = semantic_styles(classes, self.metadata)
        return self._draw_segments(
            number_segments(labels, classes),
            styles if draw_text else [replace(style, text="") for style in styles],
            area_threshold=area_threshold,
            alpha=alpha,
            edge_color=edge_color,
        )

    def draw_semantic_background(self, sem_seg: torch.Tensor | np.ndarray, *, has_objects: bool) -> VisImage:
        """Draw semantic labels (H, W) faintly, for objects to be drawn on them.

        has_objects: leave out the label that stands for all things: the objects show them.
        """
        labels = np.asarray(_to_numpy(sem_seg))
        things = things_label(self.metadata)
        if has_objects and things is not None:
            labels = np.where(labels == things, self.metadata.get("ignore_label", IGNORE_LABEL), labels)
        return self.draw_sem_seg(labels, alpha=0.5)

    def _draw_segments(
        self,
        numbered: np.ndarray,
        styles: Sequence[SegmentStyle],
        *,
        area_threshold: float | None,
        alpha: float,
        edge_color: Color | None = EDGE_COLOR,
    ) -> VisImage:
        assert numbered.shape == self.img.shape[:2], f"map {numbered.shape}, image {self.img.shape[:2]}"
        if self._instance_mode == ColorMode.IMAGE_BW:
            self._gray_outside(numbered > 0)
        width = max(1, round(self._line_width * 0.75))
        canvas = paint_segments(
            self.output, numbered, styles, alpha=alpha, line_width=width, edge_color=edge_color
        )
        labels = SegmentLabels(self.output, canvas, font_size=self._default_font_size)
        labels.draw(styles, min_area=(area_threshold or 0) * canvas.size / max(1, numbered.size))
        return self.output

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the truth of a dataset dict: its panoptic segments; else its semantic labels and objects.

        Objects are its "annotations"; crowds are marked.

        Raises:
            InputError: a file of the truth that cannot be read.
        """
        if has_panoptic_truth(dic):
            return self.draw_panoptic_seg(panoptic_truth(dic, self.metadata), dic["segments_info"])
        annotations = dic.get("annotations", [])
        labels = semantic_truth(dic, self.metadata)
        if labels is not None:
            self.draw_semantic_background(labels, has_objects=bool(annotations))
        if not annotations:
            return self.output
        classes = [a["category_id"] for a in annotations]
        colors = None
        if self._instance_mode == ColorMode.SEGMENTATION:
            colors = self._class_colors(classes, True)
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        names, is_crowd = self.metadata.get("thing_classes"), [bool(a.get("iscrowd")) for a in annotations]
        masks = [a.get("segmentation", []) for a in annotations]
        keypoints = None
        lengths = {len(a["keypoints"]) for a in annotations if a.get("keypoints")}
        if len(lengths) == 1:
            (length,) = lengths
            keypoints = np.array([a.get("keypoints") or [0] * length for a in annotations]).reshape(
                -1, length // 3, 3
            )
        return self.overlay_instances(
            boxes=boxes,
            labels=_create_text_labels(classes, None, names, is_crowd),
            masks=masks if any(map(len, masks)) else None,
            keypoints=keypoints,
            assigned_colors=colors,
        )

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        keypoints: Any = None,
        assigned_colors: Sequence[Color] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw N objects, large ones first.

        Args:
            boxes: `Boxes` or (N, 4) xyxy.
            labels: N texts.
            masks: BitMasks, PolygonMasks, (N, H, W), or N polygon lists, RLEs, pixels or GenericMasks.
            keypoints: `Keypoints` or (N, K, 3) of x, y, score; those of a score up to 0.05 are left out.
            assigned_colors: N colours; by default all different.
            alpha: opacity of the masks.
        """
        box_array = None if boxes is None else self._convert_boxes(boxes)
        mask_list = None if masks is None else self._convert_masks(masks)
        points = None if keypoints is None else self._convert_keypoints(keypoints)
        lengths = {len(part) for part in (box_array, mask_list, points, labels) if part is not None}
        if not lengths:
            return self.output
        assert len(lengths) == 1, f"boxes, masks, keypoints and labels differ in number: {sorted(lengths)}"
        (count,) = lengths
        if assigned_colors is None:
            assigned_colors = [tuple(c) for c in np.resize(colormap(rgb=True, maximum=1), (count, 3))]
        extents = self._extents(box_array, mask_list, points, count)
        sizes = (extents[:, 2:] - extents[:, :2]).clip(min=0).prod(axis=1)
        order = np.argsort(-sizes, kind="stable").tolist()
        for i in order:
            if mask_list is not None:
                self._draw_mask(mask_list[i], assigned_colors[i], None, alpha)
            if box_array is not None:
                self.draw_box(
                    box_array[i], alpha=1.0 if mask_list is None else 0.8, edge_color=assigned_colors[i]
                )
        for i in order if points is not None else ():
            self.draw_and_connect_keypoints(points[i])  # type: ignore[index]
        if labels is not None:
            self._draw_labels([labels[i] for i in order], extents[order], [assigned_colors[i] for i in order])
        return self.output

    def draw_and_connect_keypoints(self, keypoints: Any) -> VisImage:
        """Draw one object's keypoints (K, 3) of x, y, score and metadata's keypoint_connection_rules."""
        names = self.metadata.get("keypoint_names") or []
        places: dict[str, np.ndarray] = {}
        points = np.asarray(keypoints)
        for idx, point in enumerate(points):
            if point[2] > _KEYPOINT_THRESHOLD and idx < len(names):
                places[names[idx]] = point[:2]
        rules = list(self.metadata.get("keypoint_connection_rules") or [])
        if "nose" in names:
            places |= _spine(places)
            rules += _SPINE_RULES
        for start, end, color in rules:
            if start in places and end in places:
                x, y = np.stack([places[start], places[end]], axis=1)
                self.draw_line(x, y, np.asarray(color) / 255, linewidth=self._line_width + 1)
        for point in points[points[:, 2] > _KEYPOINT_THRESHOLD]:
            radius = 2 * self._line_width
            self.draw_circle(point[:2], "black", radius + 1)
            self.draw_circle(point[:2], "white", radius)
        return self.output

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Draw text on a box of `color`, moved as far as needed to lie inside the image.

        Args:
            position: x, y of the box's upper edge: at its "left" end, "center" or "right" end, as
                `horizontal_alignment` says.
            font_size: height of a capital in pixels of the result.
            rotation: degrees, counter-clockwise.
        """
        shares = {"left": 0.0, "center": 0.5, "right": 1.0}
        if horizontal_alignment not in shares:
            raise ValueError(
                f"horizontal_alignment is {horizontal_alignment!r}; allowed are {', '.join(shares)}"
            )
        label = self._label(text, color, font_size)
        ((x, y),) = self.output.to_canvas([position])
        label.draw(self.output.img, x - shares[horizontal_alignment] * label.width, y, rotation=rotation)
        return self.output

    def draw_box(
        self, box_coord: Sequence[float], alpha: float = 0.5, edge_color: Color = "g", line_style: str = "-"
    ) -> VisImage:
        """Draw the frame of a box, xyxy."""
        x0, y0, x1, y1 = (float(c) for c in box_coord)
        frame = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        self.output.draw_lines(
            frame, edge_color, self._line_width, dashed=_is_dashed(line_style), alpha=alpha
        )
        return self.output

    def draw_circle(self, circle_coord: Sequence[float], color: Color, radius: float = 3) -> VisImage:
        """Draw a disc around x, y; `radius` in pixels of the result."""
        self.output.draw_disc([float(c) for c in circle_coord[:2]], radius, color)
        return self.output

    def draw_line(
        self,
        x_data: Sequence[float] | np.ndarray,
        y_data: Sequence[float] | np.ndarray,
        color: Color,
        linestyle: str = "-",
        linewidth: float | None = None,
    ) -> VisImage:
        """Draw lines through the points; `linestyle` "-" or "--", `linewidth` in pixels of the result."""
        points = np.stack(
            [np.asarray(x_data, dtype=np.float64), np.asarray(y_data, dtype=np.float64)], axis=1
        )
        width = self._line_width if linewidth is None else max(1, round(linewidth))
        self.output.draw_lines(points, color, width, dashed=_is_dashed(linestyle))
        return self.output

    def draw_polygon(
        self, segment: Any, color: Color, edge_color: Color | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Draw a filled polygon, (N, 2) of x, y."""
        cover = self.output.polygon_cover([np.asarray(segment, dtype=np.float64).reshape(-1, 2)])
        self.output.blend(cover, color, alpha)
        self.output.draw_outline(cover, color if edge_color is None else edge_color, self._line_width)
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float | None = 10,
    ) -> VisImage:
        """Draw a mask (H, W); `text` on its middle if it has at least `area_threshold` pixels."""
        color = _DEFAULT_COLOR if color is None else color
        mask = GenericMask(np.asarray(binary_mask), self.output.height, self.output.width)
        self._draw_mask(mask, color, edge_color, alpha)
        if text and mask.area() >= (area_threshold or 1):
            rows, cols = np.nonzero(mask.mask)
            self.draw_text(text, (float(np.median(cols)) + 0.5, float(np.median(rows)) + 0.5), color=color)
        return self.output

    def get_output(self) -> VisImage:
        """What was drawn so far."""
        return self.output

    def _label(self, text: str, color: Color, font_size: float | None = None) -> Label:
        size = self._default_font_size if font_size is None else font_size
        return Label(text, color, font_size=size, max_width=self.output.img.shape[1])

    def _draw_mask(self, mask: GenericMask, color: Color, edge_color: Color | None, alpha: float) -> None:
        if mask.from_polygons:
            cover = self.output.polygon_cover([p.reshape(-1, 2) for p in mask.polygons])
        else:
            cover = self.output.mask_cover(mask.mask)
        self.output.blend(cover, color, alpha)
        self.output.draw_outline(cover, color if edge_color is None else edge_color, self._line_width)

    def _draw_labels(self, labels: Sequence[str], extents: np.ndarray, colors: Sequence[Color]) -> None:
        drawn = [self._label(text, color) for text, color in zip(labels, colors, strict=True)]
        corners = self.output.to_canvas(extents.reshape(-1, 2)).reshape(-1, 4)
        height, width = self.output.img.shape[:2]
        places = place_labels(corners, [(label.width, label.height) for label in drawn], (width, height))
        for label, (x, y) in zip(drawn, places, strict=True):
            label.draw(self.output.img, x, y)

    def _class_colors(self, classes: Sequence[int], jittering: bool) -> list[tuple[float, float, float]]:
        table = self.metadata.get("thing_colors")
        colors = colormap(rgb=True, maximum=1) if table is None else np.asarray(table, dtype=np.float32) / 255
        chosen = [to_rgb(colors[int(c) % len(colors)]) for c in classes]
        return keep_colors_apart(chosen) if jittering else chosen

    def _gray_outside(self, is_inside: np.ndarray) -> None:
        """Show the image in grey where `is_inside` (H, W) is not."""
        gray = np.repeat(cv2.cvtColor(self.img, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        self.output.reset_image(np.where(is_inside[..., None], self.img, gray))

    def _convert_boxes(self, boxes: Any) -> np.ndarray:
        boxes = boxes.tensor if isinstance(boxes, Boxes) else boxes
        return np.asarray(boxes.detach().cpu() if isinstance(boxes, torch.Tensor) else boxes).reshape(-1, 4)

    def _convert_masks(self, masks: Any) -> list[GenericMask]:
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        elif isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor):
            masks = masks.detach().cpu().numpy()
        size = self.output.height, self.output.width
        return [m if isinstance(m, GenericMask) else GenericMask(_to_numpy(m), *size) for m in masks]

    def _convert_keypoints(self, keypoints: Any) -> np.ndarray:
        keypoints = keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints
        return np.asarray(_to_numpy(keypoints))

    def _extents(
        self, boxes: np.ndarray | None, masks: list[GenericMask] | None, points: np.ndarray | None, count: int
    ) -> np.ndarray:
        """(N, 4) xyxy around each object, for the order of drawing and the place of the label."""
        if boxes is not None:
            return boxes
        if masks is not None:
            return np.stack([mask.bbox() for mask in masks]) if masks else np.zeros((0, 4))
        if points is not None:
            return np.concatenate([points[..., :2].min(axis=1), points[..., :2].max(axis=1)], axis=1)
        return np.zeros((count, 4))


def _spine(places: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The middle of the shoulders, "neck", and of the hips, "pelvis", where both sides are known."""
    pairs = {"neck": ("left_shoulder", "right_shoulder"), "pelvis": ("left_hip", "right_hip")}
    return {
        name: (places[left] + places[right]) / 2
        for name, (left, right) in pairs.items()
        if name not in places and left in places and right in places
    }


def _to_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _is_dashed(style: str) -> bool:
    if style not in ("-", "--"):
        raise ValueError(f"line style is {style!r}; allowed are '-' and '--'")
    return style == "--"
