"""Label images of semantic segmentation: every pixel holds the number of its class.

Detectron2's `sem_seg_file_name`, as COCO-stuff, ADE20k and Cityscapes store it: a grey-scale PNG.
"""

import os

import numpy as np
from PIL import Image

from panomask.atomic_file import write_atomically
from panomask.errors import InputError
from panomask.image_decoding import decode_image

IGNORE_LABEL = 255
"""The label of pixels in no class, unless a data set says another."""


def read_semantic_labels(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image.

    Args:
        path: a grey-scale file of 8 or 16 bits, a palette file (the label is the place in the palette), or
            a file in colour whose channels are equal.
        size: (height, width) that it must have.

    Returns:
        (H, W) uint8 or int32 labels.

    Raises:
        InputError: no such file, no image, a JPEG file, in colour, or of another size.
    """
    image = decode_image(path)
    if image.format == "JPEG":
        raise InputError(
            f"{path}: a JPEG file, whatever its name; its compression changes grey values, and with them the"
            " classes: write them as PNG from the original data"
        )
    if size is not None and (image.height, image.width) != tuple(size):
        raise InputError(
            f"{path}: {image.width} x {image.height} (width x height), but its image is {size[1]} x"
            f" {size[0]}; a label image has the size of its image"
        )
    if image.mode in ("L", "P"):
        return np.asarray(image)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int32)
    if image.mode in ("1", "LA"):
        return np.asarray(image.convert("L") if image.mode == "LA" else image).astype(np.uint8)
    return _equal_channels(path, image)


def _equal_channels(path: str | os.PathLike[str], image: Image.Image) -> np.ndarray:
    if image.mode in ("RGB", "RGBA"):
        channels = np.asarray(image)[..., :3]
        if (channels == channels[..., :1]).all():
            return np.ascontiguousarray(channels[..., 0])
    colours = " with colours" if image.mode in ("RGB", "RGBA") else ""
    raise InputError(
        f"{path}: an image of mode {image.mode!r}{colours}, but a label image is grey-scale, with whole"
        " numbers: each pixel holds that of its class; for panoptic PNG files (segments in colour) give their"
        " JSON file and DATASETS.REGISTER.<name>.PANOPTIC_ROOT"
    )


def read_cityscapes_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """(H, W) int64 of a Cityscapes image: label ids, or label id * 1000 + number (`*_instanceIds.png`).

    Raises:
        InputError: no such file, no image, or in colour.
    """
    try:
        with Image.open(path) as image:
            ids = np.asarray(image).astype(np.int64)
    except FileNotFoundError:
        raise InputError(f"{path}: file does not exist; unpack gtFine so that it lies there") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); copy it again") from None
    if ids.ndim != 2:
        raise InputError(f"{path}: has {ids.shape[2]} colours; one number a pixel is needed, its instance id")
    return ids


def write_semantic_labels(path: str | os.PathLike[str], labels: np.ndarray) -> None:
    """Write (H, W) integer labels of 0 to 255 as a grey-scale PNG; a file is written whole or not."""
    labels = np.asarray(labels)
    assert labels.ndim == 2, f"labels must be (H, W), not {labels.shape}"
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 255:
        raise InputError(f"{path}: labels from {labels.min()} to {labels.max()}; 8 bits hold 0 to 255")
    with write_atomically(path, flush_to_disk=False) as file:
        Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8)).save(
            file, format="PNG", compress_level=1
        )
