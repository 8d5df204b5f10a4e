"""One picture that shows truth and prediction side by side for several images."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from panomask.data.catalog import Metadata
from panomask.structures import Instances
from panomask.visualization.canvas import Label
from panomask.visualization.drawn_maps import (
    has_panoptic_truth,
    objects_alone,
    panoptic_segments,
    semantic_truth,
)
from panomask.visualization.image_file import write_image
from panomask.visualization.visualizer import ColorMode, Visualizer, _create_text_labels

__all__ = ["comparison_sheet", "draw_truth"]

_PAPER, _CARD = (0.94, 0.945, 0.95), (1.0, 1.0, 1.0)
_INK_LABEL = (1.0, 1.0, 1.0)
_GAP, _CAPTION, _FONT = 14, 26, 10.0
_SEMANTIC_OPACITY = 0.6


def draw_truth(
    image: np.ndarray,
    truth: Instances | dict[str, Any],
    metadata: Metadata | None,
    *,
    scale: float = 1.0,
    instance_mode: ColorMode = ColorMode.SEGMENTATION,
) -> np.ndarray:
    """The truth drawn on `image` (H, W, 3) RGB, at `scale`.

    truth: a dataset dict with "annotations", panoptic segments or semantic labels; Instances with gt_boxes,
    gt_classes and, if there, gt_masks and gt_keypoints; or a dict with such "instances" and "sem_seg".
    """
    return _draw_truth(Visualizer(image, metadata, scale, instance_mode), truth)


def _draw_truth(visualizer: Visualizer, truth: Instances | dict[str, Any]) -> np.ndarray:
    if isinstance(truth, dict) and "instances" not in truth:
        return visualizer.draw_dataset_dict(truth).get_image()
    objects = truth["instances"] if isinstance(truth, dict) else truth
    if isinstance(truth, dict) and truth.get("sem_seg") is not None:
        visualizer.draw_semantic_background(truth["sem_seg"], has_objects=len(objects) > 0)
    fields = objects.to("cpu").get_fields()
    classes = fields["gt_classes"].tolist()
    by_class = visualizer._instance_mode == ColorMode.SEGMENTATION
    return visualizer.overlay_instances(
        boxes=fields["gt_boxes"],
        labels=_create_text_labels(classes, None, visualizer.metadata.get("thing_classes")),
        masks=fields.get("gt_masks"),
        keypoints=fields.get("gt_keypoints"),
        assigned_colors=visualizer._class_colors(classes, True) if by_class else None,
    ).get_image()


def comparison_sheet(
    rows: Sequence[tuple[np.ndarray, Instances | dict[str, Any], Instances | dict[str, Any]]],
    metadata: Metadata | None,
    path: str | Path,
    *,
    columns: int = 2,
    tile_size: tuple[int, int] = (330, 420),
    score_threshold: float = 0.5,
) -> None:
    """Write a sheet of images with truth (left) and prediction (right).

    Args:
        rows: (image RGB (H, W, 3), truth, prediction). The truth as in `draw_truth`. The prediction at the
            image's size: Instances, or a model's output, of which panoptic_seg is drawn, else instances, else
            sem_seg ((K, H, W) logits). Of the truth only what the prediction has too is drawn.
        path: of the JPEG or PNG; written whole or not at all.
        columns: pairs beside each other.
        tile_size: (height, width) that each drawn image is fitted into.
        score_threshold: detections below it are not drawn; panoptic segments are what they are.
    """
    if not rows:
        raise ValueError("A sheet needs at least one image")
    metadata = Metadata() if metadata is None else metadata
    cards = []
    for image, truth, prediction in rows:
        scale = min(tile_size[0] / image.shape[0], tile_size[1] / image.shape[1])
        draw = functools.partial(Visualizer, image, metadata, scale, ColorMode.SEGMENTATION)
        if isinstance(prediction, dict) and "panoptic_seg" in prediction:
            pictures, captions = _panoptic_pair(draw, truth, prediction)
        elif isinstance(prediction, dict) and "instances" not in prediction:
            pictures, captions = _semantic_pair(draw, truth, prediction)
        else:
            objects = prediction["instances"] if isinstance(prediction, dict) else prediction
            pictures, captions = _object_pair(draw, truth, objects, score_threshold)
        cards.append(_card(pictures, captions, tile_size))
    write_image(path, _arrange(cards, min(columns, len(cards))))


_Pair: TypeAlias = tuple[Sequence[np.ndarray], Sequence[str]]
"""Pictures and captions of truth and prediction."""


def _object_pair(
    draw: Callable[[], Visualizer], truth: Any, prediction: Instances, score_threshold: float
) -> _Pair:
    kept = prediction[prediction.scores >= score_threshold]
    truth = _comparable(truth, prediction, draw().metadata)
    num_truth = len(truth["annotations"]) if isinstance(truth, dict) else len(truth)
    pictures = _draw_truth(draw(), truth), draw().draw_instance_predictions(kept).get_image()
    return pictures, (
        f"truth: {num_truth}",
        f"prediction: {len(kept)} with score of {score_threshold:g} or more",
    )


def _panoptic_pair(draw: Callable[[], Visualizer], truth: Any, prediction: dict[str, Any]) -> _Pair:
    ids, infos = prediction["panoptic_seg"]
    ids, infos = panoptic_segments(ids, infos, draw().metadata)
    pictures = draw().draw_dataset_dict(truth), draw().draw_panoptic_seg(ids, infos)
    captions = (
        f"truth: {_count(truth['segments_info'])}" if has_panoptic_truth(truth) else "truth",
        f"prediction: {_count(infos)}",
    )
    return [picture.get_image() for picture in pictures], captions


def _count(infos: Sequence[dict[str, Any]]) -> str:
    num_things = sum(bool(info["isthing"]) for info in infos)
    return f"{num_things} things, {len(infos) - num_things} stuff"


def _semantic_pair(draw: Callable[[], Visualizer], truth: Any, prediction: dict[str, Any]) -> _Pair:
    labels = semantic_truth(truth, draw().metadata)
    assert labels is not None, "the truth has no semantic labels"
    pictures = [
        draw().draw_sem_seg(labels, alpha=_SEMANTIC_OPACITY),
        draw().draw_sem_seg(prediction["sem_seg"].max(dim=0).indices, alpha=_SEMANTIC_OPACITY),
    ]
    return [picture.get_image() for picture in pictures], ("truth", "prediction")


def _comparable(
    truth: Instances | dict[str, Any], prediction: Instances, metadata: Metadata
) -> Instances | dict[str, Any]:
    """The truth without the kinds of output that the model does not have."""
    kinds = {"pred_masks": ("segmentation", "gt_masks"), "pred_keypoints": ("keypoints", "gt_keypoints")}
    left_out = {name for kind, names in kinds.items() if not prediction.has(kind) for name in names}
    if isinstance(truth, dict):
        truth = objects_alone(truth, metadata)
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
