"""Scenes of the embedded data set `shapes`: figures in front of a background, with the truth about them.

A scene is composed back to front. A figure that would hide too much of an earlier one is taken back, so that
everything one can see is annotated and everything annotated can be recognised.
"""

import math
from dataclasses import dataclass

import numpy as np

from panomask.data.datasets.shapes_drawing import THING_CLASSES, Canvas, Pose, Thing, draw_thing, is_figure
from panomask.data.datasets.shapes_texture import RandomStream, draw_background

MIN_VISIBLE = 0.55
"""Share of a thing that nothing in front may take away."""
MIN_AREA = 100
"""Visible pixels of a thing, at the least."""
MAX_TURN_OF_FIGURE = 0.45
"""Persons lean by so many radians at the most; every other class stands at any angle."""

_CROWD_SHARE = 0.08
_EMPTY_SHARE = 0.03
_NUM_THINGS = (1, 2, 2, 3, 3, 3, 4, 4, 5, 6)
_SHORT_SIDES = (144, 152, 160, 160, 168)
_LONG_SIDES = (184, 192, 192, 200, 208)
_PLACEMENTS = 12  # tried for a thing before it is left out


@dataclass
class Scene:
    """image: (H, W, 3) uint8 RGB. stuff: (H, W) uint8, index into STUFF_CLASSES. things: back to front."""

    image: np.ndarray
    stuff: np.ndarray
    things: list[Thing]


def _pick_pose(stream: RandomStream, canvas: Canvas, things: list[Thing], class_idx: int) -> Pose:
    """Anywhere, or beside an earlier thing so that the two overlap."""
    height, width = canvas.size
    low, high = (0.30, 0.55) if is_figure(class_idx) else (0.18, 0.45)
    size = min(height, width) * low * (high / low) ** stream.uniform(0, 1)
    turn = MAX_TURN_OF_FIGURE if is_figure(class_idx) else math.pi
    angle = stream.uniform(-turn, turn)
    x, y = stream.uniform(0, width), stream.uniform(0, height)
    if things and stream.chance(0.35):
        rows, cols = np.nonzero(stream.pick(things).mask)
        reach, direction = size * stream.uniform(0.4, 0.7), stream.uniform(0, 2 * math.pi)
        other = stream.integer(0, len(rows))
        x = float(cols[other]) + reach * math.cos(direction)
        y = float(rows[other]) + reach * math.sin(direction)
    margin = 0.3 * size
    x, y = min(max(x, margin), width - margin), min(max(y, margin), height - margin)
    return Pose(x, y, size, angle)


def _settle(things: list[Thing], new: Thing) -> bool:
    """Put `new` in front of `things`, unless one of them would be hidden too far; False if so."""
    if new.mask.sum() < MIN_AREA:
        return False
    left = [thing.mask & ~new.mask for thing in things]
    for thing, mask in zip(things, left, strict=True):
        if mask.sum() < max(MIN_AREA, MIN_VISIBLE * thing.drawn_area):
            return False
    for thing, mask in zip(things, left, strict=True):
        thing.mask = mask
    things.append(new)
    return True


def _draw_crowd(stream: RandomStream, canvas: Canvas) -> Thing:
    """A cluster of little figures of one class, shoulder to shoulder in rows."""
    height, width = canvas.size
    class_idx = stream.integer(0, len(THING_CLASSES))
    size = min(height, width) * (
        stream.uniform(0.11, 0.14) if is_figure(class_idx) else stream.uniform(0.06, 0.08)
    )
    step = size * (0.75 if is_figure(class_idx) else 1.0)
    num_rows, num_cols = stream.integer(2, 4), stream.integer(4, 7)
    left = stream.uniform(size, width - size - step * num_cols)
    top = stream.uniform(size, height - size - step * num_rows)
    mask = np.zeros((height, width), dtype=bool)
    for row in range(num_rows):
        for col in range(num_cols):
            x = left + step * (col + 0.5 * (row % 2) + stream.uniform(-0.15, 0.15))
            y = top + step * (row + stream.uniform(-0.15, 0.15))
            turn = 0.2 if is_figure(class_idx) else math.pi
            pose = Pose(x, y, size * stream.uniform(0.85, 1.1), stream.uniform(-turn, turn))
            mask |= draw_thing(stream, canvas, class_idx, pose).mask
    return Thing(class_idx, mask, int(mask.sum()), is_crowd=True)


def _mark_visibility(thing: Thing) -> None:
    """Set COCO's visibility of each keypoint from the mask."""
    if thing.keypoints is None:
        return
    height, width = thing.mask.shape
    for point in thing.keypoints:
        col, row = math.floor(point[0]), math.floor(point[1])
        if not (0 <= col < width and 0 <= row < height):
            point[:] = 0
        else:
            point[2] = 2 if thing.mask[row, col] else 1


def draw_scene(seed: int, split: int, index: int) -> Scene:
    """The picture number `index` of a split: the same for the same three numbers, on every machine."""
    stream = RandomStream(seed, split, index)
    height, width = stream.pick(_SHORT_SIDES), stream.pick(_LONG_SIDES)
    if stream.chance(0.4):
        height, width = width, height
    image, stuff = draw_background(stream, height, width)
    canvas, things = Canvas(image), list[Thing]()
    if not stream.chance(_EMPTY_SHARE):
        if stream.chance(_CROWD_SHARE):
            things.append(_draw_crowd(stream, canvas))
        for _ in range(stream.pick(_NUM_THINGS)):
            class_idx = stream.integer(0, len(THING_CLASSES))
            for _ in range(_PLACEMENTS):
                before = canvas.image.copy()
                pose = _pick_pose(stream, canvas, things, class_idx)
                if _settle(things, draw_thing(stream, canvas, class_idx, pose)):
                    break
                canvas.image = before
    for thing in things:
        _mark_visibility(thing)
    return Scene(np.rint(canvas.image * 255).astype(np.uint8), stuff, things)
