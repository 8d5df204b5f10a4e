"""A look at the label images of a data set, so that faults are found before hours of training."""

import logging
import os
import time
from typing import Any

import numpy as np

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.image_io import compare_image_size, read_image_size
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.semantic_png import IGNORE_LABEL, read_semantic_labels
from panomask.structures.panoptic_record import has_segments, read_segment_map

SECONDS = 2.0
"""How long one data set is looked at: some hundred images of 640 x 480, that is all of a small data set."""

logger = logging.getLogger(__name__)


def check_label_folder(name: str) -> None:
    """Look at one label image of a registered data set, if it has a folder of them; its dicts are not loaded.

    Raises:
        InputError: the folder is missing, holds no PNG file, or one of the wrong kind: grey-scale for
            panoptic segments, in colour for semantic labels.
    """
    metadata = MetadataCatalog.get(name)
    for field, read in (("panoptic_root", read_segment_ids), ("sem_seg_root", read_semantic_labels)):
        folder = metadata.get(field)
        if folder is not None:
            read(_any_png(name, field, folder))


def _any_png(name: str, field: str, folder: str) -> str:
    where = f"data set {name}: {folder} ({field.upper()})"
    if not os.path.isdir(folder):
        raise InputError(
            f"{where} is no folder; give that of the PNG files (relative paths start at {os.getcwd()})"
        )
    folders = [folder]
    while folders:  # as lazily as the file system lists: there may be a million files
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.lower().endswith(".png"):
                    return entry.path
    raise InputError(f"{where} holds no PNG file; give the folder of the label images")


def check_label_images(name: str, *, seconds: float = SECONDS) -> int:
    """Load a data set's dicts and compare label images, drawn from all over it, with images and dicts.

    Args:
        name: registered. A set without panoptic or semantic labels is not loaded.
        seconds: no further image is begun after this time.

    Returns:
        How many images were looked at.

    Raises:
        InputError: a fault of a file, as the mapper and the evaluators name it.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("panoptic_json") is None and metadata.get("sem_seg_root") is None:
        return 0
    records = DatasetCatalog.get(name)
    num_classes = len(metadata.get("stuff_classes") or ()) or None
    end, count = time.perf_counter() + seconds, 0
    for position in np.random.default_rng(0).permutation(len(records)).tolist():
        _check(records[position], num_classes, metadata.get("ignore_label", IGNORE_LABEL))
        count += 1
        if time.perf_counter() > end:
            break
    logger.debug("Labels of %d of the %d images of %s are in order", count, len(records), name)
    return count


def _check(record: dict[str, Any], num_classes: int | None, ignore_label: int) -> None:
    size = read_image_size(record["file_name"])
    compare_image_size(record, size)
    if has_segments(record):
        read_segment_map(record, size)
    if "sem_seg_file_name" in record:
        path = record["sem_seg_file_name"]
        check_label_range(path, read_semantic_labels(path, size), num_classes, ignore_label)


def check_label_range(path: str, labels: np.ndarray, num_classes: int | None, ignore_label: int) -> None:
    """Raise InputError for labels (integers of any shape) beyond `num_classes`; None: anything goes."""
    if num_classes is None:
        return
    is_bad = (labels != ignore_label) & ((labels < 0) | (labels >= num_classes))
    if is_bad.any():
        raise InputError(
            f"{path}: label {int(labels[is_bad][0])}, but there are {num_classes} classes"
            f" (MODEL.SEM_SEG_HEAD.NUM_CLASSES): 0 to {num_classes - 1} are allowed, and {ignore_label}"
            " (MODEL.SEM_SEG_HEAD.IGNORE_VALUE) for what is in no class"
        )
