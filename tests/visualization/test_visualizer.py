"""Things are drawn where they are: expected pixels derived by hand from continuous coordinates."""

from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_coding
import pytest
import torch

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BitMasks, Boxes, BoxMode, Instances, Keypoints, PolygonMasks
from panomask.visualization import ColorMode, GenericMask, VisImage, Visualizer, _create_text_labels

RED = (1.0, 0.0, 0.0)
SQUARE = [[4, 6], [12, 6], [12, 14], [4, 14]]  # covers the pixels of columns 4..11, rows 6..13
METADATA = Metadata().set(
    thing_classes=["cat", "dog"],
    keypoint_names=["left", "right"],
    keypoint_connection_rules=[("left", "right", (0, 0, 255))],
)


def _black(height: int = 20, width: int = 24, scale: float = 1.0, **kwargs: object) -> Visualizer:
    return Visualizer(np.zeros((height, width, 3), dtype=np.uint8), METADATA, scale, **kwargs)  # type: ignore[arg-type]


def _square_mask(scale: int = 1) -> np.ndarray:
    mask = np.zeros((20 * scale, 24 * scale), dtype=bool)
    mask[6 * scale : 14 * scale, 4 * scale : 12 * scale] = True
    return mask


def _changed(image: np.ndarray) -> np.ndarray:
    """Pixels drawn on, without the faint rim that OpenCV's anti-aliasing adds."""
    return image.max(axis=2) > 110


def test_box_lies_on_its_edges() -> None:
    image = _black().draw_box((4, 6, 12, 14), alpha=1.0, edge_color=RED).get_image()
    changed = _changed(image)
    rows, cols = np.nonzero(changed)
    # A line of one pixel along x = 4 half covers the columns 3 and 4.
    assert (cols.min(), cols.max(), rows.min(), rows.max()) == (3, 12, 5, 14)
    assert not changed[7:13, 5:11].any()
    assert changed[10, [3, 4]].any()
    assert changed[10, [11, 12]].any()
    assert image[..., 1:].max() == 0


def test_polygon_fills_its_pixels() -> None:
    image = _black().draw_polygon(np.array(SQUARE), RED, alpha=0.5).get_image()
    assert abs(int(image[10, 8, 0]) - 128) <= 1
    assert (image[..., 1:] == 0).all()
    assert np.array_equal(_changed(image), _square_mask())


def test_mask_covers_its_pixels_and_no_others() -> None:
    image = _black().draw_binary_mask(_square_mask(), RED, alpha=0.5).get_image()
    assert image[10, 8].tolist() == [128, 0, 0]
    assert image[6, 4, 0] > 220  # the border is drawn opaque
    assert np.array_equal(_changed(image), _square_mask())


@pytest.mark.parametrize("scale", [2, 3])
def test_scale_enlarges_everything(scale: int) -> None:
    visualizer = _black(scale=scale)
    assert visualizer.get_output().get_image().shape == (20 * scale, 24 * scale, 3)
    drawings = [
        _black(scale=scale).draw_binary_mask(_square_mask(), RED, alpha=1).get_image(),
        _black(scale=scale).draw_polygon(SQUARE, RED, alpha=1).get_image(),
    ]
    for image in drawings:
        difference = _changed(image) != _square_mask(scale)
        border = cv2.morphologyEx(
            _square_mask(scale).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)
        )
        assert not difference[border == 0].any()


def test_circle_and_line() -> None:
    image = _black().draw_circle((8, 10), RED, radius=3).get_image()
    rows, cols = np.nonzero(_changed(image))
    assert image[10, 8].tolist() == [255, 0, 0]
    assert (rows.mean() + 0.5, cols.mean() + 0.5) == pytest.approx((10, 8), abs=0.3)
    assert (np.hypot(rows + 0.5 - 10, cols + 0.5 - 8) < 4.3).all()

    image = _black().draw_line([2, 22], [10.5, 10.5], RED).get_image()
    assert (image[10, 3:21, 0] > 200).all()
    assert not _changed(image)[[8, 12]].any()
    dashed = _black().draw_line([2, 22], [10.5, 10.5], RED, linestyle="--").get_image()
    assert 0 < _changed(dashed)[10].sum() < 20
    with pytest.raises(ValueError, match="allowed are '-' and '--'"):
        _black().draw_line([2, 22], [10, 10], RED, linestyle=":")


@pytest.mark.parametrize("position", [(0, 0), (200, 100), (100, 50), (-30, 400)])
@pytest.mark.parametrize("alignment", ["left", "center", "right"])
def test_text_boxes_are_whole_and_inside(position: tuple[float, float], alignment: str) -> None:
    visualizer = _black(100, 200)
    label = visualizer._label("person 87%", "yellow", 9)
    image = visualizer.draw_text(
        "person 87%", position, color="yellow", font_size=9, horizontal_alignment=alignment
    ).get_image()
    rows, cols = np.nonzero(image.sum(axis=2) > 0)
    assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == (label.height, label.width)
    dark = image[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].min(axis=(1, 2)) < 60
    assert dark.any()  # black ink on yellow


def test_text_position_and_size() -> None:
    visualizer = _black(100, 200)
    label = visualizer._label("abc", RED, 9)
    image = visualizer.draw_text(
        "abc", (60, 40), color=RED, font_size=9, horizontal_alignment="left"
    ).get_image()
    rows, cols = np.nonzero(_changed(image))
    assert (rows.min(), cols.min()) == (40, 60)
    turned = _black(100, 200).draw_text("abc", (60, 40), color=RED, font_size=9, rotation=90).get_image()
    rows, cols = np.nonzero(_changed(turned))
    assert abs(np.ptp(rows) + 1 - label.width) <= 2
    assert abs(np.ptp(cols) + 1 - label.height) <= 2
    with pytest.raises(ValueError, match="allowed are left, center, right"):
        visualizer.draw_text("abc", (1, 1), horizontal_alignment="middle")


def test_a_text_wider_than_the_image_is_made_smaller() -> None:
    visualizer = _black(30, 40)
    label = visualizer._label("a rather long name of a class 100%", "w", 12)
    assert label.width <= 40
    visualizer.draw_text("a rather long name of a class 100%", (0, 0), color="w", font_size=12)


def test_overlay_accepts_every_form_of_mask() -> None:
    pixels = _square_mask()
    forms = [
        pixels[None],
        torch.as_tensor(pixels)[None],
        BitMasks(torch.as_tensor(pixels)[None]),
        [mask_coding.encode(np.asfortranarray(pixels.astype(np.uint8)))],
        [GenericMask(pixels, 20, 24)],
    ]
    images = [_black().overlay_instances(masks=m, assigned_colors=[RED]).get_image() for m in forms]
    assert all(np.array_equal(image, images[0]) for image in images)
    polygon = np.array(SQUARE, dtype=float).ravel()
    for form in ([[polygon]], PolygonMasks([[polygon]])):
        image = _black().overlay_instances(masks=form, assigned_colors=[RED]).get_image()
        assert abs(int(image[10, 8, 0]) - 128) <= 1


def test_polygons_of_one_object_are_joined_where_they_overlap() -> None:
    masks = [[[4, 6, 12, 6, 12, 14, 4, 14], [6, 8, 16, 8, 16, 12, 6, 12]]]
    image = _black().overlay_instances(masks=masks, assigned_colors=[RED], alpha=1).get_image()
    assert image[10, 8].tolist() == [255, 0, 0]


def test_predictions_are_drawn_with_labels() -> None:
    predictions = Instances((60, 80))
    predictions.pred_boxes = Boxes(torch.tensor([[10.0, 30, 30, 50], [40, 30, 70, 55]]))
    predictions.scores = torch.tensor([0.9, 0.4])
    predictions.pred_classes = torch.tensor([0, 1])
    predictions.pred_masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    predictions.pred_masks[0, 30:50, 10:30] = True
    predictions.pred_masks[1, 30:55, 40:70] = True
    predictions.pred_keypoints = torch.tensor([[[20.0, 40, 1], [25, 40, 1]], [[45, 40, 0.0], [65, 40, 1]]])
    for mode in ColorMode:
        visualizer = _black(60, 80, scale=5, instance_mode=mode)
        image = visualizer.draw_instance_predictions(predictions).get_image()
        assert (image[155:245, 55:90].max(axis=2) > 20).all()  # the mask
        assert _changed(image)[140:148, 52:80].mean() > 0.5  # the label above, with black ink
        assert image[200, 100].min() > 200  # keypoint
        assert image[200, 225].min() < 200  # of score 0
    empty = _black(60, 80).draw_instance_predictions(predictions[:0]).get_image()
    assert not empty.any()


def test_everything_outside_the_masks_is_gray_in_bw_mode() -> None:
    image = np.zeros((20, 24, 3), dtype=np.uint8)
    image[..., 1] = 200
    predictions = Instances((20, 24), pred_masks=torch.as_tensor(_square_mask())[None])
    drawn = (
        Visualizer(image, instance_mode=ColorMode.IMAGE_BW).draw_instance_predictions(predictions).get_image()
    )
    assert len(set(drawn[2, 20].tolist())) == 1
    assert len(set(drawn[10, 8].tolist())) > 1


def test_dataset_dicts_with_mixed_annotations() -> None:
    common = {"bbox": [4, 6, 8, 8], "bbox_mode": BoxMode.XYWH_ABS}
    annotations = [
        {
            **common,
            "category_id": 0,
            "segmentation": [[4, 6, 12, 6, 12, 14, 4, 14]],
            "keypoints": [8, 10, 2, 0, 0, 0],
        },
        {**common, "category_id": 1, "iscrowd": 1, "segmentation": {"counts": [6, 8, 466], "size": [20, 24]}},
        {**common, "category_id": 1},
    ]
    image = _black(scale=10).draw_dataset_dict({"annotations": annotations}).get_image()
    assert image[100, 80].min() > 200  # keypoint
    assert not _black().draw_dataset_dict({"annotations": []}).get_image().any()
    assert not _black().draw_dataset_dict({}).get_image().any()


def test_keypoints_are_joined_by_the_rules() -> None:
    visualizer = _black(40, 60)
    visualizer.overlay_instances(keypoints=Keypoints(torch.tensor([[[10.0, 20, 2], [50, 20, 2]]])))
    image = visualizer.get_output().get_image()
    assert image[20, 30].tolist()[2] > 100  # the blue line
    assert image[20, 30].tolist()[0] == 0
    assert image[20, 10].min() > 200


def test_a_person_has_a_spine() -> None:
    """From the nose to the middle of the shoulders and of the hips; without a hip, the first half alone."""
    names = ["nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"]
    points = np.array([[30.0, 5, 2], [40, 20, 2], [20, 20, 2], [40, 40, 2], [20, 40, 2]])
    for has_hips in (True, False):
        visualizer = Visualizer(np.zeros((50, 60, 3)), Metadata().set(keypoint_names=names))
        points[4, 2] = 2 if has_hips else 0
        image = visualizer.draw_and_connect_keypoints(points).get_image()
        assert image[12, 30].tolist()[0] > 200
        assert (image[30, 30].tolist()[0] > 200) == has_hips


def test_texts_of_labels() -> None:
    assert _create_text_labels([0, 1], [0.876, 1.0], ["cat", "dog"]) == ["cat 88%", "dog 100%"]
    assert _create_text_labels([0, 7], None, ["cat", "dog"], [True, False]) == ["cat|crowd", "7"]
    assert _create_text_labels(None, [0.5], None) == ["50%"]
    assert _create_text_labels(None, None, None) is None


def test_the_given_image_is_not_changed_and_saving_keeps_pixels(tmp_path: Path) -> None:
    image = np.full((20, 24, 3), 7.9)
    visualizer = Visualizer(image)
    output = visualizer.draw_box((4, 6, 12, 14))
    assert (image == 7.9).all()
    assert output is visualizer.get_output()
    output.save(tmp_path / "deep" / "drawn.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "deep" / "drawn.png"))[..., ::-1], output.get_image())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["drawn.png"]
    with pytest.raises(InputError, match=r"drawn\.pdf: .* allowed are \.png"):
        output.save(tmp_path / "drawn.pdf")
    with pytest.raises(InputError, match="cannot be written"):
        output.save(tmp_path / "deep" / "drawn.png" / "below.png")


def test_vis_image_starts_again() -> None:
    output = VisImage(np.zeros((10, 10, 3), dtype=np.uint8), scale=2)
    output.reset_image(np.full((5, 6, 3), 300))
    assert output.get_image().shape == (10, 12, 3)
    assert (output.get_image() == 255).all()


SEGMENTS = [
    {"id": 5, "category_id": 1, "isthing": True, "score": 0.9},
    {"id": 300, "category_id": 1, "isthing": False, "area": 64},
]
PANOPTIC_METADATA = Metadata().set(
    thing_classes=["cat", "dog"],
    thing_colors=[[255, 0, 0], [0, 255, 0]],
    stuff_classes=["things", "sky"],
    stuff_colors=[[255, 0, 255], [0, 0, 255]],
    sem_seg_things_label=0,
    ignore_label=255,
)


def _panoptic_ids() -> np.ndarray:
    """A dog on the left, sky on the right, an id that nobody lists in the middle, and void below."""
    ids = np.zeros((20, 24), dtype=np.int32)
    ids[:14, :8], ids[:14, 8:16], ids[:14, 16:] = 5, 77, 300
    return ids


def test_panoptic_segments_have_the_colours_of_their_classes() -> None:
    for ids in (_panoptic_ids(), torch.as_tensor(_panoptic_ids())):
        visualizer = Visualizer(np.zeros((20, 24, 3)), PANOPTIC_METADATA)
        image = visualizer.draw_panoptic_seg(ids, SEGMENTS, alpha=0.6).get_image()
        assert image[5, 4].tolist() == [0, 153, 0]
        assert image[5, 20].tolist() == [0, 0, round(0.6 * 0.75 * 255)]
        assert not image[5, 12].any()
        assert not image[17].any()
    assert Visualizer.draw_panoptic_seg_predictions is Visualizer.draw_panoptic_seg


def test_panoptic_segments_are_named_where_there_is_room() -> None:
    ids = np.kron(_panoptic_ids(), np.ones((10, 10), dtype=np.int32))
    visualizer = Visualizer(np.zeros((200, 240, 3)), PANOPTIC_METADATA)
    named = visualizer.draw_panoptic_seg(ids, SEGMENTS, alpha=1.0).get_image()
    unnamed = Visualizer(np.zeros((200, 240, 3)), PANOPTIC_METADATA)
    unnamed = unnamed.draw_panoptic_seg(ids, SEGMENTS, area_threshold=1e6, alpha=1.0).get_image()
    changed = (named != unnamed).any(axis=2)
    assert changed[:, :80].any()
    assert changed[:, 160:].any()
    assert not changed[:, 82:158].any()
    (
        none,
        larger,
        smaller,
    ) = (  # each segment has 11200 pixels of the image, and four times as many of the canvas
        Visualizer(np.zeros((200, 240, 3)), PANOPTIC_METADATA, scale=2)
        .draw_panoptic_seg(ids, SEGMENTS, area_threshold=threshold, alpha=1.0)
        .get_image()
        for threshold in (1e6, 20000, 10000)
    )
    assert (larger == none).all()
    assert (smaller != none).any()


def test_an_image_without_segments_stays() -> None:
    image = np.full((20, 24, 3), 90)
    assert (Visualizer(image).draw_panoptic_seg(np.zeros((20, 24), int), []).get_image() == 90).all()
    assert (Visualizer(image).draw_sem_seg(np.full((20, 24), 255)).get_image() == 90).all()


def test_what_is_no_segment_is_gray_in_bw_mode() -> None:
    image = np.zeros((20, 24, 3), dtype=np.uint8)
    image[..., 1] = 200
    visualizer = Visualizer(image, PANOPTIC_METADATA, instance_mode=ColorMode.IMAGE_BW)
    drawn = visualizer.draw_panoptic_seg(_panoptic_ids(), SEGMENTS).get_image()
    assert len(set(drawn[17, 4].tolist())) == 1
    assert len(set(drawn[5, 4].tolist())) > 1


def test_semantic_labels_have_the_colours_of_their_classes() -> None:
    labels = np.full((20, 24), 255)
    labels[:, :8], labels[:, 8:12] = 1, 7  # 7: no class of this data set
    image = Visualizer(np.zeros((20, 24, 3)), PANOPTIC_METADATA).draw_sem_seg(labels, alpha=0.6).get_image()
    assert image[5, 4].tolist() == [0, 0, 153]
    assert not image[:, 9:].any()
    plain = Visualizer(np.zeros((20, 24, 3)), PANOPTIC_METADATA)
    plain = plain.draw_sem_seg(
        torch.as_tensor(labels), alpha=0.6, draw_text=False, edge_color=None
    ).get_image()
    assert (plain[:, :8] == [0, 0, 153]).all()
    unnamed = Visualizer(np.zeros((20, 24, 3))).draw_sem_seg(labels).get_image()
    assert unnamed[5, 10].any()


def test_dataset_dicts_with_segments_or_labels(tmp_path: Path) -> None:
    ids = _panoptic_ids()
    ids[ids == 77] = 0
    write_segment_ids(tmp_path / "a.png", ids)
    record = {
        "height": 20,
        "width": 24,
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": SEGMENTS,
        "annotations": [{"segment_id": 5, "category_id": 1}],
    }

    def draw(dic: dict[str, object]) -> np.ndarray:
        return Visualizer(np.zeros((20, 24, 3)), PANOPTIC_METADATA).draw_dataset_dict(dic).get_image()

    panoptic = draw(record)
    assert panoptic[5, 4, 1] > 150
    assert panoptic[5, 20, 2] > 100
    labels = np.zeros((20, 24), dtype=np.uint8)
    labels[:, 16:] = 1
    objects = [{"bbox": [0, 0, 8, 8], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}]
    semantic = draw({"sem_seg": labels})
    assert semantic[18, 4].tolist() == [128, 0, 128]  # the class "things"
    both = draw({"sem_seg": labels, "annotations": objects})
    assert both[3, 22, 2] > 100
    assert not both[3, 12].any()  # objects show what the things are
