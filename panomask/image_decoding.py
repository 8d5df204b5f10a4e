"""From an image file to its pixels, with errors that say which file and what is wrong."""

import os
import struct
import warnings
import zlib

from PIL import Image

from panomask.errors import InputError

DECODE_ERRORS = (OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, struct.error, zlib.error)
"""What PIL's decoders raise for damaged files."""


def decode_image(file_name: str | os.PathLike[str]) -> Image.Image:
    """The file's pixels as they are stored, in the file's own mode.

    Args:
        file_name: any file that PIL reads, up to twice `PIL.Image.MAX_IMAGE_PIXELS` (179 megapixels).

    Raises:
        InputError: the file is missing, no image, truncated, or larger than that.
    """
    if not os.path.isfile(file_name):
        kind = "is a folder, not an image" if os.path.isdir(file_name) else "does not exist"
        raise InputError(
            f"{file_name}: image file {kind}; check the image folder and the annotation's file_name"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF blocks, and half of the size that is refused
            with Image.open(file_name) as image:
                image.load()
                return image
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(
            f"{file_name}: image of more than {limit / 1e6:.0f} megapixels, PIL's limit against decompression"
            " bombs; cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from None
    except DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image of a known format"
        raise InputError(
            f"{file_name}: cannot be read as an image: {reason}; replace the file, or leave it out"
        ) from error
