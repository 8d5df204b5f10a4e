"""A user's own data for semantic segmentation: a folder of images and one of label files."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.semantic_png import IGNORE_LABEL

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
_MOST_LISTED = 3

logger = logging.getLogger(__name__)


def register_semantic(
    name: str,
    sem_seg_root: str | Path,
    image_root: str | Path,
    stuff_classes: Sequence[str],
    *,
    ignore_label: int = IGNORE_LABEL,
    on_bad: str = "refuse",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Register a data set for semantic segmentation under `name`; no folder is read before it is first used.

    Args:
        sem_seg_root: folder of label files (PNG): each pixel holds the number of its class.
        image_root: folder of images, named as their label files but for the ending; subfolders likewise.
        stuff_classes: names of the classes 0, 1, ...
        ignore_label: pixels of this label are in no loss and in no score.
        on_bad: "refuse" stops at a file without partner; "drop" leaves it out and says so.
        metadata: extra fields of `MetadataCatalog.get(name)`.
    """
    load = partial(load_semantic, str(sem_seg_root), str(image_root), on_bad=on_bad)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        evaluator_type="sem_seg",
        sem_seg_root=str(sem_seg_root),
        image_root=str(image_root),
        stuff_classes=list(stuff_classes),
        ignore_label=ignore_label,
        **(metadata or {}),
    )


def load_semantic(
    sem_seg_root: str | Path, image_root: str | Path, *, on_bad: str = "refuse"
) -> list[dict[str, Any]]:
    """Pair label files with images of the same name, whatever the image's ending; see `register_semantic`.

    Returns:
        dicts with file_name and sem_seg_file_name, sorted by name.

    Raises:
        InputError: a folder does not exist, no pair is found, a file has no partner or two.
    """
    labels = _files_by_name(sem_seg_root, (".png",), "label files (DATASETS.REGISTER.<name>.SEM_SEG_ROOT)")
    images = _files_by_name(image_root, IMAGE_ENDINGS, "images (DATASETS.REGISTER.<name>.IMAGES)")
    for folder, own, others, other_folder in (
        (sem_seg_root, labels, images, image_root),
        (image_root, images, labels, sem_seg_root),
    ):
        alone = sorted(own.keys() - others.keys())
        if not alone:
            continue
        shown = ", ".join(own[stem] for stem in alone[:_MOST_LISTED])
        message = (
            f"{folder}: {len(alone)} of {len(own)} files have no partner of the same name in {other_folder}"
        )
        if on_bad != "drop" or len(alone) == len(own):
            raise InputError(
                f"{message}, such as {shown}; add it, or leave files without partner out by"
                " DATASETS.ON_BAD_ANNOTATION drop"
            )
        logger.warning("%s and are left out: %s", message, shown)
    return [
        {
            "file_name": os.path.join(image_root, images[stem]),
            "sem_seg_file_name": os.path.join(sem_seg_root, labels[stem]),
        }
        for stem in sorted(labels.keys() & images.keys())
    ]


def _files_by_name(folder: str | Path, endings: tuple[str, ...], what: str) -> dict[str, str]:
    """Path below the folder without ending -> with ending."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: the folder of {what} does not exist; correct the path")
    found: dict[str, str] = {}
    for place, _, files in os.walk(folder):
        for file in files:
            stem, ending = os.path.splitext(os.path.relpath(os.path.join(place, file), folder))
            if ending.lower() not in endings:
                continue
            if stem in found:
                raise InputError(
                    f"{folder}: {found[stem]} and {stem}{ending} have one name but for the ending, so that"
                    " the label file's image is not clear; rename or remove one of them"
                )
            found[stem] = f"{stem}{ending}"
    if not found:
        raise InputError(f"{folder}: holds no {what} ({', '.join(endings)}); give the folder that does")
    return found
