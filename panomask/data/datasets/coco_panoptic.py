"""Reader of COCO's panoptic format (Kirillov et al., CVPR 2019): a JSON file and a folder of PNG files.

One registration serves everything: things, stuff, contiguous ids, objects, masks and semantic labels are
derived from them, masks and labels when an image is read. Detectron2's registrations, which need converted
files, are served as well.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.coco_categories import top_level_list
from panomask.data.datasets.panoptic_annotations import FolderFiles, add_segments, open_png_folder
from panomask.data.datasets.panoptic_categories import (
    LABEL_DIVISOR,
    THINGS_LABEL,
    SegmentClass,
    classes_of_metadata,
    ensure_panoptic_metadata,
    read_panoptic_categories,
    set_panoptic_metadata,
)
from panomask.data.datasets.panoptic_reading import load_panoptic, read_panoptic_records
from panomask.data.datasets.sem_seg import load_sem_seg
from panomask.errors import InputError
from panomask.json_file import collection_paused, read_json
from panomask.semantic_png import IGNORE_LABEL

__all__ = [
    "ensure_panoptic_metadata",
    "load_coco_panoptic_json",
    "load_panoptic",
    "merge_to_panoptic",
    "read_panoptic_categories",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_panoptic",
]

Record = dict[str, Any]


def register_panoptic(
    name: str,
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    on_bad: str = "refuse",
) -> None:
    """Register a panoptic data set under `name`; nothing is read before the set is first used.

    Args:
        panoptic_json, panoptic_root, image_root, on_bad: see `load_panoptic`.
        metadata: extra fields of `MetadataCatalog.get(name)`. Classes come from the file: give none.
    """
    fields: dict[str, Any] = {
        "evaluator_type": "coco_panoptic_seg",
        "ignore_label": IGNORE_LABEL,
        "label_divisor": LABEL_DIVISOR,
        "sem_seg_things_label": THINGS_LABEL,
        **({"on_bad_annotation": "drop"} if on_bad == "drop" else {}),
        **(metadata or {}),
    }
    paths = {"panoptic_json": panoptic_json, "panoptic_root": panoptic_root, "image_root": image_root}
    load = partial(
        load_panoptic, str(panoptic_json), str(panoptic_root), str(image_root), name, on_bad=on_bad
    )
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**{key: str(path) for key, path in paths.items()}, **fields)


@collection_paused()
def load_coco_panoptic_json(
    json_file: str | Path, image_dir: str | Path, gt_dir: str | Path, meta: Mapping[str, Any]
) -> list[Record]:
    """Read a panoptic file as Detectron2 does: the classes are those of `meta`, the order that of the file.

    Args:
        json_file: as of `load_panoptic`, but for the lists "images" and "categories", which may be missing.
        image_dir: folder of the images. An image is named like its PNG, with the ending .jpg; if there is no
            such file, as "images" says.
        gt_dir: folder of the PNG files.
        meta: with thing_dataset_id_to_contiguous_id and stuff_dataset_id_to_contiguous_id.

    Returns:
        dicts with file_name, image_id, pan_seg_file_name and segments_info: what the file says of each
        segment, with its contiguous category_id and isthing. There are no annotations.

    Raises:
        InputError: as of `load_panoptic`; or a segment's category is not in `meta`.
    """
    document = read_json(json_file)
    annotations = top_level_list(json_file, document, "annotations")
    images = document.get("images")
    records = _records_by_png(annotations, images if isinstance(images, list) else [], image_dir)
    problems = AnnotationProblems(json_file, "refuse")
    classes = classes_of_metadata(meta, _category_ids(document))
    add_segments(records, annotations, classes, open_png_folder(json_file, gt_dir), problems, keep_keys=True)
    for record in records.values():
        del record["annotations"]
    if not records:
        raise InputError(f'{json_file}: "annotations" is empty; there is nothing to read')
    return list(records.values())


def _category_ids(document: Mapping[str, Any]) -> set[int] | None:
    """Those that the file lists; None if it lists none."""
    categories = document.get("categories")
    if not isinstance(categories, list):
        return None
    ids = [category.get("id") for category in categories if isinstance(category, dict)]
    return {id_ for id_ in ids if isinstance(id_, int)}


def _records_by_png(annotations: list[Any], images: list[Any], image_dir: str | Path) -> dict[Any, Record]:
    """Image id -> dict with file_name and image_id for each annotation, by Detectron2's rule for both.

    Ids become integers where they can, in place.
    """
    folder = FolderFiles(image_dir)
    named = {str(i["id"]): i.get("file_name") for i in images if isinstance(i, dict) and "id" in i}
    records: dict[Any, Record] = {}
    for annotation in annotations:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("image_id"), (int, str)):
            continue  # refused later, by a message that names it
        image_id = annotation["image_id"]
        name = os.path.splitext(str(annotation.get("file_name")))[0] + ".jpg"
        if name not in folder:
            listed = named.get(str(image_id))
            name = listed if isinstance(listed, str) and listed else name
        if str(image_id).isdecimal():
            image_id = annotation["image_id"] = int(image_id)
        file_name = os.path.join(image_dir, name)
        records.setdefault(image_id, {"file_name": file_name, "image_id": image_id})
    return records


def register_coco_panoptic(
    name: str,
    metadata: Mapping[str, Any],
    image_root: str | Path,
    panoptic_root: str | Path,
    panoptic_json: str | Path,
    instances_json: str | Path | None = None,
) -> None:
    """Register a panoptic data set as Detectron2 does, for models with one list of classes.

    Its dicts are those of `load_coco_panoptic_json`. `register_panoptic` serves every model, and needs no
    metadata.

    Args:
        metadata: with thing_classes, stuff_classes and the two maps of ids.
        image_root, panoptic_root, panoptic_json: see `load_coco_panoptic_json`.
        instances_json: file of instances, which box and mask AP are computed against.
    """
    metadata = dict(metadata)
    paths = {"panoptic_root": panoptic_root, "image_root": image_root, "panoptic_json": panoptic_json}
    load = partial(load_coco_panoptic_json, str(panoptic_json), str(image_root), str(panoptic_root), metadata)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        **{key: str(path) for key, path in paths.items()},
        **({} if instances_json is None else {"json_file": str(instances_json)}),
        **{
            "evaluator_type": "coco_panoptic_seg",
            "ignore_label": IGNORE_LABEL,
            "label_divisor": LABEL_DIVISOR,
            **metadata,
        },
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: Mapping[str, Any],
    image_root: str | Path,
    panoptic_root: str | Path,
    panoptic_json: str | Path,
    sem_seg_root: str | Path | None = None,
    instances_json: str | Path | None = None,
) -> None:
    """Register NAME_separated, for Panoptic FPN, and NAME_stuffonly, for semantic models, as Detectron2 does.

    Args:
        metadata: may be empty; the classes then come from the panoptic file.
        image_root, panoptic_root, panoptic_json: see `load_panoptic`.
        sem_seg_root: folder of converted label PNG files, named like the images. If it is None, or while it
            does not exist, labels are derived from the panoptic PNG files and the metadata have None.
        instances_json: file of instances. If it is None, objects are derived from the panoptic PNG files.
    """
    paths = {
        "panoptic_root": panoptic_root,
        "image_root": image_root,
        "panoptic_json": panoptic_json,
        "json_file": instances_json,
    }
    given = {key: str(path) for key, path in paths.items() if path is not None}
    fields = {"ignore_label": IGNORE_LABEL, "sem_seg_things_label": THINGS_LABEL, **metadata}
    DatasetCatalog.register(f"{name}_separated", partial(load_separated, f"{name}_separated"))
    DatasetCatalog.register(f"{name}_stuffonly", partial(load_stuffonly, f"{name}_stuffonly"))
    for each in (f"{name}_separated", f"{name}_stuffonly"):
        MetadataCatalog.provide(each, partial(_find_label_folder, sem_seg_root))
    MetadataCatalog.get(f"{name}_separated").set(
        **given, **{"evaluator_type": "coco_panoptic_seg", "label_divisor": LABEL_DIVISOR, **fields}
    )
    given.pop("json_file", None)
    MetadataCatalog.get(f"{name}_stuffonly").set(**given, **{"evaluator_type": "sem_seg", **fields})


def load_separated(name: str, *, on_bad: str = "refuse") -> list[Record]:
    """Load a set that `register_coco_panoptic_separated` has registered as `name`, from its metadata.

    Returns:
        dicts of `load_panoptic`. If there is a file of instances, objects are those of `load_coco_json`; if
        there are label PNG files, dicts have sem_seg_file_name. With both they are Detectron2's: without
        pan_seg_file_name and segments_info.

    Raises:
        InputError: as of the readers; or an image has objects but no labels.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") is None:
        records = _load_segments(metadata, on_bad)
        if metadata.get("sem_seg_root") is None:
            return records
    else:
        records = load_coco_json(metadata.json_file, metadata.image_root, name, on_bad=on_bad)
    return merge_to_panoptic(records, load_stuffonly(name, on_bad=on_bad))


def merge_to_panoptic(detection_dicts: list[Record], sem_seg_dicts: list[Record]) -> list[Record]:
    """Detection dicts, each with the fields of the semantic dict of the same file_name.

    Raises:
        InputError: an image with objects has no labels.
    """
    by_file = {record["file_name"]: record for record in sem_seg_dicts}
    for record in detection_dicts:
        if record["file_name"] not in by_file:
            raise InputError(
                f"{record['file_name']}: has objects, but no semantic labels among those of"
                f" {len(by_file)} images; add them, or take the image out of the file of instances"
            )
    return [{**record, **by_file[record["file_name"]]} for record in detection_dicts]


def load_stuffonly(name: str, *, on_bad: str = "refuse") -> list[Record]:
    """Load NAME_stuffonly of `register_coco_panoptic_separated`, from its metadata.

    Returns:
        dicts with file_name and sem_seg_file_name; without label PNG files those of `load_panoptic`, but for
        annotations.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("sem_seg_root") is not None:
        if metadata.get("stuff_classes") is None:
            ensure_panoptic_metadata(name)
        return load_sem_seg(metadata.sem_seg_root, metadata.image_root)
    records = _load_segments(metadata, on_bad)
    return [{key: value for key, value in record.items() if key != "annotations"} for record in records]


def _find_label_folder(folder: str | Path | None) -> dict[str, str | None]:
    return {"sem_seg_root": None if folder is None or not os.path.isdir(folder) else str(folder)}


def _load_segments(metadata: Metadata, on_bad: str) -> list[Record]:
    """The dicts of `load_panoptic` by the classes of the metadata, or by those of the file if it has none."""

    def classes_of(categories: list[Record]) -> dict[int, SegmentClass]:
        if metadata.get("stuff_dataset_id_to_contiguous_id") is None:
            return set_panoptic_metadata(metadata, metadata.panoptic_json, categories)
        return classes_of_metadata(metadata.as_dict(), {category["id"] for category in categories})

    return read_panoptic_records(
        metadata.panoptic_json,
        metadata.panoptic_root,
        metadata.image_root,
        classes_of=classes_of,
        on_bad=on_bad,
    )
