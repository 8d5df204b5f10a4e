"""Image files: reading them upright and in the wanted colours, and comparing sizes with the annotations.

Arrays are (H, W, C), channels as the format says; "L" is (H, W, 1). "YUV-BT.601" is floating point, the rest
uint8.
"""

import os
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from panomask.errors import InputError
from panomask.image_decoding import DECODE_ERRORS, decode_image

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # Exif 2.3, table 6: what the camera did is undone by
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# ITU-R BT.601, analogue form, from RGB in 0-1
_RGB_TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
_YUV_TO_RGB = np.linalg.inv(_RGB_TO_YUV)

_MAX_OPENCV_CHANNELS = 128
_EIGHT_BIT_FORMATS = ("BGR", "RGB", "L", "YUV-BT.601")


class SizeMismatchError(InputError):
    """The image file has another size than its annotations say."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image upright.

    Args:
        file_name: any file that PIL reads, up to twice `PIL.Image.MAX_IMAGE_PIXELS` (179 megapixels).
        format: "BGR", "RGB", "L", "YUV-BT.601", another mode of PIL, or None for the file's own mode.

    Returns:
        (H, W, C), or (H, W) for a one-channel file with `format=None`.

    Raises:
        InputError: the file is missing, no image, truncated, larger than that, or has 16 bits a channel while
            `format` has 8.
    """
    image = _upright(decode_image(file_name))
    if format in _EIGHT_BIT_FORMATS and image.mode.startswith(("I", "F")):
        raise InputError(
            f"{file_name}: pixels of mode {image.mode!r} (more than 8 bits) cannot be read as {format}"
            " without a choice of brightness range; convert the file to 8 bits per channel first"
        )
    return convert_PIL_to_numpy(image, format)


def read_image_size(file_name: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of an image that `read_image` reads, from the head of the file; InputError as there."""
    if os.path.isfile(file_name):
        try:
            with Image.open(file_name) as image:
                width, height = image.size
                is_turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
                return (width, height) if is_turned else (height, width)
        except (*DECODE_ERRORS, TypeError, Image.DecompressionBombError):
            pass  # reading it whole says what is wrong, or passes over a damaged EXIF block
    height, width = read_image(file_name).shape[:2]
    return height, width


def _upright(image: Image.Image) -> Image.Image:
    """Undo the camera's rotation (EXIF tag); a file whose EXIF block is damaged counts as upright."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except (*DECODE_ERRORS, TypeError):
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A PIL image as an array in `format` (see `read_image`)."""
    mode = "RGB" if format in ("BGR", "YUV-BT.601") else format
    # PIL copies an image that has the mode already.
    array = np.asarray(image if mode in (None, image.mode) else image.convert(mode))
    if format == "L":
        return array[:, :, None]
    if format == "BGR":
        # A view with its channels backwards would have to be copied later, at twenty times the cost.
        return cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    if format == "YUV-BT.601":
        return (array / 255.0) @ _RGB_TO_YUV.T
    return array


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """An image (H, W, C) as a contiguous tensor (C, H, W) of its own, whatever views it has been through.

    Done by OpenCV, because numpy copies mirrored rows byte by byte, at ten times the cost, and torch starts
    threads, for which a forked process that has not limited them would wait for ever.

    Raises:
        InputError: an array that has not three axes.
    """
    if image.ndim != 3:
        raise InputError(
            f"an image of shape {image.shape} suits no model; (height, width, channels) is needed:"
            " give a grey image one channel, as format 'L' reads it"
        )
    if image.dtype != np.uint8 or image.size == 0 or image.shape[2] > _MAX_OPENCV_CHANNELS:
        return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
    axes = tuple(axis for axis, stride in enumerate(image.strides) if stride < 0)
    stored = np.flip(image, axes)  # as it lies in memory
    upside_down, mirrored, backwards = (axis in axes for axis in range(3))
    if upside_down or mirrored:
        stored = cv2.flip(stored, -1 if upside_down and mirrored else int(mirrored))
    planes = np.empty((image.shape[2], *image.shape[:2]), dtype=np.uint8)
    written = cv2.split(stored, list(planes[::-1] if backwards else planes))
    assert np.may_share_memory(written[0], planes), "cv2.split has not filled the arrays it was given"
    return torch.from_numpy(planes)


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """An (H, W, C) image in `format` (see `read_image`), values in 0-255 (YUV: as read), as uint8 RGB."""
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if format == "YUV-BT.601":
        array = np.clip(array @ _YUV_TO_RGB.T * 255.0, 0, 255).round()
    array = array.astype(np.uint8)
    if format == "BGR":
        return array[:, :, ::-1]
    if format in ("RGB", "YUV-BT.601"):
        return array
    if format == "L":
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    height, width = array.shape[:2]
    return np.asarray(Image.frombytes(format, (width, height), array.tobytes()).convert("RGB"))


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare an image (H, W, ...) with `height` and `width` of its dataset dict; fill them in if missing.

    Raises:
        SizeMismatchError: they disagree.
    """
    height, width = image.shape[:2]
    compare_image_size(dataset_dict, (height, width))
    dataset_dict["height"], dataset_dict["width"] = height, width


def compare_image_size(dataset_dict: dict[str, Any], size: tuple[int, int]) -> None:
    """Raise SizeMismatchError if an image of `size` (height, width) is not what its dataset dict says."""
    height, width = size
    expected = (dataset_dict.get("height", height), dataset_dict.get("width", width))
    if expected != (height, width):
        hint = ""
        if expected == (width, height):
            hint = " (swapped: the annotations may have been drawn without the file's EXIF rotation)"
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'image')}: the image is {width} x {height} (width x height), the"
            f" annotations say {expected[1]} x {expected[0]}{hint}; use the image that was annotated, or mend"
            " width and height in the annotation file"
        )
