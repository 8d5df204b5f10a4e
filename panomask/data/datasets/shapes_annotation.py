"""COCO annotations of the scenes of `shapes`: instances, keypoints and panoptic segments.

Category ids are 1..K for things, in the order of THING_CLASSES, and K+1.. for stuff.
"""

from typing import Any

import numpy as np
import pycocotools.mask as mask_coding

from panomask.data.datasets.shapes_drawing import KEYPOINT_NAMES, THING_CLASSES, Thing, is_figure
from panomask.data.datasets.shapes_scene import Scene
from panomask.data.datasets.shapes_texture import STUFF_CLASSES

KEYPOINT_CONNECTIONS = (
    ("head", "left_shoulder"),
    ("head", "right_shoulder"),
    ("left_shoulder", "left_hand"),
    ("right_shoulder", "right_hand"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_hip", "left_foot"),
    ("right_hip", "right_foot"),
)

COLORS = {
    "circle": [228, 77, 66],
    "square": [58, 125, 214],
    "triangle": [247, 181, 56],
    "star": [155, 93, 204],
    "ring": [38, 166, 154],
    "figure": [236, 98, 160],
    "sky": [135, 190, 235],
    "grass": [104, 159, 56],
    "water": [21, 94, 130],
}
"""Class -> RGB, for drawing."""
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up as (x, y); index + 1 turns right


def _boundary_steps(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """The unit edges around a mask, with the mask on the right: start corner -> indices into _STEPS."""
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[int]] = {}
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    start_shifts = ((0, 0), (1, 0), (1, 1), (0, 1))  # of the pixel's top, right, bottom and left edge
    for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, start_shifts, strict=True)):
        for row, col in zip(*(c.tolist() for c in np.nonzero(mask & ~neighbour)), strict=True):
            steps.setdefault((col + dx, row + dy), []).append(direction)
    return steps


def _leftmost_turn(directions: list[int], direction: int) -> int:
    """-1 left, 0, 1 right. Where two pixels touch at a corner, two ways lead on: the left one joins them."""
    return min((way - direction + 1) % 4 - 1 for way in directions)


def _drop_collinear(points: np.ndarray) -> np.ndarray:
    """Closed outline (N, 2) without the points that lie straight between their neighbours."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def trace_outlines(mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
    """Outlines of a mask (H, W) bool as polygons (N, 2) of continuous x, y; and whether it has holes.

    An outline joins the middles of the pixel edges that separate the mask from the rest. So it stays outside
    of every pixel centre of the mask (pycocotools gives the same mask back), keeps the tight box, and has no
    staircase. Pixels that touch at a corner belong together. The outlines of holes are left out.
    """
    ways = _boundary_steps(mask)
    waiting = {(corner, direction) for corner, directions in ways.items() for direction in directions}
    outlines, has_holes = [], False
    for start in ((corner, direction) for corner, directions in ways.items() for direction in directions):
        if start not in waiting:
            continue
        middles, turns, step = [], 0, start
        while step in waiting:
            waiting.remove(step)
            (x, y), direction = step
            dx, dy = _STEPS[direction]
            middles.append((x + dx / 2, y + dy / 2))
            corner = (x + dx, y + dy)
            turn = _leftmost_turn(ways[corner], direction)
            turns, step = turns + turn, (corner, (direction + turn) % 4)
        if turns > 0:  # clockwise on the screen: mask inside
            outlines.append(_drop_collinear(np.array(middles)))
        else:
            has_holes = True
    return outlines, has_holes


def encode_uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed RLE: run lengths down the columns, background first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return {"counts": runs if mask.ravel(order="F")[-1] == 0 else runs[:-1], "size": list(mask.shape)}


def segmentation(thing: Thing) -> Any:
    """Polygons; compressed RLE where there are holes; uncompressed RLE for a crowd."""
    if thing.is_crowd:
        return encode_uncompressed(thing.mask)
    outlines, has_holes = trace_outlines(thing.mask)
    if not has_holes:
        return [outline.ravel().tolist() for outline in outlines]
    rle = mask_coding.encode(np.asfortranarray(thing.mask, dtype=np.uint8))
    return {"counts": rle["counts"].decode("ascii"), "size": list(thing.mask.shape)}


def tight_box_xywh(mask: np.ndarray) -> list[int]:
    """The box around the pixels of a mask that is not empty."""
    cols, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1), int(rows[-1] - rows[0] + 1)]


def instance_records(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """One COCO annotation per thing. Ids are unique in a split and the same in instances and keypoints."""
    return [
        {
            "id": image_id * 100 + number,
            "image_id": image_id,
            "category_id": thing.class_idx + 1,
            "iscrowd": int(thing.is_crowd),
            "area": int(thing.mask.sum()),
            "bbox": tight_box_xywh(thing.mask),
            "segmentation": segmentation(thing),
        }
        for number, thing in enumerate(scene.things)
    ]


def keypoint_records(scene: Scene, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The persons among `records` (of `instance_records`) with keypoints.

    COCO's coordinates count pixel centres from zero, half a pixel less than the continuous ones. A crowd
    has none.
    """
    result = []
    for thing, record in zip(scene.things, records, strict=True):
        if not is_figure(thing.class_idx):
            continue
        keypoints, count = [0.0] * (3 * len(KEYPOINT_NAMES)), 0
        if thing.keypoints is not None:
            triples = [
                (round(max(x - 0.5, 0), 1), round(max(y - 0.5, 0), 1), int(v))
                for x, y, v in thing.keypoints.tolist()
            ]
            keypoints = [value for triple in triples for value in triple]
            count = sum(visibility > 0 for _, _, visibility in triples)
        result.append({**record, "keypoints": keypoints, "num_keypoints": count})
    return result


def panoptic_record(scene: Scene, image_id: int, file_name: str) -> tuple[dict[str, Any], np.ndarray]:
    """The panoptic annotation and its picture (H, W, 3) uint8 RGB, segment id = R + 256 G + 65536 B."""
    ids = np.zeros(scene.stuff.shape, dtype=np.int64)
    segments: list[dict[str, Any]] = []

    def add(mask: np.ndarray, category_id: int, is_crowd: bool) -> None:
        # An odd factor maps the numbers 1, 2, ... to distinct ids that use all three channels.
        segment_id = (len(segments) + 1) * 0x5B2D67 % 2**24
        ids[mask] = segment_id
        segments.append(
            {
                "id": segment_id,
                "category_id": category_id,
                "iscrowd": int(is_crowd),
                "area": int(mask.sum()),
                "bbox": tight_box_xywh(mask),
            }
        )

    free = np.ones(scene.stuff.shape, dtype=bool)
    for thing in scene.things:
        add(thing.mask, thing.class_idx + 1, thing.is_crowd)
        free &= ~thing.mask
    for stuff_idx in range(len(STUFF_CLASSES)):
        mask = free & (scene.stuff == stuff_idx)
        if mask.any():
            add(mask, len(THING_CLASSES) + stuff_idx + 1, False)
    picture = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    return {"image_id": image_id, "file_name": file_name, "segments_info": segments}, picture


def thing_categories() -> list[dict[str, Any]]:
    """`categories` of the instances file."""
    return [
        {"id": idx + 1, "name": name, "supercategory": "figure" if is_figure(idx) else "shape"}
        for idx, name in enumerate(THING_CLASSES)
    ]


def keypoint_categories() -> list[dict[str, Any]]:
    """`categories` of the keypoints file: class `figure`, its skeleton as pairs of 1-based numbers."""
    skeleton = [[KEYPOINT_NAMES.index(a) + 1, KEYPOINT_NAMES.index(b) + 1] for a, b in KEYPOINT_CONNECTIONS]
    return [
        {**category, "keypoints": list(KEYPOINT_NAMES), "skeleton": skeleton}
        for idx, category in enumerate(thing_categories())
        if is_figure(idx)
    ]


def panoptic_categories() -> list[dict[str, Any]]:
    """`categories` of the panoptic file."""
    stuff = [
        {"id": len(THING_CLASSES) + idx + 1, "name": name, "supercategory": "ground"}
        for idx, name in enumerate(STUFF_CLASSES)
    ]
    return [
        {**category, "isthing": int(category["id"] <= len(THING_CLASSES)), "color": COLORS[category["name"]]}
        for category in thing_categories() + stuff
    ]
