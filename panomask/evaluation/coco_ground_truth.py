"""Ground truth and results in COCO's JSON format, mended where files are looser than pycocotools allows.

pycocotools defines the numbers; its `COCO` object is built here without printing and from files that may lack
`iscrowd`, `area`, `bbox` or `id`, or hold any of COCO's three kinds of masks.
"""

import copy
import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from os import PathLike
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from panomask.errors import InputError
from panomask.evaluation.coco_masks import are_readable, rle_areas, rle_boxes, to_rle
from panomask.json_file import collection_paused, read_json

logger = logging.getLogger(__name__)

JsonSource = str | PathLike[str]
LISTS = {"images": "image", "categories": "category"}
ID_TYPES = (int, str, float, np.integer)


@collection_paused()
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
    dataset = {**content, **{key: _checked_ids(content[key], name, key) for key in LISTS}}
    if "annotations" in content:
        images = {image["id"]: image for image in dataset["images"]}
        annotations = _checked_list(content["annotations"], name, "annotations")
        dataset["annotations"] = [_with_rle(entry, images, name) for entry in annotations]
        _measure(dataset["annotations"], f"{name}: annotation")
        _number_annotations(dataset["annotations"])
    return index_silently(dataset)


def index_silently(dataset: dict[str, Any]) -> COCO:
    """pycocotools' `COCO` over the content of an annotation file, without its prints."""
    coco = COCO()
    coco.dataset = dataset
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


@collection_paused()
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
    _measure(loaded, f"{name}: entry")
    return index_silently(
        {
            "images": list(ground_truth.dataset["images"]),
            "categories": copy.deepcopy(ground_truth.dataset["categories"]),
            "annotations": loaded,
        }
    )


def _checked(entry: Any, name: str, kind: str, *keys: str) -> dict[str, Any]:
    """The entry, a dict with these keys, of which those ending in "id" are numbers or texts."""
    try:
        for key in keys:
            is_id = isinstance(entry[key], ID_TYPES) and entry[key] == entry[key]  # not NaN
            if not is_id and key.endswith("id"):
                raise InputError(
                    f"{name}: {kind} {entry!s:.80}: {key!r} is {entry[key]!s:.60};"
                    " a number or a text is needed"
                )
    except (KeyError, TypeError, IndexError):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        raise InputError(f"{name}: {kind} {entry!s:.80} lacks {', '.join(map(repr, missing))}") from None
    return entry


def _checked_list(entries: Any, name: str, key: str) -> Sequence[Any]:
    if not isinstance(entries, list | tuple):
        raise InputError(f"{name}: {key!r} is {entries!s:.60}; a list is needed")
    return entries


def _checked_ids(entries: Any, name: str, key: str) -> list[dict[str, Any]]:
    """Images or categories, whose ids are all numbers or all texts: they are sorted."""
    kind = LISTS[key]
    checked = [_checked(entry, name, kind, "id") for entry in _checked_list(entries, name, key)]
    if len({isinstance(entry["id"], str) for entry in checked}) > 1:
        raise InputError(
            f"{name}: the ids of some of its {kind} entries are texts, of others numbers; take one kind"
        )
    return checked


def _with_rle(entry: Any, images: dict[Any, dict[str, Any]], name: str) -> dict[str, Any]:
    """A copy of an annotation whose mask, if any, is RLE."""
    annotation = {"iscrowd": 0, **_checked(entry, name, "annotation", "image_id", "category_id")}
    image = images.get(annotation["image_id"], {})
    try:
        rle = to_rle(annotation.get("segmentation"), image.get("height"), image.get("width"))
    except ValueError as error:
        raise InputError(f"{name}: annotation {annotation.get('id')}: {error}") from error
    annotation["segmentation"] = rle
    if not _has_numbers(annotation.get("bbox")) and rle is None:
        raise InputError(f"{name}: annotation {annotation.get('id')} has neither 'bbox' nor a mask")
    return annotation


def _measure(annotations: list[dict[str, Any]], where: str) -> None:
    """Give boxes and areas to those without, by their masks or else by their boxes.

    Raises:
        InputError: a mask that cannot be read.
    """
    masked = [annotation for annotation in annotations if annotation["segmentation"] is not None]
    unreadable = np.flatnonzero(~are_readable([annotation["segmentation"] for annotation in masked]))
    if len(unreadable):
        id_ = masked[unreadable[0]].get("id")
        raise InputError(f"{where} {id_}: the text of its RLE ('counts') is broken; write the file again")
    without_box = [annotation for annotation in masked if not _has_numbers(annotation.get("bbox"))]
    boxes = rle_boxes([annotation["segmentation"] for annotation in without_box])
    for annotation, box in zip(without_box, boxes.tolist(), strict=True):
        annotation["bbox"] = box
    without_area = [annotation for annotation in masked if annotation.get("area") is None]
    areas = rle_areas([annotation["segmentation"] for annotation in without_area])
    for annotation, area in zip(without_area, areas.tolist(), strict=True):
        annotation["area"] = area
    for annotation in annotations:
        if annotation.get("area") is None:
            annotation["area"] = _box_area(annotation["bbox"], where, annotation.get("id"))


def _has_numbers(box: Any) -> bool:
    """Whether there is a box: neither None nor empty. Results in memory may hold arrays."""
    return box.size > 0 if isinstance(box, np.ndarray) else bool(box)


def _box_area(box: Any, where: str, id_: Any) -> float:
    try:
        _, _, width, height = box
        return 0.0 + width * height  # a TypeError for texts
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{where} {id_}: 'bbox' is {box!s:.60}; four numbers x, y, width, height are needed"
        ) from None


def _number_annotations(annotations: list[dict[str, Any]]) -> None:
    ids = [annotation.get("id") for annotation in annotations]
    if all(isinstance(id_, ID_TYPES) and id_ for id_ in ids) and len(set(ids)) == len(ids):
        return
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number


def _detection(
    entry: Any, number: int, ground_truth: COCO, name: str, *, iou_type: str, use_mask_area: bool
) -> dict[str, Any]:
    detection = dict(_checked(entry, name, "entry", "image_id", "category_id", "score"))
    image = ground_truth.imgs.get(detection["image_id"])
    if image is None:
        raise InputError(
            f"{name}: entry {number} is of image {detection['image_id']!r}, which the ground truth does not"
            " have; give the predictions of this data set"
        )
    if not _is_number(detection["score"]):
        raise InputError(f"{name}: entry {number}: 'score' is {detection['score']!s:.60}; a number is needed")
    box, rle = detection.get("bbox"), None
    box = box if _has_numbers(box) else None
    if iou_type == "keypoints" and box is None and not detection.get("segmentation"):
        box = _box_of_keypoints(detection.get("keypoints"), number, name)
    if iou_type == "segm" or box is None:
        try:
            rle = to_rle(detection.get("segmentation"), image.get("height"), image.get("width"))
        except ValueError as error:
            raise InputError(f"{name}: entry {number}: {error}") from error
        if rle is None:
            needed = "'segmentation'" if iou_type == "segm" else "'bbox'"
            raise InputError(f"{name}: entry {number} lacks {needed}, which {iou_type!r} scores need")
    by_mask = rle is not None and (use_mask_area or box is None)
    detection["area"] = None if by_mask else _box_area(box, f"{name}: entry", number)
    detection |= {"bbox": box, "segmentation": rle, "id": number, "iscrowd": 0}
    return detection


def _is_number(value: Any) -> bool:
    """Also an array's or a tensor's single one; texts have no `__float__`."""
    return hasattr(value, "__float__") and not getattr(value, "ndim", 0)


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
