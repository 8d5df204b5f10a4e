"""The figures of the embedded data set `shapes`: their outlines, their fill and their keypoints.

A figure is described by signed distances in pixels (negative inside), which give sharp masks and anti-aliased
pictures from one formula.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from panomask.data.datasets.shapes_texture import RandomStream, fill_pattern, mix

THING_CLASSES = ("circle", "square", "triangle", "star", "ring", "figure")

KEYPOINT_NAMES = (
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_hand",
    "right_hand",
    "left_hip",
    "right_hip",
    "left_foot",
    "right_foot",
)


def is_figure(class_idx: int) -> bool:
    """Whether the class is the person with keypoints."""
    return THING_CLASSES[class_idx] == "figure"


@dataclass
class Thing:
    """One figure, or a crowd of little ones.

    Attributes:
        mask: visible pixels, (H, W) bool.
        drawn_area: their number before anything was drawn in front.
        keypoints: (K, 3) of x, y in continuous coordinates and COCO's visibility (2 visible, 1 covered by
            another thing, 0 outside the image); for class `figure` alone.
    """

    class_idx: int
    mask: np.ndarray
    drawn_area: int
    is_crowd: bool = False
    keypoints: np.ndarray | None = None


@dataclass
class Canvas:
    """What is drawn on: the picture in [0, 1], and the pixel centres."""

    image: np.ndarray  # (H, W, 3)

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    def paint(self, distance: np.ndarray, fill: np.ndarray, border: float, rows: slice, cols: slice) -> None:
        """Cover the inside of `distance` (h, w) with `fill`, with a darker edge of `border` pixels."""
        if border > 0:
            fill = mix(fill, 0.35 * fill, np.clip(0.5 + distance + border, 0, 1))
        patch = self.image[rows, cols]
        self.image[rows, cols] = mix(patch, fill, np.clip(0.5 - distance, 0, 1))


def _polygon_distance(u: np.ndarray, v: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance to a simple polygon, corners (N, 2)."""
    nearest = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        du, dv, ex, ey = u - x0, v - y0, x1 - x0, y1 - y0
        t = np.clip((du * ex + dv * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (du - t * ex) ** 2 + (dv - t * ey) ** 2)
        if y0 != y1:  # even-odd rule along a ray to the right
            inside ^= ((y0 <= v) != (y1 <= v)) & (du < dv * (ex / ey))
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def _spokes(stream: RandomStream, radii: list[float], jitter: float) -> np.ndarray:
    """Corners at the given radii, at equal angles shifted by up to `jitter` of a step."""
    steps = np.arange(len(radii)) + jitter * (2 * stream.array(len(radii)) - 1)
    angles = 2 * math.pi * steps / len(radii) - math.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None]


def _circle(stream: RandomStream, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    return np.sqrt(u * u + v * v) - radius


def _square(stream: RandomStream, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    corner = 0.9 * radius
    return _polygon_distance(u, v, corner * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))


def _triangle(stream: RandomStream, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    return _polygon_distance(u, v, _spokes(stream, [1.25 * radius] * 3, jitter=0.1))


def _star(stream: RandomStream, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    inner = stream.uniform(0.46, 0.54)
    return _polygon_distance(u, v, _spokes(stream, [1.2 * radius, 1.2 * inner * radius] * 5, jitter=0.0))


def _ring(stream: RandomStream, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    inner = radius * stream.uniform(0.45, 0.55)
    distance = np.sqrt(u * u + v * v)
    return np.maximum(distance - radius, inner - distance)


_OUTLINES: tuple[Callable[[RandomStream, np.ndarray, np.ndarray, float], np.ndarray], ...] = (
    _circle,
    _square,
    _triangle,
    _star,
    _ring,
)


@dataclass
class Pose:
    """Where a figure stands: centre and size (pixels), rotation (radians)."""

    x: float
    y: float
    size: float
    angle: float

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns that the figure may touch."""
        reach = 0.8 * self.size + 2
        x0, x1 = np.clip([math.floor(self.x - reach), math.ceil(self.x + reach)], 0, width)
        y0, y1 = np.clip([math.floor(self.y - reach), math.ceil(self.y + reach)], 0, height)
        return slice(int(y0), int(y1)), slice(int(x0), int(x1))

    def to_local(self, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres of the window in the figure's own frame, each (h, w)."""
        dx = np.arange(cols.start, cols.stop)[None] + 0.5 - self.x
        dy = np.arange(rows.start, rows.stop)[:, None] + 0.5 - self.y
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return dx * cos + dy * sin, dy * cos - dx * sin

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 2) of the figure's own frame in the image."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        x = points[:, 0] * turn[0, 0] + points[:, 1] * turn[1, 0] + self.x
        y = points[:, 0] * turn[0, 1] + points[:, 1] * turn[1, 1] + self.y
        return np.stack([x, y], axis=1)


def _capsule(u: np.ndarray, v: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a segment drawn with a round pen."""
    du, dv = u - start[0], v - start[1]
    ex, ey = end - start
    t = np.clip((du * ex + dv * ey) / (ex * ex + ey * ey), 0, 1)
    return np.sqrt((du - t * ex) ** 2 + (dv - t * ey) ** 2) - radius


def _joints(stream: RandomStream) -> dict[str, np.ndarray]:
    """Joints of a figure of height one; side `a` is on the left of the picture, `b` on the right."""
    joints = {"head": np.array([0.0, -0.33])}
    for side, sign in (("a", -1.0), ("b", 1.0)):
        arm, leg = stream.uniform(0.15, 2.5), stream.uniform(0.08, 0.45)  # from straight down, outwards
        shoulder, hip = np.array([sign * 0.16, -0.13]), np.array([sign * 0.085, 0.14])
        joints[f"shoulder_{side}"], joints[f"hip_{side}"] = shoulder, hip
        joints[f"hand_{side}"] = shoulder + 0.25 * np.array([sign * math.sin(arm), math.cos(arm)])
        joints[f"foot_{side}"] = hip + 0.29 * np.array([sign * math.sin(leg), math.cos(leg)])
    return joints


def _name_sides(joints: dict[str, np.ndarray], faces_us: bool) -> np.ndarray:
    """Joints in the order of KEYPOINT_NAMES. Who faces us has the left hand on the right of the picture.

    Left and right follow from the face or the knapsack, so that a mirrored picture with swapped names is a
    picture that could have been drawn: a limb coloured by its side would not allow that.
    """
    sides = {"left": "b", "right": "a"} if faces_us else {"left": "a", "right": "b"}
    rows = []
    for name in KEYPOINT_NAMES:
        side, _, joint = name.partition("_")
        rows.append(joints[f"{joint}_{sides[side]}"] if joint else joints[name])
    return np.stack(rows)


def _draw_person(stream: RandomStream, canvas: Canvas, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Class `figure`: a stocky person, seen from the front (face) or from behind (hair, knapsack).

    Returns the silhouette (h, w) within the pose's window and the keypoints (K, 2) in the image.
    """
    rows, cols = pose.window(*canvas.size)
    u, v = (c / pose.size for c in pose.to_local(rows, cols))
    joints, faces_us = _joints(stream), stream.chance(0.7)
    silhouette = np.zeros(u.shape, dtype=bool)

    def paint(distance: np.ndarray, fill: np.ndarray, border: float = 1.0) -> None:
        distance = distance * pose.size
        silhouette[distance < 0] = True
        canvas.paint(distance, np.broadcast_to(fill, (*u.shape, 3)), border, rows, cols)

    skin = np.array(stream.pick(((0.98, 0.84, 0.70), (0.85, 0.62, 0.45), (0.55, 0.36, 0.25))))
    shirt = fill_pattern(stream, u * pose.size, v * pose.size, 0.5 * pose.size)
    sleeves, trousers, gloves, boots = (stream.color((0.3, 0.9), (0.45, 1.0)) for _ in range(4))
    for side in "ab":
        paint(_capsule(u, v, joints[f"hip_{side}"], joints[f"foot_{side}"], 0.075), trousers)
        paint(_capsule(u, v, joints[f"foot_{side}"] - 0.01, joints[f"foot_{side}"] + 0.01, 0.085), boots)
    paint(_capsule(u, v, np.array([0.0, -0.1]), np.array([0.0, 0.1]), 0.165), shirt)
    if not faces_us:
        paint(_capsule(u, v, np.array([0.0, -0.07]), np.array([0.0, 0.07]), 0.10), 0.25 * gloves)
    for side in "ab":
        paint(_capsule(u, v, joints[f"shoulder_{side}"], joints[f"hand_{side}"], 0.06), sleeves)
        paint(_capsule(u, v, joints[f"hand_{side}"] - 0.01, joints[f"hand_{side}"] + 0.01, 0.075), gloves)
    head = np.sqrt(u * u + (v + 0.33) ** 2) - 0.15
    hair = 0.5 * stream.color((0.2, 0.8), (0.2, 0.7))
    paint(head, skin if faces_us else hair)
    if faces_us:
        for x in (-0.055, 0.055):
            paint(np.sqrt((u - x) ** 2 + (v + 0.34) ** 2) - 0.032, np.zeros(3), border=0)
        paint(np.maximum(head, v + 0.41), hair, border=0)
    return silhouette, pose.to_image(_name_sides(joints, faces_us) * pose.size)


def draw_thing(stream: RandomStream, canvas: Canvas, class_idx: int, pose: Pose) -> Thing:
    """Draw one figure over everything else; its mask is clipped to the image, nothing covers it yet."""
    height, width = canvas.size
    rows, cols = pose.window(height, width)
    mask = np.zeros((height, width), dtype=bool)
    if is_figure(class_idx):
        silhouette, points = _draw_person(stream, canvas, pose)
        mask[rows, cols] = silhouette
        keypoints = np.concatenate([points, np.full((len(points), 1), 2.0)], axis=1)
        return Thing(class_idx, mask, int(mask.sum()), keypoints=keypoints)
    u, v = pose.to_local(rows, cols)
    distance = _OUTLINES[class_idx](stream, u, v, pose.size / 2)
    mask[rows, cols] = distance < 0
    canvas.paint(distance, fill_pattern(stream, u, v, pose.size), 1.7, rows, cols)
    return Thing(class_idx, mask, int(mask.sum()))
