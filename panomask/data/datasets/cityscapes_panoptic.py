"""Cityscapes' panoptic segments: a JSON file and PNG files in COCO's format beside the folders of cities.

gtFine/cityscapes_panoptic_train.json      as cityscapesscripts' createPanopticImgs writes it
gtFine/cityscapes_panoptic_train/*.png     or tools/convert_panoptic.py from-cityscapes
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import Metadata
from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.builtin_meta import _get_builtin_metadata
from panomask.data.datasets.builtin_registration import Root, register_builtin
from panomask.data.datasets.cityscapes import IMAGE_SUFFIX
from panomask.data.datasets.cityscapes_labels import CITYSCAPES_LABELS
from panomask.data.datasets.coco_categories import top_level_list
from panomask.data.datasets.panoptic_annotations import FolderFiles, add_segments, open_png_folder
from panomask.data.datasets.panoptic_categories import (
    LABEL_DIVISOR,
    THINGS_LABEL,
    classes_of_metadata,
)
from panomask.errors import InputError
from panomask.json_file import read_json
from panomask.semantic_png import IGNORE_LABEL

__all__ = [
    "get_cityscapes_panoptic_files",
    "load_cityscapes_panoptic",
    "register_all_cityscapes_panoptic",
]

Record = dict[str, Any]

_SPLITS = ("train", "val")


def register_all_cityscapes_panoptic(root: Root = None) -> None:
    """Register cityscapes_fine_panoptic_{train,val}, with things and stuff in one list of 19 classes.

    And the same as ..._separated for Panoptic FPN, which is not in Detectron2: 8 things, and "things" and 11
    stuff classes as semantic labels.
    """
    for split in _SPLITS:
        panoptic = f"cityscapes/gtFine/cityscapes_panoptic_{split}"
        paths = {
            "image_root": f"cityscapes/leftImg8bit/{split}",
            "panoptic_root": panoptic,
            "panoptic_json": f"{panoptic}.json",
        }
        register = partial(
            register_builtin,
            root=root,
            needs=(paths["image_root"], paths["panoptic_json"], paths["panoptic_root"]),
            download="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from"
            " https://www.cityscapes-dataset.com/downloads (the panoptic files: of `tools/convert_panoptic.py"
            f" from-cityscapes cityscapes/gtFine/{split}`)",
        )
        labels = {"ignore_label": IGNORE_LABEL, "label_divisor": LABEL_DIVISOR}
        register(
            f"cityscapes_fine_panoptic_{split}",
            _load,
            paths={**paths, "gt_dir": f"cityscapes/gtFine/{split}"},
            metadata={
                "evaluator_type": "cityscapes_panoptic_seg",
                **labels,
                **_get_builtin_metadata("cityscapes_panoptic"),
            },
        )
        register(
            f"cityscapes_fine_panoptic_{split}_separated",
            _load_separated,
            paths=paths,
            metadata={
                "evaluator_type": "coco_panoptic_seg",
                "sem_seg_things_label": THINGS_LABEL,
                **labels,
                **_get_builtin_metadata("cityscapes_panoptic_separated"),
            },
        )


def _load(name: str, metadata: Metadata) -> list[Record]:
    return load_cityscapes_panoptic(
        metadata.image_root, metadata.panoptic_root, metadata.panoptic_json, metadata.as_dict()
    )


def _load_separated(name: str, metadata: Metadata) -> list[Record]:
    return _read_records(
        metadata.image_root, metadata.panoptic_root, metadata.panoptic_json, metadata.as_dict()
    )


def load_cityscapes_panoptic(
    image_dir: str | Path, gt_dir: str | Path, gt_json: str | Path, meta: Mapping[str, Any]
) -> list[Record]:
    """Read Cityscapes' panoptic segments into dataset dicts, in the order of the file.

    Args:
        image_dir: as "cityscapes/leftImg8bit/train".
        gt_dir: as "cityscapes/gtFine/cityscapes_panoptic_train".
        gt_json: as "cityscapes/gtFine/cityscapes_panoptic_train.json".
        meta: with thing_dataset_id_to_contiguous_id and stuff_dataset_id_to_contiguous_id.

    Returns:
        dicts with file_name, image_id ("aachen_000000_000019"), pan_seg_file_name, segments_info (category_id
        by `meta`, isthing) and sem_seg_file_name where `*_labelTrainIds.png` exists.

    Raises:
        InputError: a missing image or file, or an entry that is wrong.
    """
    records = _read_records(image_dir, gt_dir, gt_json, meta)
    label_root = Path(gt_dir).parent / Path(image_dir).name
    labels = FolderFiles(label_root)
    for record in records:
        del record["annotations"]
        city = Path(record["file_name"]).parent.name
        name = os.path.join(city, f"{record['image_id']}_gtFine_labelTrainIds.png")
        if name in labels:
            record["sem_seg_file_name"] = os.path.join(label_root, name)
    return records


def _read_records(
    image_dir: str | Path, gt_dir: str | Path, gt_json: str | Path, meta: Mapping[str, Any]
) -> list[Record]:
    """See `load_cityscapes_panoptic`; with annotations, each of a thing's segment, and no label files."""
    document = read_json(gt_json)
    annotations = top_level_list(gt_json, document, "annotations")
    _refuse_train_ids(gt_json, document)
    images = _find_images(image_dir)
    records: dict[Any, Record] = {}
    for position, annotation in enumerate(annotations):
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(image_id, str) or image_id not in images:
            raise InputError(
                f"{gt_json}: annotation number {position} (counted from 0): image_id {image_id!r:.80} has no"
                f" image <city>/{image_id}_{IMAGE_SUFFIX} in {image_dir}; unpack leftImg8bit to it"
            )
        records.setdefault(image_id, {"file_name": images[image_id], "image_id": image_id})
    add_segments(
        records,
        annotations,
        classes_of_metadata(meta, None),
        open_png_folder(gt_json, gt_dir),
        AnnotationProblems(gt_json, "refuse"),
        keep_keys=True,
    )
    return list(records.values())


def get_cityscapes_panoptic_files(
    image_dir: str | Path, gt_dir: str | Path, json_info: Mapping[str, Any]
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(image file, PNG file, segments_info of the file) for each annotation of a parsed JSON file.

    Raises:
        InputError: an image is missing.
    """
    images = _find_images(image_dir)
    files = []
    for annotation in json_info["annotations"]:
        image_id = annotation["image_id"]
        if image_id not in images:
            raise InputError(
                f"{image_dir}: no image <city>/{image_id}_{IMAGE_SUFFIX}; unpack leftImg8bit to it"
            )
        label_file = os.path.join(gt_dir, annotation["file_name"])
        files.append((images[image_id], label_file, annotation["segments_info"]))
    return files


def _find_images(image_dir: str | Path) -> dict[str, str]:
    """Image id -> file, of the images of all cities."""
    ending = f"_{IMAGE_SUFFIX}"
    if not os.path.isdir(image_dir):
        raise InputError(
            f"{image_dir}: folder does not exist; it holds one folder for each city of Cityscapes"
        )
    return {
        path.name.removesuffix(ending): str(path) for path in sorted(Path(image_dir).glob(f"*/*{ending}"))
    }


def _refuse_train_ids(gt_json: str | Path, document: Mapping[str, Any]) -> None:
    """InputError for a file whose category ids are not those of Cityscapes' labels."""
    ids = {label.name: label.id for label in CITYSCAPES_LABELS}
    categories = document.get("categories")
    for category in categories if isinstance(categories, list) else ():
        name = category.get("name") if isinstance(category, dict) else None
        if name in ids and category.get("id") != ids[name]:
            raise InputError(
                f"{gt_json}: category {name!r} has id {category.get('id')!r:.80}, but Cityscapes' label id is"
                f" {ids[name]}; make the file without --use-train-id"
            )
