"""Cityscapes' instance images as COCO panoptic files, named and numbered as createPanopticImgs does.

That script of cityscapesscripts writes beside `gtFine/train` the folder `gtFine/cityscapes_panoptic_train`
and the file `gtFine/cityscapes_panoptic_train.json`, where Detectron2's `cityscapes_fine_panoptic_train`
looks for them. Two things differ here: "file_name" of an image says where it is below `leftImg8bit/train`,
and a pixel that is no label of Cityscapes is an error.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from panomask.data.datasets.cityscapes import FIRST_INSTANCE_ID, IMAGE_SUFFIX
from panomask.data.datasets.cityscapes_labels import CITYSCAPES_LABELS, SCORED_LABELS, CityscapesLabel
from panomask.data.datasets.conversion_files import claim_file, claim_folder, convert_all, write_coco_json
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.semantic_png import read_cityscapes_ids
from panomask.structures.segment_map import FIRST_SEGMENT, areas_and_boxes_xywh

__all__ = ["cityscapes_to_panoptic"]

logger = logging.getLogger(__name__)

_BY_ID = {label.id: label for label in CITYSCAPES_LABELS}
_INSTANCE_IDS = "instanceIds.png"
_GROUPS = (
    *((10, "flat"), (16, "construction"), (20, "object"), (22, "nature"), (23, "sky"), (25, "human")),
    (33, "vehicle"),
)
"""The last id and the name of each group of labels."""


def cityscapes_to_panoptic(
    gt_dir: str | Path,
    output_json: str | Path | None = None,
    output_root: str | Path | None = None,
    *,
    num_workers: int = 0,
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write the panoptic JSON file and PNG files of one split of Cityscapes.

    Args:
        gt_dir: as "cityscapes/gtFine/train", with `aachen/aachen_000000_000019_gtFine_instanceIds.png`.
        output_json, output_root: default to `cityscapes_panoptic_train.json` and the folder
            `cityscapes_panoptic_train` beside `gt_dir`.
        num_workers, overwrite: see `convert_all`, `claim_folder`.

    Returns:
        The JSON file and the folder of PNG files.

    Image ids are `aachen_000000_000019`; a segment's id is the value of its pixels in the instance image,
    and categories have the ids of Cityscapes' labels. Segments of the 19 scored classes are listed; a group
    of objects that were not told apart is a crowd. All else is void.

    Raises:
        InputError: no such folder, no instance images, one that cannot be read, outputs that exist.
    """
    gt_dir = Path(gt_dir)
    if not gt_dir.is_dir():
        raise InputError(f"{gt_dir}: folder does not exist; it holds one folder for each city of Cityscapes")
    files = sorted(gt_dir.glob(f"*/*_gt*_{_INSTANCE_IDS}"), key=lambda path: path.name)
    if not files:
        raise InputError(
            f"{gt_dir}: no <city>/*_gtFine_{_INSTANCE_IDS} is there; give the folder of a split, as"
            " gtFine/train"
        )
    default = gt_dir.resolve().parent / f"cityscapes_panoptic_{gt_dir.resolve().name}"
    json_file = claim_file(output_json or default.with_suffix(".json"), inputs=(gt_dir,), overwrite=overwrite)
    folder = claim_folder(output_root or default, inputs=(gt_dir,), overwrite=overwrite)
    convert = partial(_convert_image, output_root=folder)
    images, annotations = [], []
    for image, annotation in convert_all(convert, files, num_workers=num_workers):
        images.append(image)
        annotations.append(annotation)
    with write_coco_json(json_file, images, _categories()) as add:
        for annotation in annotations:
            add(annotation)
    count = sum(len(annotation["segments_info"]) for annotation in annotations)
    logger.info("%s: %d images, %d segments", json_file, len(images), count)
    return json_file, folder


def _categories() -> list[dict[str, Any]]:
    return [
        {
            "id": label.id,
            "name": label.name,
            "supercategory": next(name for last, name in _GROUPS if label.id <= last),
            "isthing": int(label.has_instances),
            "color": list(label.color),
        }
        for label in SCORED_LABELS
    ]


def _convert_image(path: Path, *, output_root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the PNG of one image; its entries in "images" and in "annotations"."""
    pixels = read_cityscapes_ids(path)
    kept = [(id_, label) for id_, label in _labels_of(path, pixels) if not label.is_ignored]
    values = np.zeros(int(pixels.max()) + 1, dtype=np.int32)
    values[[id_ for id_, _ in kept]] = FIRST_SEGMENT + np.arange(len(kept))
    segment_map = values[pixels]
    areas, boxes = areas_and_boxes_xywh(segment_map, len(kept))

    png = path.name.removesuffix(_INSTANCE_IDS) + "panoptic.png"
    write_segment_ids(output_root / png, np.where(segment_map > 0, pixels, 0))
    image_id = path.name.rsplit("_gt", 1)[0]
    image = {
        "id": image_id,
        "file_name": f"{path.parent.name}/{image_id}_{IMAGE_SUFFIX}",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }
    segments = [
        {
            "id": id_,
            "category_id": label.id,
            "iscrowd": int(label.has_instances and id_ < FIRST_INSTANCE_ID),
            "area": area,
            "bbox": box,
        }
        for (id_, label), area, box in zip(kept, areas, boxes, strict=True)
    ]
    return image, {"image_id": image_id, "file_name": png, "segments_info": segments}


def _labels_of(path: Path, pixels: np.ndarray) -> list[tuple[int, CityscapesLabel]]:
    """The different ids of an instance image with their labels, in ascending order."""
    # Counting is ten times as fast as sorting two million pixels; ids end at 33 999.
    is_id = pixels.min() >= 0 and pixels.max() < FIRST_INSTANCE_ID * len(CITYSCAPES_LABELS)
    ids = np.flatnonzero(np.bincount(pixels.reshape(-1))) if is_id else np.unique(pixels)
    labels = []
    for id_ in ids.tolist():
        label = _BY_ID.get(id_ // FIRST_INSTANCE_ID if id_ >= FIRST_INSTANCE_ID else id_)
        if label is None:
            raise InputError(f"{path}: holds {id_}, which is no label of Cityscapes; copy the file again")
        labels.append((id_, label))
    return labels
