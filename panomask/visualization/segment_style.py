"""How segments are coloured and what is written in them: the same for a class in every image."""

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from panomask.data.catalog import Metadata
from panomask.visualization.colormap import Rgb, colormap, to_rgb
from panomask.visualization.object_style import _create_text_labels

_LEAST_HUE, _MOST_HUE = 0.03, 0.5
_GRAY_IN_STUFF = 0.35
_STUFF_OPACITY = 0.75


@dataclass(frozen=True)
class SegmentStyle:
    """How one segment is drawn.

    Attributes:
        color: RGB in [0, 1].
        text: written inside if there is room; may be empty.
        opacity: share of the opacity that the caller asked for.
    """

    color: Rgb
    text: str = ""
    opacity: float = 1.0


def thing_color(category: int, metadata: Metadata) -> Rgb:
    """The colour of a thing class: of metadata's `thing_colors`, else of the colour map."""
    return _color(metadata.get("thing_colors"), category) or _of_map(category)


def stuff_color(category: int, metadata: Metadata) -> Rgb:
    """The colour of a stuff class: of metadata's `stuff_colors`, else a muted one behind the things'."""
    given = _color(metadata.get("stuff_colors"), category)
    if given is not None:
        return given
    red, green, blue = (
        c + (0.5 - c) * _GRAY_IN_STUFF for c in _of_map(len(metadata.get("thing_classes") or ()) + category)
    )
    return red, green, blue


def _color(table: Any, category: int) -> Rgb | None:
    """Entry `category` of a table of RGB in 0-255."""
    if table is None or not 0 <= category < len(table):
        return None
    red, green, blue = (float(c) / 255 for c in table[category])
    return red, green, blue


def _of_map(number: int) -> Rgb:
    table = colormap(rgb=True, maximum=1)
    return to_rgb(table[number % len(table)])


def num_thing_classes(metadata: Metadata) -> int:
    """How many thing classes there are; where nothing says so, many."""
    return len(metadata.get("thing_classes") or range(80))


def shade(color: Rgb, number: int, num_classes: int) -> Rgb:
    """The colour of object `number` of a class: 0 has the class's own, the others differ in hue and light.

    The fewer classes there are, the farther their objects' hues may lie apart; with one class, anywhere.
    """
    if number == 0:
        return color
    # Fractions of multiples of these never come close to each other soon: the golden ratio, and its
    # sisters for two dimensions (the plastic number).
    hue_step, light_step, chroma_step = (
        number * ratio % 1 for ratio in (0.6180339887498949, 0.7548776662466927, 0.5698402909980532)
    )
    reach = min(max(_MOST_HUE / max(1, num_classes), _LEAST_HUE), _MOST_HUE)
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    return colorsys.hsv_to_rgb(
        (hue + (2 * hue_step - 1) * reach) % 1,
        min(1.0, saturation * (0.75 + 0.4 * chroma_step)),
        min(1.0, max(0.4, value * (0.65 + 0.45 * light_step))),
    )


def panoptic_styles(
    segments_info: Sequence[dict[str, Any]],
    metadata: Metadata,
    thing_colors: Iterable[Rgb] | None = None,
) -> list[SegmentStyle]:
    """Styles of panoptic segments, in their order.

    Args:
        segments_info: dicts with category_id (contiguous), isthing and, if there, score and iscrowd.
        metadata: thing_classes, thing_colors, stuff_classes, stuff_colors are used if there.
        thing_colors: of the things among them; by default shades of their class's colour.
    """
    numbers: dict[int, int] = {}
    num_classes = num_thing_classes(metadata)
    given = None if thing_colors is None else iter(thing_colors)
    styles = []
    for info in segments_info:
        category = int(info["category_id"])
        if not info["isthing"]:
            styles.append(stuff_style(category, metadata))
            continue
        number = numbers[category] = numbers.get(category, -1) + 1
        color = shade(thing_color(category, metadata), number, num_classes) if given is None else next(given)
        texts = _create_text_labels(
            [category],
            None if info.get("score") is None else [info["score"]],
            metadata.get("thing_classes"),
            [bool(info.get("iscrowd"))],
        )
        styles.append(SegmentStyle(color, (texts or [""])[0]))
    return styles


def stuff_style(category: int, metadata: Metadata) -> SegmentStyle:
    """The style of a stuff class among things: fainter than they are."""
    (text,) = _create_text_labels([category], None, metadata.get("stuff_classes")) or [""]
    return SegmentStyle(stuff_color(category, metadata), text, _STUFF_OPACITY)


def semantic_styles(categories: Sequence[int], metadata: Metadata) -> list[SegmentStyle]:
    """Styles of semantic classes: one class is as important as the other."""
    return [replace(stuff_style(category, metadata), opacity=1.0) for category in categories]
