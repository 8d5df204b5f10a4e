"""Colours that are easy to tell apart, and colours by name."""

import colorsys
import random
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

__all__ = ["colormap", "random_color", "random_colors", "to_rgb"]

Color: TypeAlias = str | Sequence[float] | np.ndarray
"""A name ("g", "red", "#1f77b4") or RGB in [0, 1]."""
Rgb: TypeAlias = tuple[float, float, float]
"""RGB in [0, 1]."""

_NAMED = {
    **dict.fromkeys(("r", "red"), (0.90, 0.15, 0.15)),
    **dict.fromkeys(("g", "green"), (0.10, 0.65, 0.20)),
    **dict.fromkeys(("b", "blue"), (0.12, 0.35, 0.90)),
    **dict.fromkeys(("c", "cyan"), (0.10, 0.80, 0.85)),
    **dict.fromkeys(("m", "magenta"), (0.85, 0.15, 0.75)),
    **dict.fromkeys(("y", "yellow"), (0.98, 0.85, 0.15)),
    **dict.fromkeys(("k", "black"), (0.0, 0.0, 0.0)),
    **dict.fromkeys(("w", "white"), (1.0, 1.0, 1.0)),
    "orange": (1.0, 0.55, 0.10),
    "gray": (0.5, 0.5, 0.5),
    "grey": (0.5, 0.5, 0.5),
}
_NUM_COLORS = 80
_random = random.Random(0)  # of its own: drawing must not shift the random numbers of a training


def _make_table() -> np.ndarray:
    """(80, 3) RGB in [0, 1]: golden-ratio steps around the hue circle; vivid, pale and dark in turn.

    The first hue is the one that keeps the first ten colours farthest apart.
    """
    levels = ((0.85, 0.95), (0.50, 1.00), (0.95, 0.65))  # saturation, value
    hues = [(0.12 + i * 0.6180339887498949) % 1 for i in range(_NUM_COLORS)]
    return np.array(
        [colorsys.hsv_to_rgb(hue, *levels[i % 3]) for i, hue in enumerate(hues)], dtype=np.float32
    )


_TABLE = _make_table()


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """A table of distinct colours.

    Args:
        rgb: RGB order instead of BGR.
        maximum: 255 or 1, the value of full brightness.

    Returns:
        (80, 3) float32 in [0, maximum].
    """
    if maximum not in (1, 255):
        raise ValueError(f"maximum is {maximum}; allowed are 1 and 255")
    return (_TABLE if rgb else _TABLE[:, ::-1]) * np.float32(maximum)


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """One colour of `colormap`, (3,) float32."""
    return colormap(rgb, maximum)[_random.randrange(_NUM_COLORS)]


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """`N` colours of `colormap`, all different as long as the table lasts."""
    table = colormap(rgb, maximum)
    order = [i for _ in range(0, N, _NUM_COLORS) for i in _random.sample(range(_NUM_COLORS), _NUM_COLORS)]
    return [table[i] for i in order[:N]]


def to_rgb(color: Color) -> Rgb:
    """RGB in [0, 1] of a name or of three (or, with opacity, four) numbers."""
    if isinstance(color, str):
        if color.lower() in _NAMED:
            return _NAMED[color.lower()]
        digits = color.removeprefix("#")
        if len(digits) == 6 and color.startswith("#"):
            red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
            return red, green, blue
        raise ValueError(
            f"Unknown colour {color!r}; allowed are '#rrggbb', RGB in [0, 1], {', '.join(_NAMED)}"
        )
    red, green, blue = (min(max(float(c), 0.0), 1.0) for c in color[:3])
    return red, green, blue
