"""Random numbers, noise, patterns and backgrounds of the embedded data set `shapes`.

Everything is plain numpy arithmetic on pixel centres, so a picture does not depend on the version of a
drawing library. Coordinates are continuous: pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).
Colours are RGB arrays in [0, 1].
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class RandomStream:
    """Random numbers made from the raw bits of PCG64, seeded by a key of integers.

    numpy promises to keep the bits of PCG64 and SeedSequence, but not the methods of `Generator` (NEP 19):
    those are not used.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def array(self, *shape: int) -> np.ndarray:
        """Uniform numbers in [0, 1), float64."""
        raw = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.array(1)[0])

    def integer(self, low: int, high: int) -> int:
        """low <= n < high."""
        return low + int((high - low) * float(self.array(1)[0]))

    def chance(self, probability: float) -> bool:
        return float(self.array(1)[0]) < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options))]

    def color(self, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
        """A colour of any hue, (3,)."""
        hue = self.uniform(0, 1)
        return np.array(colorsys.hsv_to_rgb(hue, self.uniform(*saturation), self.uniform(*value)))


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(1 - share) * first + share * second; colours (3,) or (H, W, 3), share (H, W)."""
    return first + (second - first) * share[..., None]


def value_noise(stream: RandomStream, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1) with cells of size one; `u` and `v` broadcast together."""
    lattice = stream.array(32, 32)
    cell_u, cell_v = np.floor(u), np.floor(v)
    s, t = u - cell_u, v - cell_v
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    u0, v0 = cell_u.astype(np.int64) % 32, cell_v.astype(np.int64) % 32
    u1, v1 = (u0 + 1) % 32, (v0 + 1) % 32
    upper = lattice[v0, u0] * (1 - s) + lattice[v0, u1] * s
    lower = lattice[v1, u0] * (1 - s) + lattice[v1, u1] * s
    return upper * (1 - t) + lower * t


def _bands(u: np.ndarray, period: float) -> np.ndarray:
    """0 and 1 in turn along `u`, with borders one pixel wide."""
    return np.clip(0.5 + np.sin(u * (2 * math.pi / period)) * period / (2 * math.pi), 0, 1)


def _plain(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return np.zeros(np.broadcast(u, v).shape)


def _stripes(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    angle = stream.uniform(0, math.pi)
    return _bands(u * math.cos(angle) + v * math.sin(angle), max(5.0, size * stream.uniform(0.18, 0.35)))


def _checks(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    period = max(6.0, size * stream.uniform(0.25, 0.45))
    across, along = _bands(u, period), _bands(v, period)
    return across + along - 2 * across * along


def _dots(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    period = max(6.0, size * stream.uniform(0.2, 0.3))
    du, dv = (u / period) % 1 - 0.5, (v / period) % 1 - 0.5
    return np.clip(0.5 + (0.3 - np.sqrt(du * du + dv * dv)) * period, 0, 1)


def _mottle(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    cell = max(3.0, size * 0.12)
    coarse = value_noise(stream, u / cell, v / cell)
    fine = value_noise(stream, u * 2.3 / cell, v * 2.3 / cell)
    return np.clip(1.8 * (0.65 * coarse + 0.35 * fine) - 0.4, 0, 1)


def _gradient(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    angle = stream.uniform(0, 2 * math.pi)
    return np.clip(0.5 + (u * math.cos(angle) + v * math.sin(angle)) / size, 0, 1)


_PATTERNS: tuple[Callable[[RandomStream, np.ndarray, np.ndarray, float], np.ndarray], ...] = (
    _plain,
    _stripes,
    _checks,
    _dots,
    _mottle,
    _gradient,
)


def fill_pattern(stream: RandomStream, u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    """Two random colours in a random pattern, (H, W, 3); `u`, `v`: coordinates in a figure of `size`."""
    first = stream.color(saturation=(0.35, 0.95), value=(0.6, 1.0))
    second = stream.color(saturation=(0.2, 0.9), value=(0.35, 1.0))
    # At full contrast a pattern distracts from the outline, which alone tells the class.
    return mix(first, second, 0.6 * stream.pick(_PATTERNS)(stream, u, v, size))


def _tint(stream: RandomStream, palettes: Sequence[Sequence[Sequence[float]]]) -> list[np.ndarray]:
    """The colours of one palette, each shifted a little."""
    return [np.clip(np.array(c) + 0.1 * stream.array(3) - 0.05, 0, 1) for c in stream.pick(palettes)]


def _sky(stream: RandomStream, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A vertical gradient with soft clouds."""
    top, bottom, cloud = _tint(
        stream,
        (
            ((0.25, 0.50, 0.85), (0.70, 0.84, 0.95), (0.97, 0.97, 0.98)),
            ((0.40, 0.35, 0.60), (0.95, 0.68, 0.52), (0.98, 0.84, 0.74)),
            ((0.55, 0.60, 0.66), (0.80, 0.83, 0.86), (0.92, 0.92, 0.93)),
        ),
    )
    height = y.shape[0]
    share = np.broadcast_to(y / (0.7 * height), np.broadcast(x, y).shape)
    base = mix(top, bottom, np.clip(share, 0, 1))
    blobs = 0.7 * value_noise(stream, x / 38, y / 15) + 0.3 * value_noise(stream, x / 13, y / 7)
    return mix(base, cloud, np.clip(3.5 * (blobs - 0.5), 0, 0.85))


def _grass(stream: RandomStream, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Upright blades, light and dark patches, some with flowers."""
    dark, light, flower = _tint(
        stream,
        (
            ((0.16, 0.38, 0.12), (0.47, 0.68, 0.25), (0.95, 0.90, 0.45)),
            ((0.30, 0.38, 0.12), (0.68, 0.70, 0.32), (0.95, 0.75, 0.80)),
            ((0.10, 0.32, 0.20), (0.34, 0.60, 0.38), (0.95, 0.95, 0.92)),
        ),
    )
    lean = 0.25 * y
    blades = value_noise(stream, (x + lean) / 1.8, y / 6)
    patches = value_noise(stream, x / 30, y / 18)
    base = mix(dark, light, np.clip(0.65 * blades + 0.6 * patches - 0.1, 0, 1))
    if not stream.chance(0.4):
        return base
    period = stream.uniform(14, 22)
    du = (x / period + 0.6 * value_noise(stream, x / period, y / period)) % 1 - 0.5
    dv = (y / period) % 1 - 0.5
    return mix(base, flower, np.clip(0.5 + 1.3 - period * np.sqrt(du * du + dv * dv), 0, 1))


def _water(stream: RandomStream, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Level ripples with glints, finer towards the top."""
    deep, shallow, glint = _tint(
        stream,
        (
            ((0.05, 0.22, 0.42), (0.16, 0.45, 0.62), (0.75, 0.90, 0.95)),
            ((0.04, 0.30, 0.34), (0.20, 0.56, 0.56), (0.80, 0.95, 0.90)),
            ((0.14, 0.18, 0.32), (0.30, 0.38, 0.55), (0.90, 0.85, 0.80)),
        ),
    )
    swell = value_noise(stream, x / 24, y / 8)
    ripples = 0.5 + 0.5 * np.sin(y * (2 * math.pi / stream.uniform(6, 10)) + 7 * swell)
    base = mix(deep, shallow, np.clip(0.6 * ripples + 0.5 * swell - 0.05, 0, 1))
    sparkle = value_noise(stream, x / 7, y / 1.6)
    return mix(base, glint, np.clip(6 * (sparkle * (0.4 + 0.6 * ripples) - 0.72), 0, 0.8))


STUFF_CLASSES = ("sky", "grass", "water")

STUFF_PAINTERS: tuple[Callable[[RandomStream, np.ndarray, np.ndarray], np.ndarray], ...] = (
    _sky,
    _grass,
    _water,
)
"""In the order of STUFF_CLASSES: `painter(stream, x (1, W), y (H, 1)) -> (H, W, 3)`."""


def _wavy(stream: RandomStream, along: np.ndarray, length: float) -> np.ndarray:
    """A gentle wave with values within about +-0.08 * length."""
    wave = np.zeros_like(along)
    for cycles in (stream.uniform(0.5, 1.2), stream.uniform(1.5, 3), stream.uniform(4, 7)):
        wave = wave + np.sin(2 * math.pi * (cycles * along / length + stream.uniform(0, 1))) / cycles
    return 0.045 * length * wave


def draw_background(stream: RandomStream, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sky, grass and water in regions with wavy borders.

    Returns the picture (H, W, 3) in [0, 1] and the index of the stuff class per pixel (H, W) uint8; one to
    three classes appear.
    """
    x, y = np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
    horizon = stream.uniform(0.25, 0.6) * height if stream.chance(0.85) else -height
    above = horizon + _wavy(stream, x, width) - y  # > 0: sky
    if stream.chance(0.5):  # a shore that runs across, or one that runs up and down
        shore = (horizon + height) / 2 + _wavy(stream, x, width) - y
    else:
        shore = stream.uniform(0.3, 0.7) * width + _wavy(stream, y, height) + 0.3 * (y - height / 2) - x
    ground = stream.pick(((1, 2), (2, 1), (1, 1), (2, 2)))

    image = STUFF_PAINTERS[ground[0]](stream, x, y)
    if ground[0] != ground[1]:
        image = mix(image, STUFF_PAINTERS[ground[1]](stream, x, y), np.clip(0.5 + shore, 0, 1))
    image = mix(image, STUFF_PAINTERS[0](stream, x, y), np.clip(0.5 + above, 0, 1))
    stuff = np.where(above > 0, 0, np.where(shore > 0, ground[1], ground[0])).astype(np.uint8)
    return image, stuff
