"""COCO's panoptic PNG files: every pixel holds the id of its segment, R + 256 G + 65536 B; 0 is void.

The format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

import io
import os

import numpy as np
from PIL import Image

from panomask.atomic_file import write_atomically
from panomask.errors import InputError
from panomask.image_decoding import decode_image

VOID = 0
"""The id of pixels that belong to no segment."""

MAX_SEGMENT_ID = 2**24 - 1


def read_segment_ids(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a panoptic PNG.

    Args:
        path: an RGB file with 8 bits a channel.
        size: (height, width) that it must have.

    Returns:
        (H, W) int32 segment ids.

    Raises:
        InputError: no such file, no image, a JPEG file, not in colour, or of another size.
    """
    image = decode_image(path)
    if image.format == "JPEG":
        raise InputError(
            f"{path}: a JPEG file, whatever its name; its compression changes colours, and with them the ids"
            " of segments: write them as PNG from the original data"
        )
    if image.mode != "RGB":
        raise InputError(
            f"{path}: an image of mode {image.mode!r}{_MODES.get(image.mode, '')}, but panoptic segments are"
            " RGB colours: id = R + 256 G + 65536 B; write them by panomask.panoptic_png.write_segment_ids,"
            " or give the folder of panoptic PNG files"
        )
    if size is not None and (image.height, image.width) != tuple(size):
        raise InputError(
            f"{path}: {image.width} x {image.height} (width x height), but its image is {size[1]} x"
            f" {size[0]};"
            " draw the segments in the image's size, or mend width and height in the annotation file"
        )
    return _ids_of(image)


def decode_segment_ids(png: bytes) -> np.ndarray:
    """(H, W) int32 segment ids of a panoptic PNG in memory, which this process has made itself."""
    with Image.open(io.BytesIO(png)) as image:
        return _ids_of(image.convert("RGB"))


def _ids_of(image: Image.Image) -> np.ndarray:
    # PIL holds a pixel as R, G, B and a byte more: one 32-bit number with the id in its lower 24 bits.
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<i4").reshape(image.height, image.width)
    return (pixels & MAX_SEGMENT_ID).astype(np.int32, copy=False)


_MODES = {
    "L": " (grey-scale)",
    "LA": " (grey-scale)",
    "I;16": " (grey-scale)",
    "I": " (grey-scale)",
    "1": " (black and white)",
    "P": " (palette)",
    "RGBA": " (with transparency)",
}


def write_segment_ids(path: str | os.PathLike[str], ids: np.ndarray) -> None:
    """Write (H, W) integer segment ids of 0 to 16777215 as a panoptic PNG; a file is written whole or not."""
    ids = np.asarray(ids)
    assert ids.ndim == 2, f"segment ids must be (H, W), not {ids.shape}"
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_SEGMENT_ID:
        raise InputError(
            f"{path}: segment ids from {ids.min()} to {ids.max()}; a PNG holds 0 to {MAX_SEGMENT_ID}"
        )
    pixels = np.ascontiguousarray(ids, dtype="<i4").view(np.uint8).reshape(*ids.shape, 4)
    with write_atomically(path, flush_to_disk=False) as file:
        Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(file, format="PNG", compress_level=1)
