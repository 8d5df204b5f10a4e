"""COCO panoptic files made of instance annotations and, for stuff, label images or one background class.

The format: https://cocodataset.org/#format-data, "Panoptic Segmentation": each pixel belongs to one segment
or to none, so objects that overlap have to be ordered.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_util

from panomask.data.datasets.coco import read_records
from panomask.data.datasets.coco_categories import check_categories, distinct_color
from panomask.data.datasets.conversion_files import (
    claim_file,
    claim_folder,
    convert_all,
    png_names,
    write_coco_json,
)
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.semantic_png import read_semantic_labels
from panomask.structures.segment_map import FIRST_SEGMENT, areas_and_boxes_xywh

__all__ = ["OVERLAP_RULES", "instances_to_panoptic"]

logger = logging.getLogger(__name__)

OVERLAP_RULES = {
    "smaller": "the object of fewer pixels is in front (a big object beneath a small one still shows)",
    "later": "the object that comes later in the file is in front",
    "earlier": "the object that comes earlier in the file is in front",
}
"""Which object gets the pixels that two claim. Crowds are always behind objects, stuff behind crowds."""


class _Rules(NamedTuple):
    """How an image is painted.

    Attributes:
        overlap: a name of OVERLAP_RULES.
        stuff_ids: pixel value of a label image -> category id.
        ignored: pixel values that become void.
        background_id: the category of all pixels without an object; None without such a class.
    """

    overlap: str
    stuff_ids: Mapping[int, int]
    ignored: Sequence[int]
    background_id: int | None


class _Counts(NamedTuple):
    """What the log says at the end: numbers of segments, of objects that others hide, and of pixels."""

    things: int
    stuff: int
    hidden: int
    contested: int
    void: int
    pixels: int


class _Image(NamedTuple):
    """One image to be painted: its dataset dict, and the name of its PNG files below their folders."""

    record: dict[str, Any]
    png: str


def instances_to_panoptic(
    instance_json: str | Path,
    output_json: str | Path,
    output_root: str | Path,
    *,
    semantic_root: str | Path | None = None,
    stuff: Sequence[dict[str, Any]] = (),
    background: str | None = None,
    ignored: Sequence[int] = (0, 255),
    overlap: str = "smaller",
    on_bad: str = "refuse",
    num_workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Write a panoptic JSON file and its PNG files.

    Args:
        instance_json: COCO instances; each object has a mask.
        output_json, output_root: the file and the folder to write. The PNG of `a/1.jpg` is `a/1.png`.
        semantic_root: folder of label images, one a photograph and named alike (`a/1.png`). Objects lie on
            top of them.
        stuff: the classes in them, COCO categories: "id" is the pixel value. The pixels of those with
            "isthing" 1 are void unless an object covers them.
        background: instead of label images, a class for all pixels without an object.
        ignored: pixel values that become void, besides classes of `stuff`.
        overlap: a name of `OVERLAP_RULES`.
        on_bad: see `load_coco_json`.
        num_workers: processes, see `convert_all`.
        overwrite: replace what is there.

    Categories keep their ids; if a thing has the id of a stuff class, or one is 0, all stuff classes move
    behind the last thing. Segment ids count from 1 in each image. An object that others hide completely is
    left out.

    Raises:
        InputError: bad annotations, an object without a mask, label images that are missing, of another size
            or with unknown values, outputs that exist.
    """
    _check_arguments(semantic_root, stuff, background, overlap)
    inputs = (instance_json, *([semantic_root] if semantic_root is not None else []))
    output_json = claim_file(output_json, inputs=inputs, overwrite=overwrite)
    kept: list[dict[str, Any]] = []
    records, things = read_records(
        instance_json, None, prepare_images=kept.extend, extra_annotation_keys=("id",), on_bad=on_bad
    )
    output_root = claim_folder(output_root, inputs=inputs, overwrite=overwrite)
    if background is not None:
        stuff = [{"id": 0, "name": background}]
    categories, stuff_ids = _join_categories(instance_json, things, stuff)
    rules = _Rules(
        overlap=overlap,
        stuff_ids={} if background is not None else stuff_ids,
        ignored=[*ignored, *(entry["id"] for entry in stuff if entry.get("isthing"))],
        background_id=stuff_ids[0] if background is not None else None,
    )
    pngs = png_names([record["file_name"] for record in records], instance_json)
    tasks = [_Image(record, png) for record, png in zip(records, pngs, strict=True)]
    paint = partial(
        _paint_image,
        source=str(instance_json),
        semantic_root=None if semantic_root is None else Path(semantic_root),
        output_root=output_root,
        rules=rules,
    )
    total = np.zeros(len(_Counts._fields), dtype=np.int64)
    with write_coco_json(output_json, kept, categories) as add:
        for annotation, counts in convert_all(paint, tasks, num_workers=num_workers):
            add(annotation)
            total += counts
    _log_summary(output_json, len(tasks), _Counts(*total.tolist()), overlap)


def _check_arguments(
    semantic_root: str | Path | None, stuff: Sequence[dict[str, Any]], background: str | None, overlap: str
) -> None:
    if overlap not in OVERLAP_RULES:
        raise InputError(f"overlap is {overlap!r}; allowed are {', '.join(OVERLAP_RULES)}")
    if background is not None and (semantic_root is not None or stuff):
        raise InputError(
            f"background {background!r} takes all pixels without an object, and label images are given too;"
            " give one of the two"
        )
    if semantic_root is not None and not Path(semantic_root).is_dir():
        raise InputError(f"{semantic_root}: the folder of label images does not exist; correct the path")
    if (semantic_root is None) != (not stuff):
        raise InputError(
            "label images and the classes in them belong together (--semantic-root FOLDER --stuff 1=sky"
            " 2=grass ...); one of the two is missing"
        )


def _join_categories(
    json_file: str | Path, things: Sequence[dict[str, Any]], stuff: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """The categories of the panoptic file, and pixel value -> category id of stuff."""
    if stuff:
        check_categories("stuff classes", list(stuff))
    stuff = [entry for entry in stuff if not entry.get("isthing")]
    thing_ids, thing_names = {c["id"] for c in things}, {c["name"] for c in things}
    for entry in stuff:
        if entry["name"] in thing_names:
            raise InputError(
                f"{json_file}: {entry['name']!r} is a thing there, and given as stuff with pixel value"
                f' {entry["id"]}; leave it out of stuff (and ignore that value), or mark it "isthing": 1'
            )
    # 0 is left to Detectron2's label "things"
    is_taken = any(entry["id"] in thing_ids or entry["id"] == 0 for entry in stuff)
    shift = max(thing_ids) + 1 if is_taken else None
    stuff_ids = {
        entry["id"]: entry["id"] if shift is None else shift + index for index, entry in enumerate(stuff)
    }
    if shift is not None:
        ids = ", ".join(f"{entry['name']} {stuff_ids[entry['id']]}" for entry in stuff)
        logger.info("category ids of stuff: %s", ids)
    moved = [{**entry, "id": stuff_ids[entry["id"]]} for entry in stuff]
    return (
        [
            {**category, "isthing": int(index < len(things)), "color": _color(category, index)}
            for index, category in enumerate([*things, *moved])
        ],
        stuff_ids,
    )


def _color(category: dict[str, Any], index: int) -> list[int]:
    return category.get("color") or list(distinct_color(index))


def _paint_image(
    image: _Image, *, source: str, semantic_root: Path | None, output_root: Path, rules: _Rules
) -> tuple[dict[str, Any], _Counts]:
    """Write the PNG of one image; its panoptic annotation, and what to count."""
    record = image.record
    objects = record["annotations"]
    segment_map, contested = _paint_objects(source, record, rules.overlap)
    categories = [entry["category_id"] for entry in objects]
    if rules.background_id is not None:
        segment_map[segment_map == 0] = FIRST_SEGMENT + len(categories)
        categories.append(rules.background_id)
    elif semantic_root is not None:
        size = (record["height"], record["width"])
        labels_file = semantic_root / image.png
        labels = read_semantic_labels(labels_file, size)
        categories += _paint_stuff(labels_file, labels, segment_map, len(objects), rules)

    areas, boxes = areas_and_boxes_xywh(segment_map, len(categories))
    shown = np.flatnonzero(areas)
    ids = np.zeros(FIRST_SEGMENT + len(categories), dtype=np.int32)
    ids[FIRST_SEGMENT + shown] = np.arange(1, len(shown) + 1)
    path = output_root / image.png
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segment_ids(path, ids[segment_map])
    segments = [
        {
            "id": int(ids[FIRST_SEGMENT + position]),
            "category_id": categories[position],
            "iscrowd": objects[position]["iscrowd"] if position < len(objects) else 0,
            "area": areas[position],
            "bbox": boxes[position],
        }
        for position in shown.tolist()
    ]
    num_things = int((shown < len(objects)).sum())
    annotation = {"image_id": record["image_id"], "file_name": image.png, "segments_info": segments}
    return annotation, _Counts(
        things=num_things,
        stuff=len(shown) - num_things,
        hidden=len(objects) - num_things,
        contested=contested,
        void=segment_map.size - sum(areas),
        pixels=segment_map.size,
    )


def _paint_objects(source: str, record: dict[str, Any], overlap: str) -> tuple[np.ndarray, int]:
    """The segment map (H, W) of an image's objects, and how many pixels more than one of them claims."""
    objects, height, width = record["annotations"], record["height"], record["width"]
    rles = []
    for entry in objects:
        if "segmentation" not in entry:
            raise InputError(
                f"{source}: annotation {entry.get('id')!r} of image {record['image_id']!r} has no"
                ' "segmentation"; a panoptic file needs the mask of each object'
            )
        rles.append(_to_rle(entry["segmentation"], height, width))
    areas = [int(mask_util.area(rle)) for rle in rles]  # for a list of 256 and more, pycocotools fails
    segment_map = np.zeros((height, width), dtype=np.int32, order="F")  # as pycocotools' masks lie
    contested = np.zeros((height, width), dtype=bool, order="F")
    for position in _back_to_front([entry["iscrowd"] for entry in objects], areas, overlap):
        mask = mask_util.decode(rles[position]) != 0
        contested |= mask & (segment_map != 0)
        segment_map[mask] = FIRST_SEGMENT + position
    return segment_map, int(contested.sum())


def _to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The RLE of polygons, or the compressed RLE that it is already."""
    if isinstance(segmentation, dict):
        return segmentation
    return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))


def _back_to_front(crowds: Sequence[int], areas: Sequence[int], overlap: str) -> list[int]:
    """Positions of the objects, the last in front. Of equal size, the later one is in front."""
    order = range(len(crowds))
    if overlap == "smaller":
        return sorted(order, key=lambda i: (-crowds[i], -areas[i]))
    return sorted(order, key=lambda i: (-crowds[i], i if overlap == "later" else -i))


def _paint_stuff(
    path: Path, labels: np.ndarray, segment_map: np.ndarray, num_objects: int, rules: _Rules
) -> list[int]:
    """Fill the free pixels of a segment map, in place, with stuff; the category ids of the new segments."""
    free = segment_map == 0
    values, inverse = np.unique(labels[free], return_inverse=True)
    targets = np.zeros(len(values), dtype=np.int32)
    categories: list[int] = []
    for index, value in enumerate(values.tolist()):
        if value in rules.stuff_ids:
            targets[index] = FIRST_SEGMENT + num_objects + len(categories)
            categories.append(rules.stuff_ids[value])
        elif value not in rules.ignored:
            known = ", ".join(map(str, rules.stuff_ids))
            raise InputError(
                f"{path}: {int((labels[free] == value).sum())} pixels outside of all objects have the value"
                f" {value}; stuff has {known}, and {', '.join(map(str, rules.ignored)) or 'no value'} is"
                f" ignored; name the class by --stuff {value}=NAME, or make it void by --ignore"
            )
    segment_map[free] = targets[inverse.reshape(-1)]
    return categories


def _log_summary(path: Path, num_images: int, counts: _Counts, overlap: str) -> None:
    logger.info(
        "%s: %d images, %d things, %d stuff segments; %.2f %% of the pixels are void",
        *(path, num_images, counts.things, counts.stuff, 100 * counts.void / max(counts.pixels, 1)),
    )
    if counts.contested:
        logger.info(
            "%.2f %% of the pixels are claimed by more than one object: %s",
            *(100 * counts.contested / counts.pixels, OVERLAP_RULES[overlap]),
        )
    if counts.hidden:
        logger.warning(
            "%d objects have no pixel of their own and are left out: others hide them, or they are too thin",
            counts.hidden,
        )
