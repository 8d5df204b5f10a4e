"""From a COCO panoptic file to dataset dicts, by the file's own classes."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from panomask.data.catalog import MetadataCatalog
from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.coco_categories import top_level_list
from panomask.data.datasets.coco_images import read_images, sort_by_id
from panomask.data.datasets.panoptic_annotations import add_segments, check_all_annotated, open_png_folder
from panomask.data.datasets.panoptic_categories import (
    SegmentClass,
    check_panoptic_categories,
    panoptic_classes,
    set_panoptic_metadata,
)
from panomask.data.log_once import log_once
from panomask.errors import InputError
from panomask.json_file import collection_paused, read_json

logger = logging.getLogger(__name__)

Record = dict[str, Any]

ClassesOf = Callable[[list[Record]], dict[int, SegmentClass]]
"""From checked categories to what each id of theirs means."""


def load_panoptic(
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path | None,
    dataset_name: str | None = None,
    *,
    on_bad: str = "refuse",
) -> list[Record]:
    """Read a panoptic file into dataset dicts, sorted by image id. No picture is opened.

    Args:
        panoptic_json: object with the lists "images", "annotations" (one an image: "image_id", "file_name" of
            its PNG, "segments_info") and "categories" (each with "isthing").
        panoptic_root: folder of the PNG files, whose pixels hold R + 256 G + 65536 B = id of a segment.
        image_root: folder of the images; None leaves their names as in the file.
        dataset_name: when given, the set's metadata receive the classes.
        on_bad: "refuse" stops at the first fault; "drop" leaves bad segments and images without a usable
            annotation out, and logs one line that counts them. Each dict then has "on_bad_annotation":
            "drop": whoever reads its PNG takes pixels of unknown ids for void.

    Returns:
        dicts with file_name, height, width, image_id, pan_seg_file_name,
        segments_info: id, category_id (things 0..T-1, stuff 1..S), isthing, iscrowd, and area if the file has
            it, for each segment,
        annotations: category_id, iscrowd, segment_id and, if the file has one, bbox (xywh), for each thing.
            There is no segmentation: mask and box are those of the segment's pixels.

    Raises:
        InputError: one line that names the file, the entry, what is wrong and what is allowed.
    """
    classes_of: ClassesOf = panoptic_classes
    if dataset_name is not None:
        classes_of = partial(set_panoptic_metadata, MetadataCatalog.get(dataset_name), panoptic_json)
    return read_panoptic_records(
        panoptic_json, panoptic_root, image_root, classes_of=classes_of, on_bad=on_bad
    )


@collection_paused()
def read_panoptic_records(
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path | None,
    *,
    classes_of: ClassesOf,
    on_bad: str,
) -> list[Record]:
    """See `load_panoptic`. `classes_of` gives the classes of the file's checked categories."""
    start = perf_counter()
    problems = AnnotationProblems(panoptic_json, on_bad)
    document = _read_document(panoptic_json)
    categories = check_panoptic_categories(
        panoptic_json, top_level_list(panoptic_json, document, "categories")
    )
    classes = classes_of(categories)
    root = None if image_root is None else Path(image_root)
    records = read_images(panoptic_json, document["images"], root)
    folder = open_png_folder(panoptic_json, panoptic_root)
    add_segments(records, document["annotations"], classes, folder, problems)
    check_all_annotated(records, problems)
    annotated = {id_: record for id_, record in records.items() if "segments_info" in record}
    problems.log_summary(nothing_left=not annotated)
    if on_bad == "drop":
        for record in annotated.values():
            record["on_bad_annotation"] = "drop"
    log_once(
        logger,
        ("read", str(panoptic_json)),
        "%s: %d images, %d segments, %d categories read in %.1f s",
        *(panoptic_json, len(annotated), sum(len(r["segments_info"]) for r in annotated.values())),
        *(len(categories), perf_counter() - start),
    )
    return sort_by_id(panoptic_json, annotated)


def _read_document(panoptic_json: str | Path) -> dict[str, Any]:
    """The parsed file, with the lists "images" and "annotations"; InputError for a file of instances."""
    document = read_json(panoptic_json)
    annotations = top_level_list(panoptic_json, document, "annotations")
    top_level_list(panoptic_json, document, "images")
    first = annotations[0] if annotations and isinstance(annotations[0], dict) else {}
    if "segments_info" not in first and ("category_id" in first or "segmentation" in first):
        raise InputError(
            f'{panoptic_json}: a COCO file of instances (its annotations have no "segments_info"); give the'
            " panoptic file, or leave out the folder of PNG files (DATASETS.REGISTER.<name>.PANOPTIC_ROOT;"
            " register_coco_instances in Python)"
        )
    return document
