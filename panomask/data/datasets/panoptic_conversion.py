"""COCO panoptic files as instance annotations, and as label images of semantic segmentation."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.datasets.coco_panoptic import load_panoptic
from panomask.data.datasets.conversion_files import (
    claim_file,
    claim_folder,
    convert_all,
    png_names,
    write_coco_json,
)
from panomask.data.datasets.panoptic_categories import (
    THINGS_LABEL,
    THINGS_NAME,
    SegmentClass,
    panoptic_classes,
    read_panoptic_categories,
)
from panomask.errors import InputError
from panomask.json_file import write_json
from panomask.semantic_png import IGNORE_LABEL, write_semantic_labels
from panomask.structures.panoptic_record import read_segment_map
from panomask.structures.segment_map import areas_and_boxes_xywh, segment_rles, semantic_map

__all__ = ["LAYOUTS", "panoptic_to_instances", "panoptic_to_semantic"]

logger = logging.getLogger(__name__)

LAYOUTS = {
    "things-first": "0 for every thing, 1, 2, ... for stuff in the order of ids, as Panoptic FPN learns",
    "all-classes": "0, 1, ... for all categories, things and stuff, in the order of their ids",
}
"""The numbers of classes in label images; 255 is void."""


def panoptic_to_instances(
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    output_json: str | Path,
    *,
    with_stuff: bool = False,
    on_bad: str = "refuse",
    num_workers: int = 0,
    overwrite: bool = False,
) -> int:
    """Write the things of a panoptic file as COCO instances.

    Args:
        panoptic_json, panoptic_root, on_bad: see `load_panoptic`.
        output_json: the file to write.
        with_stuff: write stuff segments as objects, too, each class like any other.
        num_workers, overwrite: see `convert_all`, `claim_file`.

    Returns:
        The number of objects. Each has an id (from 1, none twice in the file), image_id, category_id and
        iscrowd as in the panoptic file; segmentation (compressed RLE), bbox and area from its pixels; and
        segment_id, the segment's id in its image.

    Raises:
        InputError: bad input (see `load_panoptic`, `read_segment_map`), or the output exists.
    """
    path = claim_file(output_json, inputs=(panoptic_json, panoptic_root), overwrite=overwrite)
    records = load_panoptic(panoptic_json, panoptic_root, None, on_bad=on_bad)
    categories = read_panoptic_categories(panoptic_json)
    category_ids = {each: id_ for id_, each in panoptic_classes(categories).items()}
    convert = partial(_objects_of_image, category_ids=category_ids, with_stuff=with_stuff)
    images = [
        {
            "id": record["image_id"],
            "file_name": record["file_name"],
            "height": record["height"],
            "width": record["width"],
        }
        for record in records
    ]
    kept = [category for category in categories if with_stuff or category["isthing"]]
    kept = [{key: value for key, value in category.items() if key != "isthing"} for category in kept]
    if not kept:
        raise InputError(f"{panoptic_json}: no category is a thing; ask for stuff too (--with-stuff)")
    count = 0
    with write_coco_json(path, images, kept) as add:
        for objects in convert_all(convert, records, num_workers=num_workers):
            for entry in objects:
                count += 1
                add({"id": count, **entry})
    logger.info("%s: %d images, %d objects of %d categories", path, len(images), count, len(kept))
    return count


def _objects_of_image(
    record: dict[str, Any], *, category_ids: dict[SegmentClass, int], with_stuff: bool
) -> list[dict[str, Any]]:
    """The annotations of one image, without "id"."""
    segment_map = read_segment_map(record)
    segments = record["segments_info"]
    rles = segment_rles(segment_map, len(segments))
    areas, boxes = areas_and_boxes_xywh(segment_map, len(segments))
    return [
        {
            "image_id": record["image_id"],
            "category_id": category_ids[SegmentClass(segment["category_id"], segment["isthing"])],
            "iscrowd": segment["iscrowd"],
            "segmentation": rle,
            "area": area,
            "bbox": box,
            "segment_id": segment["id"],
        }
        for segment, rle, box, area in zip(segments, rles, boxes, areas, strict=True)
        if (segment["isthing"] or with_stuff) and area  # with on_bad "drop" there may be no pixel
    ]


def panoptic_to_semantic(
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    output_root: str | Path,
    *,
    layout: str = "things-first",
    on_bad: str = "refuse",
    num_workers: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Write one grey-scale label PNG an image, named as the image, and `classes.json`: the classes by number.

    Args:
        panoptic_json, panoptic_root, on_bad: see `load_panoptic`.
        output_root: the folder to write to.
        layout: a name of `LAYOUTS`; 255 is void.
        num_workers, overwrite: see `convert_all`, `claim_folder`.

    Returns:
        The names of the classes 0, 1, ...: the STUFF_CLASSES of a semantic data set.

    Raises:
        InputError: bad input (see `load_panoptic`, `read_segment_map`), more than 255 classes, or the folder
            is not empty.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; allowed are {', '.join(LAYOUTS)}")
    folder = claim_folder(
        output_root, inputs=(panoptic_root, Path(panoptic_json).parent), overwrite=overwrite
    )
    records = load_panoptic(panoptic_json, panoptic_root, None, on_bad=on_bad)
    categories = read_panoptic_categories(panoptic_json)
    classes, labels = _label_classes(categories, layout)
    if len(classes) > IGNORE_LABEL:
        raise InputError(
            f"{panoptic_json}: {len(classes)} classes, but a label image holds 0 to 254, and 255 for void;"
            " train from the panoptic files, which have no such limit"
        )
    pngs = png_names([record["file_name"] for record in records], panoptic_json)
    paths = [folder / name for name in pngs]
    write = partial(_write_labels, labels=labels)
    for _ in convert_all(write, list(zip(records, paths, strict=True)), num_workers=num_workers):
        pass
    write_json(folder / "classes.json", classes)
    names = [entry["name"] for entry in classes]
    logger.info("%s: %d label images of %d classes: %s", folder, len(paths), len(names), ", ".join(names))
    return names


def _label_classes(
    categories: Sequence[dict[str, Any]], layout: str
) -> tuple[list[dict[str, Any]], dict[SegmentClass, int]]:
    """The classes of label images, "id" being the label; and the label of each class."""
    found = panoptic_classes(list(categories))
    if layout == "all-classes":
        labels = {found[category["id"]]: label for label, category in enumerate(categories)}
        kept = list(categories)
    else:
        labels = {each: THINGS_LABEL if each.is_thing else each.class_idx for each in found.values()}
        kept = [
            {"name": THINGS_NAME, "isthing": True},
            *(category for category in categories if not category["isthing"]),
        ]
    classes = [
        {"id": label, "name": category["name"], "isthing": int(category["isthing"])}
        for label, category in enumerate(kept)
    ]
    return classes, labels


def _write_labels(task: tuple[dict[str, Any], Path], *, labels: dict[SegmentClass, int]) -> None:
    record, path = task
    segment_map = read_segment_map(record)
    segment_labels = [
        labels[SegmentClass(each["category_id"], each["isthing"])] for each in record["segments_info"]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_semantic_labels(path, semantic_map(segment_map, segment_labels, IGNORE_LABEL))
