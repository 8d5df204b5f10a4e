"""Segments of a map, which share no pixel, painted all at once, each with its name inside.

Shapes: H x W image, Hc x Wc canvas, S segments. A numbered map holds 0 where nothing is painted and n for the
n-th segment.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from panomask.structures.segment_map import find_positions, pixel_runs, segment_extents
from panomask.visualization.canvas import Label, VisImage
from panomask.visualization.colormap import Color, to_rgb
from panomask.visualization.segment_style import SegmentStyle

EDGE_COLOR = (1.0, 1.0, 240 / 255)
_EDGE_OPACITY = 0.85
_PIXELS_AT_ONCE = 1 << 20
_MIN_ROOM = 0.8
"""Of a label's height: in a segment with less room for it, there is no label."""
_LARGE = 3
"""A segment of so many times its label's area is named even if the label is wider than the segment."""
_SMALLER_FONT = 0.75
_LEAST_FONT = 7.0
_MARGIN = 3  # pixels around a segment's box that its blurred border may reach
_CELLS = 12
"""Room for labels is looked for in cells of this share of a label's height."""


def number_segments(values: np.ndarray, segment_ids: Sequence[int]) -> np.ndarray:
    """A numbered map (H, W) int32 of a map of ids (H, W); pixels of any other id are 0."""
    found, lengths = pixel_runs(values)
    numbers = find_positions(found, segment_ids).astype(np.int32) + 1
    return np.repeat(numbers, lengths).reshape(values.shape)


def paint_segments(
    output: VisImage,
    numbered: np.ndarray,
    styles: Sequence[SegmentStyle],
    *,
    alpha: float,
    line_width: int,
    edge_color: Color | None = EDGE_COLOR,
) -> np.ndarray:
    """Tint the segments and draw the borders between them.

    Args:
        output: the picture.
        numbered: (H, W) numbered map.
        styles: S styles.
        alpha: opacity of the tint, times that of the style.
        line_width: of the borders, canvas pixels.
        edge_color: of the borders; None for none.

    Returns:
        (Hc, Wc) numbered map of the canvas.
    """
    canvas = _scale_map(numbered, len(styles), output.img.shape[:2])
    tints = np.array([(0.0, 0.0, 0.0), *(style.color for style in styles)], dtype=np.float32) * 255
    shares = np.array([0.0, *(alpha * style.opacity for style in styles)], dtype=np.float32)
    num_rows = max(1, _PIXELS_AT_ONCE // max(1, canvas.shape[1]))
    for top in range(0, canvas.shape[0], num_rows):
        rows = slice(top, top + num_rows)
        patch = output.img[rows]
        tinted = patch + (tints[canvas[rows]] - patch) * shares[canvas[rows]][..., None]
        output.img[rows] = np.rint(tinted).astype(np.uint8)
    if edge_color is not None:
        output.blend(_edge_cover(canvas, line_width), to_rgb(edge_color), _EDGE_OPACITY)
    return canvas


def present_values(values: np.ndarray) -> np.ndarray:
    """The different values of a map, sorted."""
    return np.unique(pixel_runs(values)[0])


def _scale_map(numbered: np.ndarray, num_segments: int, size: tuple[int, int]) -> np.ndarray:
    """The numbered map at `size`; where it is enlarged, without a staircase.

    A pixel goes to the segment that covers most of its surroundings, what is not painted included.
    """
    if numbered.shape == tuple(size):
        return numbered
    if size[0] <= numbered.shape[0]:
        return cv2.resize(numbered, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    areas, boxes = segment_extents(numbered, num_segments + 1, first=0)
    result, most = np.zeros(size, dtype=np.int32), np.zeros(size, dtype=np.float32)
    for number in np.flatnonzero(areas).tolist():
        cover, left, top = _enlarge_part(numbered, number, boxes[number], size)
        part = slice(top, top + cover.shape[0]), slice(left, left + cover.shape[1])
        is_more = cover > most[part]
        most[part][is_more] = cover[is_more]
        result[part][is_more] = number
    return result


def _enlarge_part(
    numbered: np.ndarray, number: int, box: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, int, int]:
    """How much of each canvas pixel a segment covers, float32, and where that part of the canvas begins.

    box: (4,) xyxy of the segment. Beyond the image its border goes on, so that nothing there is rounded off.
    """
    height, width = numbered.shape
    ratio_x, ratio_y = size[1] / width, size[0] / height
    x0, y0 = max(0, int(box[0]) - _MARGIN), max(0, int(box[1]) - _MARGIN)
    x1, y1 = min(width, int(box[2]) + _MARGIN), min(height, int(box[3]) + _MARGIN)
    left, top = int(x0 * ratio_x), int(y0 * ratio_y)
    part_size = (
        min(size[1], int(np.ceil(x1 * ratio_x))) - left,
        min(size[0], int(np.ceil(y1 * ratio_y))) - top,
    )
    # The part's corner need not lie on a canvas pixel's: an affine map keeps its place.
    matrix = np.array(
        [
            [ratio_x, 0, x0 * ratio_x - left + 0.5 * (ratio_x - 1)],
            [0, ratio_y, y0 * ratio_y - top + 0.5 * (ratio_y - 1)],
        ]
    )
    mask = (numbered[y0:y1, x0:x1] == number).astype(np.float32)
    cover = cv2.warpAffine(mask, matrix, part_size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.GaussianBlur(cover, (0, 0), 0.5 * ratio_y, borderType=cv2.BORDER_REPLICATE), left, top


def _edge_cover(canvas: np.ndarray, line_width: int) -> np.ndarray:
    """(Hc, Wc) uint8 cover of the lines between pixels of different numbers."""
    edges = np.zeros(canvas.shape, dtype=np.uint8)
    edges[:, 1:] |= canvas[:, 1:] != canvas[:, :-1]
    edges[1:] |= canvas[1:] != canvas[:-1]
    edges *= 255
    if line_width > 1:
        edges = cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (line_width, line_width)))
    return cv2.GaussianBlur(edges, (3, 3), 0) if line_width > 1 else edges


class SegmentLabels:
    """Writes names inside segments: where there is room, never on top of each other."""

    def __init__(self, output: VisImage, canvas: np.ndarray, *, font_size: float) -> None:
        """
        Args:
            output: the picture.
            canvas: (Hc, Wc) numbered map of the canvas.
            font_size: height of a capital, canvas pixels; less in small segments.
        """
        self._output, self._font_size = output, font_size
        self._canvas = canvas
        self._is_taken = np.zeros(canvas.shape, dtype=bool)  # by labels

    def draw(self, styles: Sequence[SegmentStyle], min_area: float = 0) -> None:
        """Label segments of at least `min_area` canvas pixels, small ones first: they have less choice."""
        areas, boxes = segment_extents(self._canvas, len(styles), first=1)
        placed = []
        for number in np.argsort(areas, kind="stable").tolist():
            if areas[number] < max(1, min_area) or not styles[number].text:
                continue
            found = self._place(number + 1, boxes[number], int(areas[number]), styles[number])
            if found is not None:
                placed.append(found)
                self._is_taken[_area_of(*found)] = True
        for label, x, y in placed:
            label.draw(self._output.img, x, y)

    def _place(
        self, number: int, box: np.ndarray, area: int, style: SegmentStyle
    ) -> tuple[Label, float, float] | None:
        """The label of a segment and its top left corner; None without room."""
        x0, y0, x1, y1 = box.tolist()
        height, width = self._canvas.shape
        mask = (self._canvas[y0:y1, x0:x1] == number) & ~self._is_taken[y0:y1, x0:x1]
        small = max(_LEAST_FONT, self._font_size * _SMALLER_FONT)
        for font_size in (self._font_size, small):
            label = Label(style.text, style.color, font_size=font_size, max_width=width)
            if area < 0.5 * label.width * label.height:
                continue
            middle_x, middle_y, room = _roomiest(mask, label.width, label.height)
            x = min(max(0.0, x0 + middle_x - label.width / 2), width - label.width)
            y = min(max(0.0, y0 + middle_y - label.height / 2), height - label.height)
            if room >= _MIN_ROOM:
                return label, x, y
        is_large = area >= _LARGE * label.width * label.height
        if is_large and room > 0 and not self._is_taken[_area_of(label, x, y)].any():
            return label, x, y
        return None


def _area_of(label: Label, x: float, y: float) -> tuple[slice, slice]:
    top, left = max(0, round(y)), max(0, round(x))
    return slice(top, top + label.height), slice(left, left + label.width)


def _roomiest(mask: np.ndarray, width: int, height: int) -> tuple[float, float, float]:
    """The middle x, y of a rectangle of the shape width : height inside `mask` (h, w), and its size.

    The mask is squeezed until the rectangle is a square; then the chessboard distance to the outside is half
    the side of the largest square around a pixel. Of all places with room, the one nearest to the mask's
    middle is taken, else the largest rectangle.

    Returns:
        x, y, and the largest rectangle's height in heights of the label (at most about 1.3).
    """
    cells = min(height, _CELLS)
    size = (
        max(1, round(mask.shape[1] * cells / width)),
        max(1, round(mask.shape[0] * cells / height)),
    )
    squeezed = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 200
    padded = np.pad(squeezed, 1).astype(np.uint8)  # beyond the box is outside
    distance = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    most = float(distance.max())
    enough = min(most, 0.5 * 1.2 * cells + 0.5)
    rows, columns = np.nonzero(distance >= enough)
    middle_row, middle_column = (positions.mean() for positions in np.nonzero(squeezed)) if most else (0, 0)
    nearest = int(np.argmin((rows - middle_row) ** 2 + (columns - middle_column) ** 2))
    x = (columns[nearest] + 0.5) * mask.shape[1] / size[0]
    y = (rows[nearest] + 0.5) * mask.shape[0] / size[1]
    return float(x), float(y), (2 * most - 1) / cells
