"""One picture that shows truth and prediction side by side for several images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panomask.data.catalog import Metadata
from panomask.structures import Instances
from panomask.visualization.canvas import Label
from panomask.visualization.image_file import write_image
from panomask.visualization.visualizer import ColorMode, Visualizer, _create_text_labels

__all__ = ["comparison_sheet", "draw_truth"]

_PAPER, _CARD = (0.94, 0.945, 0.95), (1.0, 1.0, 1.0)
_INK_LABEL = (1.0, 1.0, 1.0)
_GAP, _CAPTION, _FONT = 14, 26, 10.0


def draw_truth(
    image: np.ndarray,
    truth: Instances | dict[str, Any],
    metadata: Metadata | None,
    *,
    scale: float = 1.0,
    instance_mode: ColorMode = ColorMode.SEGMENTATION,
) -> np.ndarray:
    """The truth drawn on `image` (H, W, 3) RGB, at `scale`.

    truth: a dataset dict with "annotations", or Instances with gt_boxes, gt_classes and, if there, gt_masks
    and gt_keypoints.
    """
    visualizer = Visualizer(image, metadata, scale, instance_mode)
    if isinstance(truth, dict):
        return visualizer.draw_dataset_dict(truth).get_image()
    fields = truth.to("cpu").get_fields()
    classes = fields["gt_classes"].tolist()
    colors = visualizer._class_colors(classes, True) if instance_mode == ColorMode.SEGMENTATION else None
    return visualizer.overlay_instances(
        boxes=fields["gt_boxes"],
        labels=_create_text_labels(classes, None, visualizer.metadata.get("thing_classes")),
        masks=fields.get("gt_masks"),
        keypoints=fields.get("gt_keypoints"),
        assigned_colors=colors,
    ).get_image()


def comparison_sheet(
    rows: Sequence[tuple[np.ndarray, Instances | dict[str, Any], Instances]],
    metadata: Metadata | None,
    path: str | Path,
    *,
    columns: int = 2,
    tile_size: tuple[int, int] = (330, 420),
    score_threshold: float = 0.5,
) -> None:
    """Write a sheet of images with truth (left) and prediction (right).

    Args:
        rows: (image RGB (H, W, 3), truth, prediction); the truth as in `draw_truth`, the prediction at the
            image's size. Masks and keypoints of the truth are drawn where the prediction has them too.
        path: of the JPEG or PNG; written whole or not at all.
        columns: pairs beside each other.
        tile_size: (height, width) that each drawn image is fitted into.
        score_threshold: detections below it are not drawn.
    """
    if not rows:
        raise ValueError("A sheet needs at least one image")
    cards = []
    for image, truth, prediction in rows:
        scale = min(tile_size[0] / image.shape[0], tile_size[1] / image.shape[1])
        kept = prediction[prediction.scores >= score_threshold]
        drawing = Visualizer(image, metadata, scale, ColorMode.SEGMENTATION).draw_instance_predictions(kept)
        truth = _comparable(truth, prediction)
        num_truth = len(truth["annotations"]) if isinstance(truth, dict) else len(truth)
        cards.append(
            _card(
                (draw_truth(image, truth, metadata, scale=scale), drawing.get_image()),
                (f"truth: {num_truth}", f"prediction: {len(kept)} with score of {score_threshold:g} or more"),
                tile_size,
            )
        )
    write_image(path, _arrange(cards, min(columns, len(cards))))


def _comparable(truth: Instances | dict[str, Any], prediction: Instances) -> Instances | dict[str, Any]:
    """The truth without the kinds of output that the model does not have."""
    kinds = {"pred_masks": ("segmentation", "gt_masks"), "pred_keypoints": ("keypoints", "gt_keypoints")}
    left_out = {name for kind, names in kinds.items() if not prediction.has(kind) for name in names}
    if isinstance(truth, dict):
        annotations = [
            {name: value for name, value in annotation.items() if name not in left_out}
            for annotation in truth["annotations"]
        ]
        return {**truth, "annotations": annotations}
    fields = {name: value for name, value in truth.get_fields().items() if name not in left_out}
    return Instances(truth.image_size, **fields)


def _paper(height: int, width: int, color: Sequence[float]) -> np.ndarray:
    return np.tile(np.rint(np.array(color) * 255).astype(np.uint8), (height, width, 1))


def _card(pictures: Sequence[np.ndarray], captions: Sequence[str], tile_size: tuple[int, int]) -> np.ndarray:
    """Pictures side by side on white, each in the middle of its tile below its caption."""
    height, width = tile_size
    pad = _GAP // 2
    card = _paper(height + _CAPTION + 2 * pad, len(pictures) * (width + pad) + pad, _CARD)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        picture = picture[:height, :width]
        left = pad + number * (width + pad) + (width - picture.shape[1]) // 2
        top = _CAPTION + pad + (height - picture.shape[0]) // 2
        card[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        label = Label(caption, _INK_LABEL, font_size=_FONT, max_width=width)
        label.draw(card, left - 1, pad)
    return card


def _arrange(cards: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Cards in rows of `columns` on a sheet."""
    height, width = cards[0].shape[:2]
    num_rows = -(-len(cards) // columns)
    sheet = _paper(num_rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, _PAPER)
    for number, card in enumerate(cards):
        top = _GAP + number // columns * (height + _GAP)
        left = _GAP + number % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = card
    return sheet
