"""How often each class occurs in the training data, for the log."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from panomask.data.log_once import log_once
from panomask.errors import InputError

logger = logging.getLogger(__name__)

MOST_CLASSES_LISTED = 200
"""A log shows no longer table than this."""

DatasetDicts = list[dict[str, Any]]


def print_instances_class_histogram(dataset_dicts: DatasetDicts, class_names: Sequence[str]) -> None:
    """Log a table of the number of objects of each class, crowds excluded; one line for very many classes."""
    counts = np.zeros(len(class_names), dtype=np.int64)
    for item in dataset_dicts:
        classes = [anno["category_id"] for anno in item["annotations"] if not anno.get("iscrowd", 0)]
        if classes and not 0 <= min(classes) <= max(classes) < len(class_names):
            raise InputError(
                f"{item.get('file_name')}: category_id {min(classes)} to {max(classes)}, but the data set has"
                f" {len(class_names)} classes: 0 to {len(class_names) - 1} are allowed in dataset dicts"
            )
        np.add.at(counts, classes, 1)
    if len(class_names) > MOST_CLASSES_LISTED:
        message = (
            f"{counts.sum()} objects in {len(dataset_dicts)} images; of the {len(counts)} classes"
            f" {(counts == 0).sum()} have none, {((counts > 0) & (counts < 10)).sum()} fewer than 10"
        )
        log_once(logger, (message,), message)
        return
    table = _count_table(class_names, counts, "objects")
    message = f"Objects of each class in {len(dataset_dicts)} images:\n{table}"
    log_once(logger, (message,), message)


def print_stuff_class_histogram(dataset_dicts: DatasetDicts, class_names: Sequence[str]) -> None:
    """Log a table of the number of segments of each stuff class; nothing where no dict lists its segments.

    Args:
        dataset_dicts: `segments_info` is looked at.
        class_names: metadata `stuff_classes`.
    """
    lists = [item["segments_info"] for item in dataset_dicts if "segments_info" in item]
    classes = [s["category_id"] for segments in lists for s in segments if not s.get("isthing", True)]
    if not lists or len(class_names) > MOST_CLASSES_LISTED:
        return
    if classes and not 0 <= min(classes) <= max(classes) < len(class_names):
        raise InputError(
            f"segments_info has stuff of category_id {min(classes)} to {max(classes)}, but the data set has"
            f" {len(class_names)} stuff_classes: 0 to {len(class_names) - 1} are allowed in dataset dicts"
        )
    counts = np.bincount(np.asarray(classes, dtype=np.int64), minlength=len(class_names))
    shown = [i for i, name in enumerate(class_names) if counts[i] or (i, name) != (0, "things")]
    table = _count_table([class_names[i] for i in shown], counts[shown], "segments")
    message = f"Segments of each stuff class in {len(lists)} images:\n{table}"
    log_once(logger, (message,), message)


def _count_table(class_names: Sequence[str], counts: np.ndarray, what: str) -> str:
    """Classes and their numbers in three columns of a table, with the sum below."""
    cells: list[Any] = [cell for pair in zip(class_names, counts.tolist(), strict=True) for cell in pair]
    num_pairs = max(min(3, len(class_names)), 1)
    cells += [None] * (-len(cells) % (2 * num_pairs))
    cells += ["total", int(counts.sum())] + [None] * (2 * num_pairs - 2)
    rows = [cells[i : i + 2 * num_pairs] for i in range(0, len(cells), 2 * num_pairs)]
    return tabulate(rows, headers=["class", what] * num_pairs, tablefmt="pipe", numalign="right")
