"""Writes pictures so that a reader never meets half a file."""

from pathlib import Path

import cv2
import numpy as np

from panomask.atomic_file import write_atomically
from panomask.errors import InputError

_OPTIONS = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 4],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 92],
    ".bmp": [],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 92],
}


def write_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write `rgb` (H, W, 3) uint8 in the format of the file's ending; folders are made as needed.

    Raises:
        InputError: unknown ending, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _OPTIONS:
        raise InputError(f"{path}: cannot write a picture of this kind; allowed are {', '.join(_OPTIONS)}")
    done, data = cv2.imencode(path.suffix.lower(), rgb[:, :, ::-1], _OPTIONS[path.suffix.lower()])
    if not done:
        raise InputError(
            f"{path}: a picture of {rgb.shape[1]} x {rgb.shape[0]} pixels cannot be written in this format"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, flush_to_disk=False) as file:
            file.write(data.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
