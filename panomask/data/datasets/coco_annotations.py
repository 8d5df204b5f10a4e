"""One COCO annotation: checked, and turned into an object of a dataset dict.

What passes here cannot crash pycocotools later: its run-length decoder trusts the runs it is given and its
polygon rasteriser allocates memory by the polygon's length.
"""

import reprlib
from collections.abc import Sequence
from math import hypot, isfinite
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from panomask.structures import BoxMode

MAX_COORDINATE = 1e6
"""Pixels; no image is that large, and a coordinate beyond it is damage."""

_MAX_RUN_CHARACTERS = 7  # five bits each; runs stay below 2 ** 32
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxdict = 6
_BRIEF.maxstring = _BRIEF.maxother = 40


class BadAnnotation(ValueError):
    """What is wrong with one annotation.

    Attributes:
        kind: a few words, the same for all annotations with this fault, for counting.
        rest: the good polygons of an annotation that has bad ones beside them.
    """

    def __init__(self, kind: str, found: str, allowed: str, rest: Sequence[list[float]] = ()) -> None:
        super().__init__(f"{kind}: {found}; {allowed}")
        self.kind = kind
        self.rest = list(rest)


def convert_annotation(
    annotation: dict[str, Any],
    *,
    height: int,
    width: int,
    num_keypoints: int | None = None,
    extra_keys: Sequence[str] = (),
) -> dict[str, Any]:
    """The object of a dataset dict for a COCO annotation; its "category_id" stays that of the file.

    Args:
        annotation: of an image of `height` x `width` pixels. Nested lists are taken over, not copied.
        num_keypoints: what the category declares; None when it declares nothing.
        extra_keys: copied as they are when the annotation has them.

    Returns:
        bbox (list xywh), bbox_mode, category_id, iscrowd; and if there: segmentation (polygons, or compressed
        RLE), keypoints (pixel indices of COCO + 0.5: continuous coordinates like all others).

    Raises:
        BadAnnotation: anything is not as COCO defines it.
    """
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise BadAnnotation("bad iscrowd", _brief(crowd), "allowed are 0 and 1")
    if annotation.get("ignore"):
        raise BadAnnotation(
            "ignore flag",
            f'"ignore" is {_brief(annotation["ignore"])}',
            'COCO has "iscrowd": 1 for this purpose',
        )
    instance = {key: annotation[key] for key in extra_keys if key in annotation}
    instance["iscrowd"] = int(crowd)
    instance["bbox"] = _check_box(annotation.get("bbox"))
    instance["bbox_mode"] = BoxMode.XYWH_ABS
    instance["category_id"] = annotation["category_id"]
    keypoints = annotation.get("keypoints")
    if keypoints:
        instance["keypoints"] = _convert_keypoints(keypoints, num_keypoints)
    segmentation = annotation.get("segmentation")  # last: its error alone may leave something to keep
    if segmentation:
        instance["segmentation"] = _convert_segmentation(segmentation, height, width)
    return instance


def _check_box(box: Any) -> list[float]:
    if box is None or box == []:
        raise BadAnnotation("no box", '"bbox" is missing or empty', "[x, y, width, height] is needed")
    if not isinstance(box, list) or len(box) != 4 or not _are_coordinates(box):
        raise BadAnnotation(
            "bad box", f'"bbox" is {_brief(box)}', "allowed are four finite numbers [x, y, width, height]"
        )
    if not (box[2] > 0 and box[3] > 0):
        raise BadAnnotation(
            "box of no area",
            f'"bbox" [x, y, width, height] is {_brief(box)}',
            "width and height must be above 0",
        )
    return box


def _are_coordinates(values: list[Any]) -> bool:
    """Whether all are finite numbers no larger than MAX_COORDINATE.

    One C call for almost every list: the length of the vector is NaN or infinite if an entry is, and bounds
    each entry. Only where that bound is too coarse (very long lists) are the entries looked at.
    """
    try:
        if hypot(*values) <= MAX_COORDINATE:
            return True
        return all(isfinite(v) and abs(v) <= MAX_COORDINATE for v in values)
    except (TypeError, OverflowError):
        return False


def _convert_keypoints(keypoints: Any, num_keypoints: int | None) -> list[float]:
    """Checked keypoints [x, y, visibility, ...], moved from pixel indices to pixel centres."""
    count = "" if num_keypoints is None else f"{num_keypoints} times "
    allowed = f"allowed is {count}x, y, visibility with visibility 0, 1 or 2"
    if not isinstance(keypoints, list) or not _are_coordinates(keypoints):
        raise BadAnnotation("bad keypoints", f'"keypoints" is {_brief(keypoints)}', allowed)
    if len(keypoints) % 3 or (num_keypoints is not None and len(keypoints) != 3 * num_keypoints):
        raise BadAnnotation("bad keypoints", f'"keypoints" has {len(keypoints)} numbers', allowed)
    if not set(keypoints[2::3]) <= {0, 1, 2}:
        wrong = next(v for v in keypoints[2::3] if v not in (0, 1, 2))
        raise BadAnnotation("bad keypoints", f"a visibility is {_brief(wrong)}", allowed)
    converted = keypoints.copy()
    converted[0::3] = [x + 0.5 for x in keypoints[0::3]]
    converted[1::3] = [y + 0.5 for y in keypoints[1::3]]
    return converted


def _convert_segmentation(segmentation: Any, height: int, width: int) -> Any:
    if isinstance(segmentation, list):
        return _check_polygons(segmentation)
    if isinstance(segmentation, dict):
        return _convert_rle(segmentation, height, width)
    raise BadAnnotation(
        "bad segmentation",
        f'"segmentation" is {_brief(segmentation)}',
        "allowed are a list of polygons and an RLE object",
    )


def _is_polygon(polygon: Any) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and _are_coordinates(polygon)
    )


def _check_polygons(polygons: list[Any]) -> list[list[float]]:
    good = [polygon for polygon in polygons if _is_polygon(polygon)]
    if len(good) == len(polygons):
        return polygons
    position = next(i for i, polygon in enumerate(polygons) if not _is_polygon(polygon))
    polygon = polygons[position]
    which = f"polygon {position} of {len(polygons)}"
    if not isinstance(polygon, list):
        raise BadAnnotation(
            "bad polygon",
            f'"segmentation" holds {_brief(polygon)} where a polygon should be',
            "allowed is a list of polygons, each a list [x, y, x, y, ...]",
            rest=good,
        )
    if not _are_coordinates(polygon):
        wrong = next(value for value in polygon if not _are_coordinates([value]))
        raise BadAnnotation(
            "bad polygon",
            f"{which} holds {_brief(wrong)}",
            f"allowed are finite pixel coordinates up to {MAX_COORDINATE:.0f}",
            rest=good,
        )
    if len(polygon) % 2:
        raise BadAnnotation(
            "bad polygon",
            f"{which} has {len(polygon)} numbers",
            "an even count is needed: [x, y, x, y, ...]",
            rest=good,
        )
    raise BadAnnotation(
        "polygon with fewer than three points",
        f"{which} has {len(polygon) // 2}",
        "at least three points [x, y, x, y, x, y] are needed",
        rest=good,
    )


def _convert_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """The compressed RLE of a compressed (text) or uncompressed (list of runs) one."""
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        raise BadAnnotation(
            "RLE of another size",
            f"its size [height, width] is {_brief(rle.get('size'))}",
            f"it must be that of the image, [{height}, {width}]",
        )
    if isinstance(counts, list):
        runs = _list_runs(counts)
    elif isinstance(counts, str):
        runs = _decode_runs(counts)
    else:
        raise BadAnnotation("bad RLE", f"counts is {_brief(counts)}", "allowed are a text and a list of runs")
    if runs is None:
        raise BadAnnotation(
            "bad RLE",
            f"counts {_brief(counts)} is damaged",
            "allowed are runs of pixels, none negative, as a list or in COCO's compressed text",
        )
    total = int(runs.sum())
    if total != height * width:
        raise BadAnnotation(
            "bad RLE",
            f"its runs add up to {total} pixels",
            f"they must cover the image, {height} x {width} = {height * width} pixels",
        )
    return rle if isinstance(counts, str) else mask_util.frPyObjects(rle, height, width)


def _list_runs(counts: list[Any]) -> np.ndarray | None:
    try:
        runs = np.array(counts)
    except ValueError:
        return None
    if runs.ndim != 1 or runs.dtype.kind != "i" or runs.min() < 0 or runs.max() >= 2**32:
        return None
    return runs


def _decode_runs(text: str) -> np.ndarray | None:
    """The runs of a compressed RLE; None when the text is not one.

    Each run is a signed number in characters of six bits from "0" on: five bits, the lowest first, and a flag
    that more follow; the top bit of the last is the sign. From the fourth run on, the difference to the run
    before the last is stored (`rleToString` of the COCO API).
    """
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes < 32)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts + 1
    if lengths.max() > _MAX_RUN_CHARACTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= ((codes[ends] >> 4) & 1) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs if runs.min() >= 0 and runs.max() < 2**32 else None


def _brief(value: Any) -> str:
    return _BRIEF.repr(value)
