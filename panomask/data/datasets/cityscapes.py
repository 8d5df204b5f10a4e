"""Reader of Cityscapes (Cordts et al., CVPR 2016): street scenes, one folder a city.

leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png        the image
gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json        objects, later ones in front
                                        ..._gtFine_instanceIds.png   label id, or label id * 1000 + number
                                        ..._gtFine_labelTrainIds.png classes 0..18, 255 for void
"""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as mask_util

from panomask.data.datasets.cityscapes_labels import CITYSCAPES_LABELS, INSTANCE_LABELS, CityscapesLabel
from panomask.data.log_once import log_once
from panomask.errors import InputError
from panomask.json_file import read_json
from panomask.semantic_png import read_cityscapes_ids
from panomask.structures import BoxMode

__all__ = ["load_cityscapes_instances", "load_cityscapes_semantic"]

logger = logging.getLogger(__name__)

IMAGE_SUFFIX = "leftImg8bit.png"
GROUP = "group"
FIRST_INSTANCE_ID = 1000
MAX_COORDINATE = 1e6
"""Pixels; no image is that large, and a coordinate beyond it is damage."""

_BY_NAME = {label.name: label for label in CITYSCAPES_LABELS}
_BY_ID = {label.id: label for label in CITYSCAPES_LABELS}
_CONTIGUOUS = {label.id: index for index, label in enumerate(INSTANCE_LABELS)}


class _Files(NamedTuple):
    image: Path
    truth: str
    """What the names of the image's annotation files start with, up to `gtFine_`."""


def load_cityscapes_instances(
    image_dir: str | Path, gt_dir: str | Path, from_json: bool = True, to_polygons: bool = True
) -> list[dict[str, Any]]:
    """Read Cityscapes' objects of the eight scored classes into dataset dicts, sorted by file name.

    Args:
        image_dir: as "cityscapes/leftImg8bit/train".
        gt_dir: as "cityscapes/gtFine/train".
        from_json: take the polygons of `*_gtFine_polygons.json`, each without what lies in front of it (this
            needs the package shapely); otherwise the pixels of `*_gtFine_instanceIds.png`.
        to_polygons: masks as polygons (their holes are filled); otherwise as RLE, from pixels alone.

    Returns:
        dicts with file_name, image_id (the image's file name), height, width and annotations: category_id
        0..7, bbox xyxy, segmentation and iscrowd (1 for groups of objects that were not told apart).

    Raises:
        InputError: a missing or broken file, or shapely is not installed.
    """
    if from_json and not to_polygons:
        raise InputError("from_json=True gives polygons alone; set from_json=False to get masks of pixels")
    start = perf_counter()
    all_files = _find_files(Path(image_dir), Path(gt_dir))
    log_once(logger, ("start", str(gt_dir)), "%s: reading the objects of %d images", gt_dir, len(all_files))
    records = []
    for files in all_files:
        record = {"file_name": str(files.image), "image_id": files.image.name}
        records.append(record | (_read_polygons(files) if from_json else _read_pixels(files, to_polygons)))
    log_once(
        logger,
        ("read", str(gt_dir), str(from_json)),
        "%s: read in %.1f s",
        *(gt_dir, perf_counter() - start),
    )
    return records


def load_cityscapes_semantic(image_dir: str | Path, gt_dir: str | Path) -> list[dict[str, Any]]:
    """Dataset dicts with file_name, sem_seg_file_name (`*_labelTrainIds.png`), height and width.

    Raises:
        InputError: a file is missing; the label images are made by Cityscapes' own script.
    """
    records = []
    for files in _find_files(Path(image_dir), Path(gt_dir)):
        labels = Path(f"{files.truth}labelTrainIds.png")
        if not labels.is_file():
            raise InputError(
                f"{labels}: file does not exist; make those of all images by `CITYSCAPES_DATASET=<the folder"
                " that holds gtFine> csCreateTrainIdLabelImgs` (pip install cityscapesscripts)"
            )
        document = _read_document(Path(f"{files.truth}polygons.json"))
        records.append(
            {
                "file_name": str(files.image),
                "sem_seg_file_name": str(labels),
                "height": document["imgHeight"],
                "width": document["imgWidth"],
            }
        )
    return records


def _find_files(image_dir: Path, gt_dir: Path) -> list[_Files]:
    """The images of all cities, sorted."""
    for folder in (image_dir, gt_dir):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: folder does not exist; it holds one folder for each city of Cityscapes"
            )
    images = sorted(image_dir.glob(f"*/*{IMAGE_SUFFIX}"))
    if not images:
        raise InputError(f"{image_dir}: no image <city>/*_{IMAGE_SUFFIX} is there; unpack leftImg8bit to it")
    return [
        _Files(image, str(gt_dir / image.parent.name / image.name.removesuffix(IMAGE_SUFFIX)) + "gtFine_")
        for image in images
    ]


def _read_document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    sizes = [document.get(key) for key in ("imgHeight", "imgWidth")] if isinstance(document, dict) else []
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(
            f'{path}: "imgHeight" and "imgWidth" are needed, in pixels; is it a file of Cityscapes?'
        )
    return document


def _read_polygons(files: _Files) -> dict[str, Any]:
    """height, width and annotations from the JSON file."""
    path = Path(f"{files.truth}polygons.json")
    document = _read_document(path)
    objects = list(_drawn_objects(path, document.get("objects")))
    annotations = []
    for position, (label, is_group, shape) in reversed(list(enumerate(objects))):
        if label.id not in _CONTIGUOUS:
            continue
        visible = _without_front(shape, [front for _, _, front in objects[position + 1 :]])
        parts = [part for part in getattr(visible, "geoms", [visible]) if part.geom_type == "Polygon"]
        parts = [part for part in parts if not part.is_empty]
        if not parts:
            continue
        annotations.append(
            {
                "iscrowd": int(is_group),
                "category_id": _CONTIGUOUS[label.id],
                "bbox": visible.bounds,
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": [list(chain.from_iterable(part.exterior.coords)) for part in parts],
            }
        )
    return {"height": document["imgHeight"], "width": document["imgWidth"], "annotations": annotations}


def _drawn_objects(path: Path, objects: Any) -> Iterator[tuple[CityscapesLabel, bool, Any]]:
    """Label, whether it is a group, and outline of each object that counts, from back to front.

    Outlines are in continuous coordinates: vertices are pixel indices (+ 0.5), and Cityscapes fills a polygon
    with its border pixels, which makes it half a pixel wider on all sides.
    """
    shapely = _import_shapely()
    if not isinstance(objects, list):
        raise InputError(f'{path}: "objects" is {str(objects)[:80]}; a list of objects is needed')
    for position, entry in enumerate(objects):
        where = f"{path}: object number {position} (counted from 0)"
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise InputError(f'{where}: is {str(entry)[:80]}; an object with "label" and "polygon" is needed')
        if entry.get("deleted"):
            continue
        name = entry["label"]
        is_group = name not in _BY_NAME and name.endswith(GROUP)
        label = _BY_NAME.get(name.removesuffix(GROUP) if is_group else name)
        if label is None:
            raise InputError(f"{where}: {name!r} is no label of Cityscapes; correct it or remove the object")
        if label.id < 0:  # license plates lie on vehicles and are not cut out of them
            continue
        points = _checked_points(entry.get("polygon"), where)
        yield label, is_group, shapely.Polygon(points + 0.5).buffer(0.5, quad_segs=4)


def _checked_points(polygon: Any, where: str) -> np.ndarray:
    """(P, 2) float32 vertices; InputError unless there are three or more, in pixels."""
    try:
        points = np.asarray(polygon, dtype=np.float32)
    except (TypeError, ValueError):
        points = np.empty(0, dtype=np.float32)
    is_fit = points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3
    if not is_fit or not (np.abs(points) <= MAX_COORDINATE).all():
        raise InputError(
            f"{where}: its polygon is {str(polygon)[:80]}; three or more points [x, y] are needed, in pixels"
        )
    return points


def _without_front(shape: Any, front: list[Any]) -> Any:
    """`shape` without the union of the shapes in front of it; only those that touch it are united: fast."""
    touching = [other for other in front if other.intersects(shape)]
    return shape.difference(_import_shapely().union_all(touching)) if touching else shape


def _import_shapely() -> Any:
    try:
        import shapely
    except ImportError:
        raise InputError(
            "Cityscapes' polygons need the package shapely: pip install 'shapely>=2' (or"
            " 'panomask[cityscapes]')"
        ) from None
    return shapely


def _read_pixels(files: _Files, to_polygons: bool) -> dict[str, Any]:
    """height, width and annotations from the image of instance ids."""
    path = Path(f"{files.truth}instanceIds.png")
    ids = read_cityscapes_ids(path)
    annotations = []
    for id_ in np.unique(ids).tolist():
        is_group = id_ < FIRST_INSTANCE_ID
        label = _BY_ID.get(id_ if is_group else id_ // FIRST_INSTANCE_ID)
        if label is None:
            raise InputError(f"{path}: holds {id_}, which is no label of Cityscapes; copy the file again")
        if label.id not in _CONTIGUOUS:
            continue
        mask = ids == id_
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows) == 1 or len(columns) == 1:
            continue
        segmentation = _outlines(mask) if to_polygons else _encode(mask)
        if segmentation:
            box = tuple(float(v) for v in (columns[0], rows[0], columns[-1], rows[-1]))
            annotations.append(
                {
                    "iscrowd": int(is_group),
                    "category_id": _CONTIGUOUS[label.id],
                    "bbox": box,
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "segmentation": segmentation,
                }
            )
    return {"height": ids.shape[0], "width": ids.shape[1], "annotations": annotations}


def _outlines(mask: np.ndarray) -> list[list[int]]:
    """The outer contours of a mask through the indices of its border pixels, as Detectron2 takes them."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour.reshape(-1).tolist() for contour in contours if len(contour) >= 3]


def _encode(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
