"""The picture that is drawn on, and the primitives: filled shapes, lines, labels; all anti-aliased by OpenCV.

Coordinates are continuous pixels of the original image (the centre of the top left pixel is 0.5, 0.5); the
canvas is `scale` times as large. Colours are RGB in [0, 1].
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from panomask.visualization.colormap import Color, to_rgb
from panomask.visualization.image_file import write_image

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV takes sub-pixel positions as integers with so many bits after the point
_SUB_PIXELS = 4  # along each side of a pixel, for filled polygons
_DASH = 5.0  # canvas pixels per line width


class VisImage:
    """An image to draw on, and its result.

    Attributes:
        img: (H * scale, W * scale, 3) uint8 RGB, changed by drawing.
        scale: canvas pixels per pixel of the original image.
        width, height: of the original image.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        """`img`: (H, W, 3) RGB, 0-255."""
        self.scale = scale
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Start again from `img` (H, W, 3) RGB, 0-255."""
        img = np.asarray(img).clip(0, 255).astype(np.uint8)
        assert img.shape[2:] == (3,), img.shape
        self.height, self.width = img.shape[:2]
        if self.scale == 1:
            self.img = img.copy()
            return
        size = (max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale)))
        self.img = cv2.resize(img, size, interpolation=cv2.INTER_CUBIC if self.scale > 1 else cv2.INTER_AREA)

    def get_image(self) -> np.ndarray:
        """(H * scale, W * scale, 3) uint8 RGB."""
        return self.img

    def save(self, filepath: str | Path) -> None:
        """Write the picture as PNG, JPEG, WebP or BMP, by the file's ending."""
        write_image(filepath, self.img)

    def to_canvas(self, points: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        """Points (N, 2) in canvas coordinates, float64."""
        ratio = np.array([self.img.shape[1] / self.width, self.img.shape[0] / self.height])
        return np.asarray(points, dtype=np.float64).reshape(-1, 2) * ratio

    def new_cover(self) -> np.ndarray:
        """Zeros (H * scale, W * scale) uint8: how much of each pixel a shape covers, 255 for all of it."""
        return np.zeros(self.img.shape[:2], dtype=np.uint8)

    def blend(self, cover: np.ndarray, color: Color, alpha: float) -> None:
        """Put `color` over the picture where `cover` is."""
        x, y, width, height = cv2.boundingRect(cover)
        if width == 0:
            return
        patch = self.img[y : y + height, x : x + width]
        share = cover[y : y + height, x : x + width, None] * np.float32(alpha / 255)
        target = np.array(to_rgb(color), dtype=np.float32) * 255
        self.img[y : y + height, x : x + width] = np.rint(patch + (target - patch) * share).astype(np.uint8)

    def mask_cover(self, mask: np.ndarray) -> np.ndarray:
        """The cover of a mask (H, W) bool, with smooth borders where the canvas is larger."""
        cover = np.asarray(mask, dtype=np.uint8) * 255
        if cover.shape == self.img.shape[:2]:
            return cover
        large = cv2.resize(cover, (self.img.shape[1], self.img.shape[0]), interpolation=cv2.INTER_LINEAR)
        if self.scale <= 1:
            return large
        smooth = cv2.GaussianBlur(large, (0, 0), 0.5 * self.scale).astype(np.float32)  # no staircase
        return np.clip((smooth - 127.5) * self.scale + 127.5, 0, 255).astype(np.uint8)

    def polygon_cover(self, polygons: Sequence[np.ndarray]) -> np.ndarray:
        """The cover of the union of polygons, each (N, 2).

        OpenCV's anti-aliased polygons are half a pixel too large all around, so this one counts sub-pixels.
        """
        cover, corners = self.new_cover(), [self.to_canvas(polygon) for polygon in polygons]
        if not corners:
            return cover
        limit = (cover.shape[1], cover.shape[0])
        x0, y0 = np.floor(np.concatenate(corners).min(axis=0)).clip(0, limit).astype(int)
        x1, y1 = np.ceil(np.concatenate(corners).max(axis=0)).clip(0, limit).astype(int)
        if x0 == x1 or y0 == y1:
            return cover
        fine = np.zeros(((y1 - y0) * _SUB_PIXELS, (x1 - x0) * _SUB_PIXELS), dtype=np.uint8)
        for points in corners:
            cv2.fillPoly(fine, [_fixed((points - (x0, y0)) * _SUB_PIXELS)], 255, cv2.LINE_8, _FRACTION_BITS)
        cover[y0:y1, x0:x1] = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        return cover

    def draw_outline(self, cover: np.ndarray, color: Color, line_width: int) -> None:
        """A line along the border of `cover`."""
        contours, _ = cv2.findContours((cover > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        line = self.new_cover()
        cv2.drawContours(line, contours, -1, 255, line_width, cv2.LINE_AA)
        self.blend(line, color, 1.0)

    def draw_lines(
        self, points: np.ndarray, color: Color, line_width: int, *, dashed: bool = False, alpha: float = 1.0
    ) -> None:
        """Straight lines through `points` (N, 2), one after the other."""
        ends = self.to_canvas(points)
        cover = self.new_cover()
        if not dashed:
            cv2.polylines(cover, [_fixed(ends)], False, 255, line_width, cv2.LINE_AA, _FRACTION_BITS)
        for start, end in pairwise(ends) if dashed else ():
            num_dashes = max(1, int(np.hypot(*(end - start)) / (2 * _DASH * line_width) + 0.5))
            for k in range(num_dashes):
                dash = start + (end - start) * np.array([[2 * k], [2 * k + 1]]) / (2 * num_dashes - 1)
                cv2.polylines(cover, [_fixed(dash)], False, 255, line_width, cv2.LINE_AA, _FRACTION_BITS)
        self.blend(cover, color, alpha)

    def draw_disc(self, center: Sequence[float], radius: float, color: Color) -> None:
        """A filled circle, `radius` in canvas pixels."""
        cover = self.new_cover()
        (x, y), one = _fixed(self.to_canvas([center]))[0].tolist(), 1 << _FRACTION_BITS
        cv2.circle(cover, (x, y), round(radius * one), 255, -1, cv2.LINE_AA, _FRACTION_BITS)
        self.blend(cover, color, 1.0)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Canvas points (N, 2) for OpenCV, which puts a pixel's centre at whole numbers."""
    return np.rint((points - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32)


class Label:
    """A line of text on a filled box, black or white as the box demands.

    Attributes:
        width, height: of the box, canvas pixels.
    """

    def __init__(self, text: str, color: Color, *, font_size: float, max_width: int) -> None:
        """`font_size`: height of a capital, canvas pixels; less for a text wider than `max_width`."""
        self.text, self.color = text, to_rgb(color)
        for size in (font_size, font_size * max_width / max(1, self._measure(text, font_size)[0])):
            self._font_size = min(size, font_size)
            self.width, self.height = self._measure(text, self._font_size)
            if self.width <= max_width:
                break

    def _measure(self, text: str, font_size: float) -> tuple[int, int]:
        self._font_scale = cv2.getFontScaleFromHeight(_FONT, 100, 1) * font_size / 100
        self._thickness = 2 if font_size >= 20 else 1
        (width, height), self._descent = cv2.getTextSize(text, _FONT, self._font_scale, self._thickness)
        self._pad = max(1, round(0.25 * font_size))
        return width + 2 * self._pad, height + self._descent + self._pad + 1

    def render(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB."""
        red, green, blue = self.color
        is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
        box = np.empty((self.height, self.width, 3), dtype=np.uint8)
        box[:] = np.rint(np.array(self.color) * 255)
        ink = (0, 0, 0) if is_light else (255, 255, 255)
        origin = (self._pad, self.height - self._descent - self._pad // 2 - 1)
        cv2.putText(box, self.text, origin, _FONT, self._font_scale, ink, self._thickness, cv2.LINE_AA)
        return box

    def draw(self, canvas: np.ndarray, x: float, y: float, *, rotation: float = 0.0) -> None:
        """Put the box with its top left corner at x, y (canvas pixels), moved to lie inside `canvas`.

        rotation: degrees counter-clockwise around the box's centre.
        """
        box, cover = self.render(), np.full((self.height, self.width), 255, dtype=np.uint8)
        if rotation:
            box, cover, (shift_x, shift_y) = _rotate(box, cover, rotation)
            x, y = x - shift_x, y - shift_y
        height, width = min(box.shape[0], canvas.shape[0]), min(box.shape[1], canvas.shape[1])
        left = round(min(max(x, 0), canvas.shape[1] - width))
        top = round(min(max(y, 0), canvas.shape[0] - height))
        patch = canvas[top : top + height, left : left + width]
        share = cover[:height, :width, None] / np.float32(255)
        patch[:] = np.rint(patch + (box[:height, :width] - patch.astype(np.float32)) * share)


def _rotate(
    box: np.ndarray, cover: np.ndarray, degrees: float
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """The box turned around its centre, its cover, and how far its top left corner moves out."""
    height, width = cover.shape
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos)))
    shift = (size[0] - width) / 2, (size[1] - height) / 2
    matrix[:, 2] += shift
    return cv2.warpAffine(box, matrix, size), cv2.warpAffine(cover, matrix, size), shift
