"""Segments are painted where they are, and named inside: expected pixels derived by hand."""

import numpy as np
import pytest

from panomask.visualization import VisImage
from panomask.visualization.segment_map_drawing import (
    SegmentLabels,
    number_segments,
    paint_segments,
    present_values,
)
from panomask.visualization.segment_style import SegmentStyle

RED, BLUE = SegmentStyle((1.0, 0.0, 0.0)), SegmentStyle((0.0, 0.0, 1.0), opacity=0.5)


def _halves(height: int = 20, width: int = 24) -> np.ndarray:
    """1 on the left, 2 on the right, 0 in the lowest rows."""
    numbered = np.ones((height, width), dtype=np.int32)
    numbered[:, width // 2 :] = 2
    numbered[height - 4 :] = 0
    return numbered


def test_ids_are_numbered_by_their_place_in_the_list() -> None:
    ids = np.array([[7, 7, 0], [-1, 16777215, 9]])
    assert number_segments(ids, [9, 16777215, 7]).tolist() == [[3, 3, 0], [0, 2, 1]]
    assert number_segments(ids, [0]).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert not number_segments(ids, []).any()
    assert number_segments(np.zeros((0, 3), int), [1]).shape == (0, 3)
    assert present_values(ids).tolist() == [-1, 0, 7, 9, 16777215]
    assert present_values(np.zeros((0, 3))).tolist() == []


def test_tint_is_exact_and_what_is_no_segment_stays() -> None:
    output = VisImage(np.full((20, 24, 3), 100))
    canvas = paint_segments(output, _halves(), [RED, BLUE], alpha=0.6, line_width=1, edge_color=None)
    assert np.array_equal(canvas, _halves())
    assert (output.img[:16, :12] == [193, 40, 40]).all()  # 100 + 0.6 * (255 - 100), 100 - 0.6 * 100
    assert (output.img[:16, 12:] == [70, 70, 146]).all()  # half of that opacity: 0.3
    assert (output.img[16:] == 100).all()


def test_edges_are_between_segments_alone() -> None:
    output = VisImage(np.zeros((20, 24, 3)))
    paint_segments(output, _halves(), [RED, RED], alpha=0.0, line_width=1, edge_color="white")
    drawn = output.img.max(axis=2) > 0
    expected = np.zeros((20, 24), dtype=bool)
    expected[:16, 12] = expected[16] = True
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("scale", [0.5, 2, 3.5])
def test_segments_keep_their_place_at_every_scale(scale: float) -> None:
    output = VisImage(np.zeros((40, 48, 3)), scale=scale)
    numbered = _halves(40, 48)
    numbered[8:20, 4:16] = 3
    canvas = paint_segments(output, numbered, [RED, BLUE, BLUE], alpha=1.0, line_width=1)
    assert canvas.shape == output.img.shape[:2]
    for place, number in (
        ((4, 30), 2),
        ((14, 10), 3),
        ((30, 4), 1),
        ((38, 40), 0),
        ((0, 0), 1),
        ((39, 47), 0),
    ):
        row, column = (int((p + 0.5) * scale) for p in place)
        assert canvas[row, column] == number, place
    areas = np.bincount(canvas.reshape(-1))[1:] / scale**2
    assert areas == pytest.approx(np.bincount(numbered.reshape(-1))[1:], rel=0.03)  # round corners


def test_enlarged_borders_have_no_steps() -> None:
    """A slanted border moves by at most two canvas pixels a row, not by `scale` in every scale-th."""
    rows, columns = np.mgrid[:40, :40]
    output = VisImage(np.zeros((40, 40, 3)), scale=4)
    canvas = paint_segments(
        output, (columns > rows).astype(np.int32) + 1, [RED, BLUE], alpha=1.0, line_width=1
    )
    border = (canvas == 1).sum(axis=1)[8:-8]
    assert np.abs(np.diff(border)).max() <= 2


def _labels_of(numbered: np.ndarray, texts: list[str], **kwargs: float) -> np.ndarray:
    """(H, W) bool: where labels are."""
    output = VisImage(np.zeros((*numbered.shape, 3)))
    styles = [SegmentStyle((1.0, 1.0, 1.0), text) for text in texts]
    SegmentLabels(output, numbered, font_size=10).draw(styles, **kwargs)
    return output.img.max(axis=2) > 0


def test_labels_lie_inside_their_segments() -> None:
    rows, columns = np.mgrid[:200, :300]
    radius = np.hypot(rows - 100, columns - 150)
    ring = ((radius > 45) & (radius < 90)).astype(np.int32)  # its middle is no part of it
    label = _labels_of(ring, ["ring"])
    assert label.sum() > 200
    assert not label[ring == 0].any()


def test_small_segments_have_no_label_and_a_threshold_asks_for_more() -> None:
    numbered = np.zeros((100, 200), dtype=np.int32)
    numbered[10:18, 10:18] = 1
    numbered[40:90, 20:180] = 2
    label = _labels_of(numbered, ["tiny", "large"])
    assert not label[:30].any()
    assert label[40:90].any()
    assert not _labels_of(numbered, ["tiny", "large"], min_area=9000).any()
    assert not _labels_of(numbered, ["", ""]).any()
    assert not _labels_of(np.zeros((100, 200), dtype=np.int32), []).any()


def test_labels_leave_room_for_each_other() -> None:
    """A wide label of a narrow segment, and the one of the segment around it, which would like its place."""
    name = "person with a long name"
    numbered = np.ones((120, 200), dtype=np.int32)
    numbered[10:110, 80:120] = 2
    alone = [_labels_of(numbered, texts) for texts in (["background", ""], ["", name])]
    both = _labels_of(numbered, ["background", name])
    assert alone[1].any()
    assert both.sum() == alone[0].sum() + alone[1].sum()
