"""Reader of COCO's instance and keypoint annotation files."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.coco_annotations import BadAnnotation, convert_annotation
from panomask.data.datasets.coco_categories import (
    add_keypoint_metadata,
    check_categories,
    is_name_list,
    read_coco_categories,
    read_json,
    top_level_list,
)
from panomask.data.datasets.coco_images import read_images, sort_by_id
from panomask.data.datasets.sem_seg import load_sem_seg
from panomask.data.log_once import log_once
from panomask.errors import InputError
from panomask.json_file import collection_paused

__all__ = ["load_coco_json", "load_sem_seg", "read_coco_categories", "register_coco_instances"]

logger = logging.getLogger(__name__)


def register_coco_instances(
    name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path, on_bad: str = "refuse"
) -> None:
    """Register a data set in COCO's format under `name`; nothing is read before the set is first used.

    Args:
        metadata: extra fields of `MetadataCatalog.get(name)`, may be empty.
        json_file, image_root, on_bad: see `load_coco_json`.
    """
    load = partial(load_coco_json, str(json_file), str(image_root), name, on_bad=on_bad)
    if on_bad == "drop":  # the truth is then what the reader kept, `area` included, and not the file
        load = partial(load, extra_annotation_keys=("area",))
        metadata = {"on_bad_annotation": "drop", **metadata}
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="coco", **metadata
    )


def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
    on_bad: str = "refuse",
    *,
    require_annotations: bool = True,
) -> list[dict[str, Any]]:
    """Read a COCO file into dataset dicts, sorted by image id; images without objects are kept.

    Args:
        json_file: object with the lists "images", "annotations" and "categories".
        image_root: folder that "file_name" of each image is joined to. An absolute "file_name", or one that
            leaves the folder by "..", is followed. The images are not opened here.
        dataset_name: when given, the set's metadata receive the classes (`set_coco_metadata`) and category
            ids become 0..K-1 in the order of the file's ids; when None, ids stay as in the file.
        extra_annotation_keys: copied from each annotation that has them, unchecked.
        on_bad: "refuse" stops at the first bad annotation; "drop" leaves bad annotations out (and bad
            polygons of an object that also has good ones) and logs one line that counts them. A file, image
            or category entry that is wrong is always refused.
        require_annotations: False accepts a file without "annotations", as COCO has for its test images.

    Returns:
        dicts with file_name, height, width, image_id and annotations, each as `convert_annotation` says.

    Raises:
        InputError: one line that names the file, the entry, what is wrong and what is allowed.

    The file is parsed at once (COCO train2017: 860k annotations in 450 MB), but annotations are converted one
    by one and each is freed as it goes, so a parser that streams them could take the place of `json`.
    """
    records, categories = read_records(
        json_file,
        image_root,
        extra_annotation_keys=extra_annotation_keys,
        on_bad=on_bad,
        require_annotations=require_annotations,
    )
    if dataset_name is not None:
        _map_category_ids(
            records, set_coco_metadata(MetadataCatalog.get(dataset_name), json_file, categories)
        )
    return records


@collection_paused()
def read_records(
    json_file: str | Path,
    image_root: str | Path | None,
    *,
    prepare_images: Callable[[list[Any]], None] | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
    on_bad: str = "refuse",
    require_annotations: bool = True,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Dataset dicts and categories of a COCO file, both sorted by id; category ids as in the file.

    Args:
        prepare_images: called with the file's "images", unchecked, which it may change: for relatives of
            COCO's format.
        image_root: see `load_coco_json`; None leaves "file_name" as in the file and asks for no folder.
        json_file, extra_annotation_keys, on_bad, require_annotations: see `load_coco_json`.
    """
    start = perf_counter()
    problems = AnnotationProblems(json_file, on_bad)
    document = read_json(json_file)
    images = top_level_list(json_file, document, "images")
    if prepare_images is not None:
        prepare_images(images)
    categories = check_categories(json_file, top_level_list(json_file, document, "categories"))
    annotations: list[Any] = []
    if require_annotations or "annotations" in document:
        annotations = top_level_list(json_file, document, "annotations")
    _refuse_panoptic_file(json_file, annotations)
    del document

    records = read_images(json_file, images, None if image_root is None else Path(image_root))
    problems.total = len(annotations)
    _add_annotations(records, annotations, categories, extra_annotation_keys or (), problems)
    problems.log_summary()
    log_once(
        logger,
        ("read", str(json_file)),
        "%s: %d images, %d annotations, %d categories read in %.1f s",
        *(json_file, len(records), len(annotations), len(categories), perf_counter() - start),
    )
    return sort_by_id(json_file, records), categories


def _refuse_panoptic_file(json_file: str | Path, annotations: list[Any]) -> None:
    if annotations and isinstance(annotations[0], dict) and "segments_info" in annotations[0]:
        raise InputError(
            f"{json_file}: a COCO panoptic file, where a file of instances is needed; give the folder of its"
            " PNG files too (DATASETS.REGISTER.<name>.PANOPTIC_ROOT; register_panoptic in Python), or give"
            " the file of instances"
        )


def _map_category_ids(records: list[dict[str, Any]], id_map: dict[int, int]) -> None:
    """Replace each object's category id, in place."""
    for record in records:
        for instance in record["annotations"]:
            instance["category_id"] = id_map[instance["category_id"]]


def set_coco_metadata(
    metadata: Metadata, json_file: str | Path, categories: list[dict[str, Any]]
) -> dict[int, int]:
    """Put thing_classes, thing_dataset_id_to_contiguous_id and keypoint fields of the sorted `categories`.

    Keypoint fields that were registered by hand stay. Returns the map from the file's ids to 0..K-1.

    Raises:
        InputError: the set is known with other classes.
    """
    names = [category["name"] for category in categories]
    id_map = {category["id"]: index for index, category in enumerate(categories)}
    _refuse_conflict(metadata, json_file, "thing_classes", names)
    _refuse_conflict(metadata, json_file, "thing_dataset_id_to_contiguous_id", id_map)
    metadata.__dict__.update(thing_classes=names, thing_dataset_id_to_contiguous_id=id_map)
    add_keypoint_metadata(metadata, categories)
    return id_map


def _refuse_conflict(metadata: Metadata, json_file: str | Path, field: str, value: Any) -> None:
    known = metadata.get(field)
    if known is not None and type(value)(known) != value:
        raise InputError(
            f"{json_file}: its {len(value)} categories ({_brief(value)}) disagree with {field} of data"
            f" set {metadata.name!r}, {len(known)} of them ({_brief(known)}); register it under another name"
        )


def _brief(values: Any) -> str:
    items = [f"{k}: {v}" for k, v in values.items()] if isinstance(values, dict) else list(map(str, values))
    return ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")


def _add_annotations(
    records: dict[Any, dict[str, Any]],
    annotations: list[Any],
    categories: list[dict[str, Any]],
    extra_keys: Sequence[str],
    problems: AnnotationProblems,
) -> None:
    """Convert each annotation into its image's record. Empties the list as it goes, to free memory."""
    num_keypoints = {
        c["id"]: len(c["keypoints"]) if is_name_list(c.get("keypoints")) else None for c in categories
    }
    seen: set[Any] = set()

    def convert(annotation: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
        return convert_annotation(
            annotation,
            height=record["height"],
            width=record["width"],
            num_keypoints=num_keypoints[annotation["category_id"]],
            extra_keys=extra_keys,
        )

    for position, annotation in enumerate(annotations):
        annotations[position] = None
        try:
            record = _find_record(annotation, records, num_keypoints, seen)
            instance = convert(annotation, record)
        except BadAnnotation as bad:
            problems.add(_entry(annotation, position, records), bad)
            if not bad.rest:
                continue
            annotation["segmentation"] = bad.rest
            instance = convert(annotation, record)
        record["annotations"].append(instance)


def _find_record(
    annotation: Any, records: dict[Any, dict[str, Any]], known_categories: dict[int, Any], seen: set[Any]
) -> dict[str, Any]:
    """The record of the annotation's image, once its ids are found to be in order and new."""
    if not isinstance(annotation, dict):
        raise BadAnnotation(
            "not an object",
            f"{annotation!r:.80}",
            'an object with "id", "image_id", "category_id", ... is needed',
        )
    if "segments_info" in annotation:
        raise BadAnnotation("panoptic segments", "in a file of instances", "one of the two is needed")
    for key in ("id", "image_id", "category_id"):
        if not isinstance(annotation.get(key), (int, str)):
            raise BadAnnotation(
                f"no {key}", f'"{key}" is {annotation.get(key)!r:.80}', "a number or a text is needed"
            )
    id_, image_id, category_id = annotation["id"], annotation["image_id"], annotation["category_id"]
    if image_id not in records:
        example = f", such as {next(iter(records))!r}" if records else ", of which there is none"
        raise BadAnnotation(
            "unknown image_id", f"{image_id!r:.80}", f'allowed are the ids in "images"{example}'
        )
    if category_id not in known_categories:
        allowed = ", ".join(map(str, list(known_categories)[:100]))
        raise BadAnnotation(
            "unknown category_id", f"{category_id!r:.80}", f'allowed are the ids in "categories": {allowed}'
        )
    if id_ in seen:
        raise BadAnnotation(
            "annotation id used twice", f"{id_!r:.80}", "each annotation needs an id of its own"
        )
    seen.add(id_)
    return records[image_id]


def _entry(annotation: Any, position: int, records: dict[Any, dict[str, Any]]) -> str:
    """How a message names an annotation."""
    fields = annotation if isinstance(annotation, dict) else {}
    id_, image_id = fields.get("id"), fields.get("image_id")
    name = (
        f"annotation {id_!r:.80}"
        if isinstance(id_, (int, str))
        else f"annotation number {position} (counted from 0)"
    )
    if isinstance(image_id, (int, str)) and image_id in records:
        name += f" of image {image_id!r} ({repr(Path(records[image_id]['file_name']).name)[1:-1]})"
    return name
