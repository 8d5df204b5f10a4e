"""A registered data set of any origin as COCO annotations, so that pycocotools can score it."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation.coco_masks import to_rle
from panomask.json_file import write_json
from panomask.structures import BoxMode
from panomask.structures.panoptic_record import (
    has_masks_in_png,
    has_segments,
    objects_of_segments,
    read_segment_map,
)

logger = logging.getLogger(__name__)

KEYPOINT_OFFSET = 0.5
"""COCO's keypoints are pixel indices; a dataset dict's are the continuous coordinates of pixel centres."""


def convert_to_coco_json(
    dataset_name: str, output_file: str | os.PathLike, allow_cached: bool = True
) -> None:
    """Write a registered data set as a COCO annotation file.

    Args:
        dataset_name: as registered in the dataset catalog; its metadata needs `thing_classes`.
        output_file: written whole or not at all.
        allow_cached: keep a file that is already there, even if the data set has changed since.
    """
    output_file = Path(output_file)
    if allow_cached and output_file.is_file():
        logger.warning("Using %s as it is; remove it if %s has changed since", output_file, dataset_name)
        return
    write_json(output_file, convert_to_coco_dict(dataset_name))
    logger.info("Wrote %s in COCO format to %s", dataset_name, output_file)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """The dataset dicts of a registered data set as the content of a COCO annotation file.

    Categories get the ids of the metadata's `thing_dataset_id_to_contiguous_id` if there is one, else 0..K-1.
    `area` is the annotation's, else the mask's, else the box's; polygons and RLE stay what they are. An
    annotation that names a segment (`segment_id`) and has no mask gets mask, box and area from the panoptic
    PNG; one PNG is in memory at a time.

    Raises:
        InputError: no `thing_classes` in the metadata, a dict without what COCO needs, two of one `image_id`,
            a panoptic PNG that cannot be read or does not fit `segments_info`.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("thing_classes") is None and dataset_name in DatasetCatalog:
        DatasetCatalog.get(dataset_name)  # readers take the names from the files
    names = metadata.get("thing_classes")
    if not names:
        raise InputError(
            f"data set {dataset_name!r}: its metadata has no class names;"
            f" set MetadataCatalog.get({dataset_name!r}).thing_classes"
        )
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {k: k for k in range(len(names))}
    to_dataset_id = {contiguous: dataset_id for dataset_id, contiguous in to_contiguous.items()}
    dicts: Sequence[dict[str, Any]] = DatasetCatalog.get(dataset_name)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: set[Any] = set()
    for index, record in enumerate(dicts):
        where = f"data set {dataset_name!r}, entry {index} ({record.get('file_name')})"
        objects = record.get("annotations")
        if has_masks_in_png(record) or (has_segments(record) and objects is None):
            segment_map = read_segment_map(record, on_bad=metadata.get("on_bad_annotation"))
            objects = objects_of_segments(record, segment_map)
            record = {"height": segment_map.shape[0], "width": segment_map.shape[1], **record}
        image = _coco_image(record, index, where)
        if image["id"] in ids:
            raise InputError(f"{where}: image_id {image['id']!r} is that of an earlier entry; make it unique")
        ids.add(image["id"])
        images.append(image)
        for annotation in objects or ():
            number = len(annotations) + 1
            annotations.append({"id": number, **_coco_annotation(annotation, image, to_dataset_id, where)})
    return {
        "info": {"description": f"{dataset_name}, converted by panomask"},
        "images": images,
        "annotations": annotations,
        "categories": _coco_categories(metadata, names, to_dataset_id, annotations),
    }


def _coco_categories(
    metadata: Metadata, names: Sequence[str], to_dataset_id: dict[int, int], annotations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Categories; those whose objects have keypoints also declare them, as COCO's `person` does."""
    keypoint_names = list(metadata.get("keypoint_names") or ())
    declared: dict[str, Any] = {}
    if keypoint_names:
        rules = metadata.get("keypoint_connection_rules") or ()
        joined = [rule[:2] for rule in rules if set(rule[:2]) <= set(keypoint_names)]
        edges = [[keypoint_names.index(name) + 1 for name in pair] for pair in joined]
        declared = {"keypoints": keypoint_names, "skeleton": edges}
    if keypoint_names and metadata.get("keypoint_oks_sigmas"):
        declared["sigmas"] = list(metadata.get("keypoint_oks_sigmas"))
    with_keypoints = {a["category_id"] for a in annotations if "keypoints" in a}
    categories = [{"id": id_, "name": names[k]} for k, id_ in sorted(to_dataset_id.items())]
    return [c | (declared if c["id"] in with_keypoints else {}) for c in categories]


def _coco_image(record: dict[str, Any], index: int, where: str) -> dict[str, Any]:
    missing = [key for key in ("file_name", "height", "width") if record.get(key) is None]
    if missing:
        raise InputError(f"{where}: lacks {', '.join(map(repr, missing))}, which evaluation needs")
    return {
        "id": record.get("image_id", index),
        "file_name": str(record["file_name"]),
        "height": int(record["height"]),
        "width": int(record["width"]),
    }


def _coco_annotation(
    annotation: dict[str, Any], image: dict[str, Any], to_dataset_id: dict[int, int], where: str
) -> dict[str, Any]:
    category = annotation["category_id"]
    if category not in to_dataset_id:
        raise InputError(f"{where}: category_id {category}; the metadata has 0 to {len(to_dataset_id) - 1}")
    box = BoxMode.convert(_as_floats(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
    converted: dict[str, Any] = {
        "image_id": image["id"],
        "category_id": to_dataset_id[category],
        "bbox": list(box),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    segmentation = _as_json(annotation.get("segmentation"))
    try:
        rle = to_rle(segmentation, image["height"], image["width"])
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if "area" in annotation:
        converted["area"] = annotation["area"]
    else:
        converted["area"] = box[2] * box[3] if rle is None else float(mask_util.area(rle))
    if segmentation:
        converted["segmentation"] = segmentation
    if annotation.get("keypoints") is not None and len(annotation["keypoints"]):
        keypoints = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
        keypoints[:, :2] -= KEYPOINT_OFFSET
        converted["keypoints"] = keypoints.reshape(-1).tolist()
        converted["num_keypoints"] = int((keypoints[:, 2] > 0).sum())
    return converted


def _as_floats(box: Sequence[Any] | np.ndarray) -> list[float]:
    return [float(number) for number in box]


def _as_json(segmentation: Any) -> Any:
    """Polygons as lists (they may be arrays in memory), RLE counts as text, an (H, W) mask as RLE."""
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        segmentation = mask_util.encode(np.asfortranarray(segmentation, dtype=np.uint8))
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        return {"size": [int(side) for side in segmentation["size"]], "counts": text}
    return [_as_floats(polygon) for polygon in segmentation or []]
