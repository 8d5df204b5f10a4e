"""Reader of semantic segmentation sets: a folder of images, and one of label PNG files of the same names."""

import logging
import os
from pathlib import Path
from typing import Any

from panomask.errors import InputError

__all__ = ["load_sem_seg"]

logger = logging.getLogger(__name__)

_MOST_LISTED = 3


def load_sem_seg(
    gt_root: str | Path, image_root: str | Path, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, Any]]:
    """Pair the images of a folder with the label files of another one, by their names without extension.

    Args:
        gt_root: folder of the label files; a pixel's grey value is its class, or the ignored label.
        image_root: folder of the images. Subfolders are not searched.
        gt_ext, image_ext: endings of the names; other files are not looked at.

    Returns:
        dicts with file_name and sem_seg_file_name, sorted by name. If one folder has more files than the
        other (COCO has labels for 100 images of its val2017), those that both have, with a warning.

    Raises:
        InputError: a folder does not exist, has no file of this ending, or the two have no name in common.
    """
    images = _names(image_root, image_ext, "images", "image_ext")
    labels = _names(gt_root, gt_ext, "label files", "gt_ext")
    names = sorted(images & labels)
    if not names:
        raise InputError(
            f"{gt_root}: none of its *.{gt_ext} files has the name of an image in {image_root} (images:"
            f" {_examples(images)}; labels: {_examples(labels)}); a pair is named alike but for the ending"
        )
    if len(names) < max(len(images), len(labels)):
        logger.warning(
            "%s has %d images and %s has %d label files; the %d that both have are used. Without label: %s."
            " Without image: %s",
            *(image_root, len(images), gt_root, len(labels), len(names)),
            *(_examples(images - labels), _examples(labels - images)),
        )
    return [
        {
            "file_name": os.path.join(image_root, f"{name}.{image_ext}"),
            "sem_seg_file_name": os.path.join(gt_root, f"{name}.{gt_ext}"),
        }
        for name in names
    ]


def _names(folder: str | Path, extension: str, what: str, argument: str) -> set[str]:
    """The names of a folder's files that end in the extension, without it."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: this folder of {what} does not exist; correct the path")
    ending = f".{extension}"
    files = os.listdir(folder)
    names = {file[: -len(ending)] for file in files if file.endswith(ending)}
    if not names:
        raise InputError(
            f"{folder}: no file ends in {ending!r}, but {what} are looked for there (it has {len(files)}"
            f" files: {_examples(set(files))}); name their ending ({argument}), or another folder"
        )
    return names


def _examples(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_MOST_LISTED]) or "none"
    return shown + (", ..." if len(names) > _MOST_LISTED else "")
