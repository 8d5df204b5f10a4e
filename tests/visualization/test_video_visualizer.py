"""Objects keep their colours from frame to frame."""

import numpy as np
import torch

from panomask.data.catalog import Metadata
from panomask.structures import Boxes, Instances
from panomask.visualization import ColorMode, VideoVisualizer

FRAME = np.zeros((60, 100, 3), dtype=np.uint8)


def _objects(*columns: int, masks: bool = True, classes: list[int] | None = None) -> Instances:
    """Squares of 20 pixels at the given columns."""
    objects = Instances((60, 100))
    objects.pred_boxes = Boxes(torch.tensor([[c, 20.0, c + 20, 40] for c in columns]).reshape(-1, 4))
    objects.pred_classes = torch.tensor(classes or [0] * len(columns), dtype=torch.int64)
    if masks:
        objects.pred_masks = torch.zeros(len(columns), 60, 100, dtype=torch.bool)
        for mask, column in zip(objects.pred_masks, columns, strict=True):
            mask[20:40, column : column + 20] = True
    return objects


def _color_at(image: np.ndarray, column: int) -> tuple[int, ...]:
    return tuple(image[30, column].tolist())


def test_colors_follow_moving_objects_in_any_order() -> None:
    video = VideoVisualizer(None)
    first = video.draw_instance_predictions(FRAME, _objects(10, 60)).get_image()
    second = video.draw_instance_predictions(FRAME, _objects(62, 12)).get_image()
    assert _color_at(first, 20) == _color_at(second, 22) != _color_at(first, 70)
    assert _color_at(first, 70) == _color_at(second, 72)


def test_colors_follow_boxes_when_there_are_no_masks() -> None:
    video = VideoVisualizer(None)
    video.draw_instance_predictions(FRAME, _objects(10, 60, masks=False))
    before = [i.color for i in video._old_instances]
    video.draw_instance_predictions(FRAME, _objects(62, 12, masks=False))
    assert [i.color for i in video._old_instances] == before[::-1]


def test_a_missed_object_is_remembered_and_a_new_one_gets_a_free_color() -> None:
    video = VideoVisualizer(None)
    first = video.draw_instance_predictions(FRAME, _objects(10)).get_image()
    for _ in range(3):
        video.draw_instance_predictions(FRAME, _objects())
    other = video.draw_instance_predictions(FRAME, _objects(60)).get_image()
    again = video.draw_instance_predictions(FRAME, _objects(10)).get_image()
    assert _color_at(first, 20) == _color_at(again, 20) != _color_at(other, 70)
    for _ in range(10):
        video.draw_instance_predictions(FRAME, _objects())
    assert video._old_instances == []


def test_an_object_of_another_class_is_another_object() -> None:
    video = VideoVisualizer(None)
    first = video.draw_instance_predictions(FRAME, _objects(10, classes=[0])).get_image()
    second = video.draw_instance_predictions(FRAME, _objects(10, classes=[1])).get_image()
    assert _color_at(first, 20) != _color_at(second, 20)


def test_classes_have_colors_in_segmentation_mode() -> None:
    video = VideoVisualizer(None, ColorMode.SEGMENTATION)
    image = video.draw_instance_predictions(FRAME, _objects(10, 60, classes=[3, 3])).get_image()
    assert _color_at(image, 20) == _color_at(image, 70)


METADATA = Metadata().set(
    thing_classes=["cat", "dog"], stuff_classes=["things", "sky"], stuff_colors=[[0, 0, 0], [0, 0, 255]]
)


def _segments(*columns: int) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Cats of 20 pixels at the given columns before a sky."""
    ids = np.full((60, 100), 9)
    for number, column in enumerate(columns, start=1):
        ids[20:40, column : column + 20] = number
    infos: list[dict[str, object]] = [
        {"id": number, "category_id": 0, "isthing": True} for number in range(1, len(columns) + 1)
    ]
    return ids, [{"id": 9, "category_id": 1, "isthing": False}, *infos]


def test_panoptic_colors_stay_with_things_and_with_classes_of_stuff() -> None:
    video = VideoVisualizer(METADATA)
    first = video.draw_panoptic_seg_predictions(FRAME, *_segments(10, 60), alpha=0.5).get_image()
    second = video.draw_panoptic_seg_predictions(FRAME, *_segments(65, 15), alpha=0.5).get_image()
    assert _color_at(first, 20) == _color_at(second, 25) != _color_at(first, 70)
    assert _color_at(first, 70) == _color_at(second, 75)
    assert _color_at(first, 5) == _color_at(second, 5)
    assert first[5, 5].tolist() == [0, 0, round(0.5 * 0.75 * 255)]
    empty = video.draw_panoptic_seg_predictions(FRAME, np.zeros((60, 100), int), []).get_image()
    assert not empty.any()
    again = video.draw_panoptic_seg_predictions(FRAME, torch.as_tensor(_segments(65)[0]), _segments(65)[1])
    assert _color_at(again.get_image(), 75) == _color_at(first, 70)


def test_semantic_frames() -> None:
    labels = torch.full((60, 100), 255)
    labels[:, :50] = 1
    image = VideoVisualizer(METADATA).draw_sem_seg(FRAME, labels).get_image()
    assert image[50, 10].tolist() == [0, 0, 204]
    assert not image[:, 55:].any()
