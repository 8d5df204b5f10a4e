"""How objects are coloured and what their labels say."""

from collections.abc import Sequence
from enum import Enum, unique

from panomask.visualization.colormap import Color, Rgb, to_rgb


@unique
class ColorMode(Enum):
    """How objects get their colours."""

    IMAGE = 0
    """Every object another colour."""
    SEGMENTATION = 1
    """Every class another colour (metadata's `thing_colors`), its objects in shades of it."""
    IMAGE_BW = 2
    """As IMAGE, and everything outside the masks in grey."""


def _create_text_labels(
    classes: Sequence[int] | None,
    scores: Sequence[float] | None,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """A text per object such as "person 87%", "|crowd" behind a crowd; None without classes and scores."""
    labels = None
    if classes is not None:
        labels = [
            class_names[i] if class_names and i < len(class_names) else str(i) for i in map(int, classes)
        ]
    if scores is not None:
        percents = [f"{float(score) * 100:.0f}%" for score in scores]
        labels = (
            percents if labels is None else [" ".join(pair) for pair in zip(labels, percents, strict=True)]
        )
    if labels is not None and is_crowd is not None:
        labels = [label + ("|crowd" if crowd else "") for label, crowd in zip(labels, is_crowd, strict=True)]
    return labels


def keep_colors_apart(colors: Sequence[Color]) -> list[Rgb]:
    """The colours, each turned into another shade the more often it came before."""
    counts: dict[Rgb, int] = {}
    result = []
    for rgb in map(to_rgb, colors):
        count = counts[rgb] = counts.get(rgb, -1) + 1
        target = 1.0 if count % 2 else 0.0
        share = 0.0 if count == 0 else 0.14 * (1 + (count - 1) % 4)
        red, green, blue = (c + (target - c) * share for c in rgb)
        result.append((red, green, blue))
    return result
