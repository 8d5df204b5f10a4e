"""Deterministic transforms that fvcore does not have, or has with a dependency that we do not want.

Images are (H, W, C) or (H, W) arrays, uint8 in 0-255 or floating point; coordinates are (N, 2) rows of (x, y)
in absolute, continuous pixels: the image spans [0, W] x [0, H]. `interp` of a resize is one of PIL's
resampling numbers, as in Detectron2 (`Image.BILINEAR` is 2).
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms import transform as fvcore_transform
from fvcore.transforms.transform import NoOpTransform, Transform, TransformList
from PIL import Image

_TORCH_MODES = {
    int(Image.Resampling.NEAREST): "nearest",
    int(Image.Resampling.BILINEAR): "bilinear",
    int(Image.Resampling.BICUBIC): "bicubic",
}


class CropTransform(fvcore_transform.CropTransform):
    """`image[y0 : y0 + h, x0 : x0 + w]`; polygons are clipped to the window.

    A concave polygon that the window cuts in several parts stays one ring: its parts are joined by edges of
    no width along the window's border, which change neither area nor mask. fvcore's transform needs shapely
    for this.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Clip rings of (N, 2) points to the window; those without area inside it are left out."""
        clipped = (self._clip(np.asarray(polygon, dtype=np.float64)) for polygon in polygons)
        return [self.apply_coords(polygon) for polygon in clipped if ring_area(polygon) > 0]

    def _clip(self, polygon: np.ndarray) -> np.ndarray:
        polygon = _clip_half_plane(polygon, axis=0, limit=self.x0, sign=1)
        polygon = _clip_half_plane(polygon, axis=1, limit=self.y0, sign=1)
        polygon = _clip_half_plane(polygon, axis=0, limit=self.x0 + self.w, sign=-1)
        return _clip_half_plane(polygon, axis=1, limit=self.y0 + self.h, sign=-1)

    def inverse(self) -> Transform:
        assert self.orig_w is not None, "orig_w and orig_h are needed to invert a crop"
        assert self.orig_h is not None, "orig_w and orig_h are needed to invert a crop"
        right, bottom = self.orig_w - self.x0 - self.w, self.orig_h - self.y0 - self.h
        return PadTransform(self.x0, self.y0, right, bottom, orig_w=self.w, orig_h=self.h)


class PadTransform(fvcore_transform.PadTransform):
    """fvcore's padding, whose inverse is our `CropTransform`."""

    def inverse(self) -> Transform:
        assert self.orig_w is not None, "orig_w and orig_h are needed to invert a padding"
        assert self.orig_h is not None, "orig_w and orig_h are needed to invert a padding"
        width, height = self.orig_w + self.x0 + self.x1, self.orig_h + self.y0 + self.y1
        return CropTransform(self.x0, self.y0, self.orig_w, self.orig_h, orig_w=width, orig_h=height)


def ring_area(ring: np.ndarray) -> float:
    """The area inside a ring of (N, 2) points by the shoelace formula; 0 with fewer than three points."""
    if len(ring) < 3:
        return 0.0
    x, y = ring[:, 0], ring[:, 1]
    return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _clip_half_plane(ring: np.ndarray, *, axis: int, limit: float, sign: int) -> np.ndarray:
    """One step of Sutherland and Hodgman (1974): the part of `ring` where sign * (p[axis] - limit) >= 0."""
    distance = sign * (ring[:, axis] - limit)
    if (distance >= 0).all():
        return ring
    before, distance_before = np.roll(ring, 1, axis=0), np.roll(distance, 1)
    is_inside = distance >= 0
    is_crossing = is_inside != (distance_before >= 0)
    step = np.divide(
        distance_before, distance_before - distance, where=is_crossing, out=np.zeros_like(distance)
    )
    crossing = before + step[:, None] * (ring - before)
    crossing[:, axis] = limit
    points = np.stack([crossing, ring], axis=1)  # (N, 2, 2): before each point, the edge's crossing
    return points[np.stack([is_crossing, is_inside], axis=1)]


def _is_for_torch(img: np.ndarray, new_w: int) -> bool:
    """Whether torch resizes this uint8 image rightly, and without starting threads.

    Its kernel for AVX and up to four channels works alone. The general one shares the work out to threads,
    for which a forked process that has not limited them to one would wait for ever, and it reads one channel
    wrongly where the new width is 1.
    """
    is_for_avx = img.ndim == 2 or img.shape[2] <= 4
    if is_for_avx and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        return True
    return torch.get_num_threads() == 1 and new_w > 1


def _nearest_pixels(size: int, new_size: int) -> np.ndarray:
    """(new_size,) positions of the pixels that PIL picks.

    It adds up steps; the product of step and index would differ where a centre falls on a border.
    """
    steps = np.full(new_size, size / new_size)
    steps[:1] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), size - 1)


class ResizeTransform(Transform):
    """Resize from (h, w) to (new_h, new_w): uint8 with PIL's anti-aliasing filters, floating point without.

    Bilinear uint8 images are those of PIL to one grey level; all else that is uint8 is PIL's own work.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        super().__init__()
        interp = int(Image.Resampling.BILINEAR) if interp is None else interp
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        assert img.shape[:2] == (self.h, self.w), (
            f"image of {img.shape[:2]}, transform for {(self.h, self.w)}"
        )
        method = int(self.interp if interp is None else interp)
        if img.dtype == np.uint8:
            return self._resize_uint8(img, method)
        if method == Image.Resampling.NEAREST:
            return self._nearest(img)
        return self._resize_float(img, method)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords[:, 0] = coords[:, 0] * (self.new_w * 1.0 / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h * 1.0 / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def inverse(self) -> Transform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)

    def _nearest(self, img: np.ndarray) -> np.ndarray:
        """For labels of any dtype, PIL's choice of pixel: the one that holds the target pixel's centre."""
        # One axis after the other: several times faster than both at once.
        cut = img.take(_nearest_pixels(self.w, self.new_w), axis=1)
        return cut.take(_nearest_pixels(self.h, self.new_h), axis=0)

    def _resize_uint8(self, img: np.ndarray, method: int) -> np.ndarray:
        if method == Image.Resampling.BILINEAR and _is_for_torch(img, self.new_w):
            return self._resize_bilinear(img)
        resample, size = Image.Resampling(method), (self.new_w, self.new_h)
        if img.ndim == 2 or img.shape[2] == 3:
            return np.asarray(Image.fromarray(np.ascontiguousarray(img)).resize(size, resample))
        # Channel by channel: PIL would take four channels for colour with alpha and weigh by the fourth.
        channels = [Image.fromarray(np.ascontiguousarray(img[..., c])) for c in range(img.shape[2])]
        return np.stack([np.asarray(channel.resize(size, resample)) for channel in channels], axis=-1)

    def _resize_bilinear(self, img: np.ndarray) -> np.ndarray:
        """Torch's anti-aliased filter for uint8 images, of any number of channels.

        It has PIL's weights, rounded to fewer bits, at an eighth of PIL's time.
        """
        size = (self.new_h, self.new_w)
        source = np.require(img, requirements=("C", "W")).reshape(1, self.h, self.w, -1)
        # The axis of the batch must come before the permutation: its stride is what tells torch that memory
        # is channels last. Planes, to and fro, would take three times as long.
        batch = torch.from_numpy(source).permute(0, 3, 1, 2)  # (1, C, H, W)
        resized = F.interpolate(batch, size, mode="bilinear", antialias=True)
        return resized.permute(0, 2, 3, 1).numpy().reshape(*size, *img.shape[2:])

    def _resize_float(self, img: np.ndarray, method: int) -> np.ndarray:
        if method not in _TORCH_MODES:
            raise ValueError(
                f"interp={method} resizes uint8 images only; for {img.dtype}: {sorted(_TORCH_MODES)}"
            )
        batch = torch.from_numpy(np.ascontiguousarray(img.reshape(self.h, self.w, -1))).permute(2, 0, 1)[None]
        size = (self.new_h, self.new_w)
        resized = F.interpolate(batch, size, mode=_TORCH_MODES[method], align_corners=False)[0]
        return resized.permute(1, 2, 0).numpy().reshape(*size, *img.shape[2:])


class ExtentTransform(Transform):
    """Cut a rectangle and scale it.

    Args:
        src_rect: x0, y0, x1, y1; it may reach outside of the image.
        output_size: (height, width).
        interp: one of PIL's resampling numbers.
        fill: value of what lies outside of the image.
    """

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = int(Image.Resampling.BILINEAR),
        fill: int = 0,
    ):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        has_channel_of_one = img.ndim == 3 and img.shape[2] == 1
        source = Image.fromarray(np.ascontiguousarray(img[..., 0] if has_channel_of_one else img))
        height, width = self.output_size
        cut = source.transform(
            size=(width, height),
            method=Image.Transform.EXTENT,
            data=self.src_rect,
            resample=Image.Resampling(self.interp if interp is None else interp),
            fill=self.fill,
        )
        return np.asarray(cut)[..., None] if has_channel_of_one else np.asarray(cut)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = self.src_rect
        height, width = self.output_size
        coords = coords.astype(np.float64)
        coords[:, 0] = (coords[:, 0] - x0) * (width / (x1 - x0))
        coords[:, 1] = (coords[:, 1] - y0) * (height / (y1 - y0))
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)


class RotationTransform(Transform):
    """Rotate by `angle` degrees counter-clockwise around `center` (x, y; default: the image's centre).

    With `expand` the canvas grows to hold the whole image, which is then centred on it. `interp` is a
    constant of OpenCV, bilinear by default.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ):
        super().__init__()
        center = (w / 2, h / 2) if center is None else center
        interp = cv2.INTER_LINEAR if interp is None else interp
        sin, cos = abs(np.sin(np.deg2rad(angle))), abs(np.cos(np.deg2rad(angle)))
        bound_w, bound_h = w, h
        if expand:
            bound_w, bound_h = round(h * sin + w * cos), round(h * cos + w * sin)
        self._set_attributes(locals())
        self.rm_coords = self.create_rotation_matrix()
        # OpenCV counts from the centre of the first pixel, coordinates count from the image's corner.
        self.rm_image = self.create_rotation_matrix(offset=-0.5)

    def create_rotation_matrix(self, offset: float = 0) -> np.ndarray:
        """The (2, 3) affine map of points counted from (-offset, -offset), seen from the image's corner."""
        matrix = cv2.getRotationMatrix2D(self.center, self.angle, 1)
        if self.expand:
            middle = matrix @ np.array([self.w / 2, self.h / 2, 1])
            matrix[:, 2] += np.array([self.bound_w / 2, self.bound_h / 2]) - middle
        shift = np.array([offset, offset])
        matrix[:, 2] += shift - matrix[:, :2] @ shift
        return matrix

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        assert img.shape[:2] == (self.h, self.w), (
            f"image of {img.shape[:2]}, transform for {(self.h, self.w)}"
        )
        if len(img) == 0 or self.angle % 360 == 0:
            return img
        interp = self.interp if interp is None else interp
        # OpenCV warps no int32, int64 or bool; float64 holds every label exactly.
        source = img if img.dtype in (np.uint8, np.float32, np.float64) else img.astype(np.float64)
        warped = cv2.warpAffine(source, self.rm_image, (self.bound_w, self.bound_h), flags=interp)
        return warped.reshape(self.bound_h, self.bound_w, *img.shape[2:]).astype(img.dtype, copy=False)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords = np.asarray(coords, dtype=np.float64)
        if len(coords) == 0 or self.angle % 360 == 0:
            return coords
        return coords @ self.rm_coords[:, :2].T + self.rm_coords[:, 2]

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=cv2.INTER_NEAREST)

    def inverse(self) -> Transform:
        """Rotate back and cut the margin off; only an expanded rotation has kept every pixel."""
        if not self.expand:
            raise NotImplementedError(
                "a rotation with expand=False has cut the corners off: it has no inverse"
            )
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, True, None, self.interp)
        left, top = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        crop = CropTransform(left, top, self.w, self.h, orig_w=back.bound_w, orig_h=back.bound_h)
        return TransformList([back, crop])


class ColorTransform(Transform):
    """A function of the pixels alone: `op` takes and returns an image array; coordinates stay."""

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]):
        if not callable(op):
            raise ValueError(f"op must be a function of an image, not {type(op).__name__}")
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """As `ColorTransform`, with an `op` that takes and returns a PIL image."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(self.op(Image.fromarray(np.ascontiguousarray(img))))
