"""Ground truth and results in COCO's JSON format, mended where files are looser than pycocotools allows.

pycocotools defines the numbers; its `COCO` object is built here without printing and from files that may lack
`iscrowd`, `area`, `bbox` or `id`, or hold any of COCO's three kinds of masks.
"""

import copy
import io
import logging
from collections.abc import Iterable
from contextlib import redirect_stdout
from os import PathLike
from typing import Any

import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from panomask.errors import InputError
from panomask.json_file import read_json

logger = logging.getLogger(__name__)

JsonSource = str | PathLike[str]
MIN_POLYGON_NUMBERS = 6
"""Three points: pycocotools takes a list of four numbers for a box."""


def load_ground_truth(source: JsonSource | dict[str, Any] | COCO) -> COCO:
    """A silent `COCO` object from a file, its content as a dict or another `COCO` object (never changed).

    Missing keys are filled in: `iscrowd` 0, `area` from the mask or else from the box, `bbox` from the mask.
    A stated `area` is kept, whatever it measures. Annotations are numbered anew if ids are missing, repeated
    or 0: pycocotools takes a match with annotation 0 for no match, and forgets all but the last of those that
    share an id.

    Raises:
        InputError: unreadable file, or an entry without what evaluation needs.
    """
    source = source.dataset if isinstance(source, COCO) else source
    name = "annotations" if isinstance(source, dict) else str(source)
    content = source if isinstance(source, dict) else read_json(source)
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise InputError(
            f"{name}: not a COCO annotation file; it needs a dict with 'images' and 'categories'"
        )
    dataset = {**content, "images": [_checked(image, name, "image", ("id",)) for image in content["images"]]}
    if "annotations" in content:
        images = {image["id"]: image for image in dataset["images"]}
        dataset["annotations"] = [_mended(entry, images, name) for entry in content["annotations"]]
        _number_annotations(dataset["annotations"])
    return index_silently(dataset)


def index_silently(dataset: dict[str, Any]) -> COCO:
    """pycocotools' `COCO` over the content of an annotation file, without its prints."""
    coco = COCO()
    coco.dataset = dataset
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def load_results(
    ground_truth: COCO,
    source: JsonSource | list[dict[str, Any]],
    iou_type: str,
    *,
    use_mask_area: bool = False,
) -> COCO:
    """Predictions as a `COCO` object beside the ground truth's, as `COCO.loadRes` makes it, but silent.

    Args:
        ground_truth: whose images and categories the predictions refer to.
        source: a results file or its content (not changed): `image_id, category_id, score` and some of `bbox`
            (xywh), `segmentation` (RLE or polygons) and `keypoints` (x, y, score of each). It may be empty.
        iou_type: "bbox", "segm" or "keypoints".
        use_mask_area: whether a mask with a box beside it counts as small, medium or large by the mask (as
            Detectron2 does) or by the box (as pycocotools does).

    Raises:
        InputError: unreadable file, an unknown image, or an entry without what `iou_type` needs.
    """
    name = "results" if isinstance(source, list) else str(source)
    entries = source if isinstance(source, list) else read_json(source)
    if not isinstance(entries, list):
        raise InputError(f"{name}: not COCO results; a list of detections is needed")
    loaded = [
        _detection(entry, number, ground_truth, name, iou_type=iou_type, use_mask_area=use_mask_area)
        for number, entry in enumerate(entries, start=1)
    ]
    return index_silently(
        {
            "images": list(ground_truth.dataset["images"]),
            "categories": copy.deepcopy(ground_truth.dataset["categories"]),
            "annotations": loaded,
        }
    )


def to_rle(segmentation: Any, height: int | None, width: int | None) -> dict[str, Any] | None:
    """One compressed RLE of any COCO segmentation: polygons, uncompressed or compressed RLE.

    Returns:
        None where there is no mask: no segmentation, or polygons of fewer than three points.

    Raises:
        ValueError: polygons without the image's size, or something that is no segmentation.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        if not polygons:
            return None
        if height is None or width is None:
            raise ValueError("polygons need 'height' and 'width' of their image")
        return mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("segmentation must be a list of polygons or a dict with 'size' and 'counts'")
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _is_polygon(polygon: Any) -> bool:
    return isinstance(polygon, list) and len(polygon) >= MIN_POLYGON_NUMBERS and len(polygon) % 2 == 0


def _checked(entry: Any, name: str, kind: str, keys: Iterable[str]) -> dict[str, Any]:
    missing = [key for key in keys if key not in entry] if isinstance(entry, dict) else list(keys)
    if missing:
        raise InputError(f"{name}: {kind} {str(entry)[:80]} lacks {', '.join(map(repr, missing))}")
    return entry


def _mended(entry: Any, images: dict[Any, dict[str, Any]], name: str) -> dict[str, Any]:
    """A copy of an annotation with everything that pycocotools reads; its mask, if any, as RLE."""
    annotation = {"iscrowd": 0, **_checked(entry, name, "annotation", ("image_id", "category_id"))}
    image = images.get(annotation["image_id"], {})
    try:
        rle = to_rle(annotation.get("segmentation"), image.get("height"), image.get("width"))
    except ValueError as error:
        raise InputError(f"{name}: annotation {annotation.get('id')}: {error}") from error
    annotation["segmentation"] = rle
    if not annotation.get("bbox"):
        if rle is None:
            raise InputError(f"{name}: annotation {annotation.get('id')} has neither 'bbox' nor a mask")
        annotation["bbox"] = mask_util.toBbox(rle).tolist()
    if annotation.get("area") is None:
        box_area = annotation["bbox"][2] * annotation["bbox"][3]
        annotation["area"] = box_area if rle is None else float(mask_util.area(rle))
    return annotation


def _number_annotations(annotations: list[dict[str, Any]]) -> None:
    ids = [annotation.get("id") for annotation in annotations]
    if all(ids) and len(set(ids)) == len(ids):
        return
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number


def _detection(
    entry: Any, number: int, ground_truth: COCO, name: str, *, iou_type: str, use_mask_area: bool
) -> dict[str, Any]:
    detection = {**_checked(entry, name, "entry", ("image_id", "category_id", "score"))}
    image = ground_truth.imgs.get(detection["image_id"])
    if image is None:
        raise InputError(
            f"{name}: entry {number} is of image {detection['image_id']!r}, which the ground truth does not"
            " have; give the predictions of this data set"
        )
    box, rle = detection.get("bbox"), None
    if iou_type == "keypoints" and not box and not detection.get("segmentation"):
        box = _box_of_keypoints(detection.get("keypoints"), number, name)
    if iou_type == "segm" or not box:
        try:
            rle = to_rle(detection.get("segmentation"), image.get("height"), image.get("width"))
        except ValueError as error:
            raise InputError(f"{name}: entry {number}: {error}") from error
        if rle is None:
            needed = "'segmentation'" if iou_type == "segm" else "'bbox'"
            raise InputError(f"{name}: entry {number} lacks {needed}, which {iou_type!r} scores need")
    by_mask = rle is not None and (use_mask_area or not box)
    if not box:
        box = mask_util.toBbox(rle).tolist()
    area = float(mask_util.area(rle)) if by_mask else box[2] * box[3]
    return {**detection, "bbox": box, "segmentation": rle, "area": area, "id": number, "iscrowd": 0}


def _box_of_keypoints(keypoints: Any, number: int, name: str) -> list[float]:
    """The box (xywh) around all keypoints, whose area decides about medium and large where no box came."""
    if not isinstance(keypoints, list) or len(keypoints) < 3 or len(keypoints) % 3:
        raise InputError(
            f"{name}: entry {number} has no 'keypoints' [x, y, score, ...], which 'keypoints' scores need"
        )
    x, y = keypoints[0::3], keypoints[1::3]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def has_masks(ground_truth: COCO) -> bool:
    """Whether any annotation has a mask to compare with."""
    return any(annotation["segmentation"] is not None for annotation in ground_truth.anns.values())


def with_masks_only(ground_truth: COCO) -> COCO:
    """The ground truth without the annotations that have no mask; says how many there are."""
    kept = [annotation for annotation in ground_truth.anns.values() if annotation["segmentation"] is not None]
    left_out = len(ground_truth.anns) - len(kept)
    if not left_out:
        return ground_truth
    logger.warning("%d annotations have no mask; the mask scores are measured without them", left_out)
    return index_silently({**ground_truth.dataset, "annotations": kept})
