"""The random augmentations of Detectron2, under its names and with its arguments.

Sizes are (height, width). Probabilities and ranges are drawn from numpy's global generator.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from panomask.data.transforms.augmentation import (
    AugInput,
    Augmentation,
    AugmentationOrTransform,
    as_augmentation,
)
from panomask.data.transforms.transform import (
    CropTransform,
    ExtentTransform,
    PadTransform,
    ResizeTransform,
    RotationTransform,
)

BILINEAR = int(Image.Resampling.BILINEAR)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, for RGB
_SAMPLE_STYLES = ("range", "choice")


def _check_sample_style(style: str) -> None:
    if style not in _SAMPLE_STYLES:
        raise ValueError(f"sample_style={style!r}; allowed: {', '.join(_SAMPLE_STYLES)}")


class RandomApply(Augmentation):
    """Apply a transform or an augmentation with probability `prob`, else nothing."""

    def __init__(self, tfm_or_aug: AugmentationOrTransform, prob: float = 0.5):
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"a probability lies between 0 and 1, not {prob}")
        self.aug = as_augmentation(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._rand_range() < self.prob else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        return self.aug(aug_input) if self._rand_range() < self.prob else NoOpTransform()


class RandomFlip(Augmentation):
    """Flip along one direction with probability `prob`."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if horizontal == vertical:
            raise ValueError(
                "exactly one of horizontal and vertical must be set; for both use two RandomFlip"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to a fixed (height, width), or to a square if `shape` is one number."""

    def __init__(self, shape: int | tuple[int, int], interp: int = BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else shape
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        new_h, new_w = self.shape
        return ResizeTransform(height, width, new_h, new_w, self.interp)


class RandomResize(Augmentation):
    """Resize to one (height, width) out of `shape_list`."""

    def __init__(self, shape_list: Sequence[tuple[int, int]], interp: int = BILINEAR):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        new_h, new_w = self.shape_list[np.random.choice(len(self.shape_list))]
        return ResizeTransform(height, width, new_h, new_w, self.interp)


class ResizeShortestEdge(Augmentation):
    """Scale the shorter edge to a drawn length, unless the longer edge would exceed `max_size`.

    `short_edge_length` is [min, max], both included, with `sample_style="range"`; a list to pick from with
    "choice".
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = BILINEAR,
    ):
        _check_sample_style(sample_style)
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        self.is_range = sample_style == "range"
        if self.is_range and len(short_edge_length) != 2:
            raise ValueError(f"short_edge_length must be (min, max) for a range, not {short_edge_length}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.is_range:
            size = np.random.randint(self.short_edge_length[0], self.short_edge_length[1] + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        new_h, new_w = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, new_h, new_w, self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """(height, width) after resizing, rounded half up; a strip of an image keeps a pixel."""
        short = float(short_edge_length)
        scale = short / min(oldh, oldw)
        height, width = (short, scale * oldw) if oldh < oldw else (scale * oldh, short)
        if max(height, width) > max_size:
            scale = max_size / max(height, width)
            height, width = height * scale, width * scale
        return max(int(height + 0.5), 1), max(int(width + 0.5), 1)


class ResizeScale(Augmentation):
    """Scale to fit into `scale * (target_height, target_width)`, scale uniform in [min_scale, max_scale].

    With `FixedSizeCrop` after it, this is the large-scale jitter of "Simple Copy-Paste" (Ghiasi et al.,
    2021).
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = BILINEAR,
    ):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        scale = np.random.uniform(self.min_scale, self.max_scale)
        size = np.array([height, width])
        target = scale * np.array([self.target_height, self.target_width])
        new_h, new_w = np.round(size * np.min(target / size)).astype(int).tolist()
        return ResizeTransform(height, width, new_h, new_w, self.interp)


class RandomRotation(Augmentation):
    """Rotate by degrees counter-clockwise: uniform in `angle` = (min, max), or one of a list with "choice".

    `center` is ((x, y), (x, y)) as parts of the width and height: the rectangle (or list, with "choice") from
    which the centre of rotation is drawn; None is the image's centre, and the only one of use with `expand`.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Sequence[float]] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ):
        _check_sample_style(sample_style)
        self.is_range = sample_style == "range"
        if isinstance(angle, (int, float)):
            angle = (angle, angle)
        if center is not None and np.ndim(center) == 1:
            center = (center, center)  # type: ignore[assignment]
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        center: Any = None
        if self.is_range:
            angle = np.random.uniform(self.angle[0], self.angle[1])
            if self.center is not None:
                center = tuple(np.random.uniform(self.center[0], self.center[1]))
        else:
            angle = np.random.choice(self.angle)
            if self.center is not None:
                center = self.center[np.random.choice(len(self.center))]
        if angle % 360 == 0:
            return NoOpTransform()
        if center is not None:
            center = (float(width * center[0]), float(height * center[1]))
        return RotationTransform(height, width, float(angle), self.expand, center, self.interp)


class FixedSizeCrop(Augmentation):
    """A window of `crop_size` at a random place; a smaller image is padded at the right and bottom."""

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        size, target = np.array(image.shape[:2]), np.array(self.crop_size)
        top, left = np.round(np.maximum(size - target, 0) * np.random.uniform()).astype(int).tolist()
        height, width = np.minimum(size, target).tolist()
        transforms = [CropTransform(left, top, width, height, image.shape[1], image.shape[0])]
        if self.pad:
            bottom, right = (target - (height, width)).tolist()
            transforms.append(
                PadTransform(0, 0, right, bottom, width, height, self.pad_value, self.seg_pad_value)
            )
        return TransformList(transforms)


class RandomCrop(Augmentation):
    """Cut a random window.

    `crop_type`: "relative" (`crop_size` is parts of the image, in (0, 1]), "relative_range" (uniform between
    those parts and 1), "absolute" (pixels, at most the image), "absolute_range" (`crop_size` = (min, max)
    pixels, height and width drawn one by one).
    """

    TYPES = ("relative_range", "relative", "absolute", "absolute_range")

    def __init__(self, crop_type: str, crop_size: Sequence[float]):
        if crop_type not in self.TYPES:
            raise ValueError(f"crop_type={crop_type!r}; allowed: {', '.join(self.TYPES)}")
        if crop_type == "absolute_range" and crop_size[0] > crop_size[1]:
            raise ValueError(f"crop_size must be (min, max) for absolute_range, not {crop_size}")
        if crop_type.startswith("relative") and not all(0 < size <= 1 for size in crop_size):
            raise ValueError(f"crop_size must lie in (0, 1] for {crop_type}, not {crop_size}")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_h, crop_w = self.get_crop_size((height, width))
        top = np.random.randint(height - crop_h + 1)
        left = np.random.randint(width - crop_w + 1)
        return CropTransform(left, top, crop_w, crop_h, width, height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of a window for an image of `image_size`: random with the range types."""
        height, width = image_size
        if self.crop_type == "absolute":
            return min(int(self.crop_size[0]), height), min(int(self.crop_size[1]), width)
        if self.crop_type == "absolute_range":
            low, high = int(self.crop_size[0]), int(self.crop_size[1])
            crop_h = np.random.randint(min(height, low), min(height, high) + 1)
            return crop_h, np.random.randint(min(width, low), min(width, high) + 1)
        part: Any = np.asarray(self.crop_size, dtype=np.float32)
        if self.crop_type == "relative_range":
            part = part + np.random.rand(2) * (1 - part)
        return int(height * part[0] + 0.5), int(width * part[1] + 0.5)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """`RandomCrop` in which no category of `sem_seg` covers more than a part of the labelled window.

    Ten windows are tried, the last is taken as it is. Pixels of `ignored_category` do not count.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ):
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        for _ in range(10):
            crop = self.crop_aug.get_transform(image)
            labels, counts = np.unique(crop.apply_segmentation(sem_seg), return_counts=True)
            counts = counts[labels != self.ignored_category]
            if len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area:
                break
        return crop


class RandomExtent(Augmentation):
    """Cut a rectangle of `scale_range` times the image, shifted by up to half of `shift_range` (x, y)."""

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        half = 0.5 * np.random.uniform(*self.scale_range) * np.array([width, height])
        shift = np.array(self.shift_range) * (np.random.rand(2) - 0.5)
        middle = (0.5 + shift) * np.array([width, height])
        (x0, y0), (x1, y1) = (middle - half).tolist(), (middle + half).tolist()
        return ExtentTransform(src_rect=(x0, y0, x1, y1), output_size=(int(y1 - y0), int(x1 - x0)))


class RandomContrast(Augmentation):
    """Blend with the image's mean: intensity below 1 lowers the contrast, above 1 raises it."""

    def __init__(self, intensity_min: float, intensity_max: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=image.mean(), src_weight=1 - weight, dst_weight=weight)


class RandomBrightness(Augmentation):
    """Blend with black: intensity below 1 darkens, above 1 brightens."""

    def __init__(self, intensity_min: float, intensity_max: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=0, src_weight=1 - weight, dst_weight=weight)


class RandomSaturation(Augmentation):
    """Blend an RGB image with its grey version: intensity below 1 pales, above 1 strengthens the colours."""

    def __init__(self, intensity_min: float, intensity_max: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        assert image.shape[-1] == 3, "RandomSaturation works on RGB images"
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        grey = image.dot(_LUMA)[:, :, np.newaxis]
        return BlendTransform(src_image=grey, src_weight=1 - weight, dst_weight=weight)


class RandomLighting(Augmentation):
    """Colour noise along the principal components of ImageNet's RGB pixels.

    `scale` is the standard deviation of the weights that multiply the eigenvalues. "ImageNet Classification
    with Deep Convolutional Neural Networks" (Krizhevsky et al., 2012), section 4.1.
    """

    EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
    EIGENVECTORS = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )

    def __init__(self, scale: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        assert image.shape[-1] == 3, "RandomLighting works on RGB images"
        weights = np.random.normal(scale=self.scale, size=3)
        shift = self.EIGENVECTORS.dot(weights * self.EIGENVALUES)
        return BlendTransform(src_image=shift, src_weight=1.0, dst_weight=1.0)
