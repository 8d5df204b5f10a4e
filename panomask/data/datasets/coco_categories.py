"""The head of a COCO file: reading the JSON, its categories, and what they say about keypoints."""

import colorsys
import json
import mmap
import re
from pathlib import Path
from typing import Any

from panomask.data.catalog import Metadata
from panomask.data.datasets.keypoint_sides import find_flip_pairs
from panomask.errors import InputError
from panomask.json_file import read_json

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_CATEGORIES = b'"categories"'


def read_coco_categories(json_file: str | Path) -> list[dict[str, Any]]:
    """The categories of a COCO file, sorted by id (the order of the classes), without parsing the whole file.

    Takes milliseconds when "categories" is the last key of the file or comes before the annotations, as it
    does in all usual exports. Falls back to parsing everything.

    Raises:
        InputError: the file is missing or broken, or the categories are (see `check_categories`).
    """
    return check_categories(json_file, find_categories(json_file))


def find_categories(json_file: str | Path) -> list[Any]:
    """The list "categories" of a COCO file, unchecked; see `read_coco_categories`."""
    categories = _find_categories(Path(json_file))
    if categories is None:
        document = read_json(json_file)
        categories = top_level_list(json_file, document, "categories")
    return categories


def top_level_list(json_file: str | Path, document: Any, key: str) -> list[Any]:
    """`document[key]`; InputError unless the document is an object that holds a list there."""
    if not isinstance(document, dict):
        raise InputError(
            f"{json_file}: the top level is a {type(document).__name__}; a COCO file is an object with the"
            ' lists "images", "annotations" and "categories" (a list alone is a file of results)'
        )
    if key not in document:
        keys = ", ".join(map(repr, list(document)[:10])) or "none"
        raise InputError(
            f'{json_file}: the key "{key}" is missing at the top level (keys there: {keys}); a COCO file has'
            ' the lists "images", "annotations" and "categories"'
        )
    if not isinstance(document[key], list):
        raise InputError(
            f'{json_file}: "{key}" is a {type(document[key]).__name__}; it must be a list of objects'
        )
    return document[key]


def check_categories(json_file: str | Path, categories: list[Any]) -> list[dict[str, Any]]:
    """The categories sorted by id.

    Raises:
        InputError: none at all, one without integer id or name, or an id or a name that occurs twice.
    """
    ids: dict[int, int] = {}
    names: dict[str, int] = {}
    for position, category in enumerate(categories):
        where = f"{json_file}: category number {position} (counted from 0)"
        if not isinstance(category, dict):
            raise InputError(f'{where}: is {category!r:.80}; it must be an object with "id" and "name"')
        id_, name = category.get("id"), category.get("name")
        if not isinstance(id_, int) or isinstance(id_, bool):
            raise InputError(f'{where}: "id" is {id_!r:.80}; it must be an integer')
        if not isinstance(name, str) or not name or not _is_unicode(name):
            raise InputError(
                f'{where}: "name" is {name!a:.80}; category {id_} needs a text that is not empty, of whole'
                " characters"
            )
        if id_ in ids:
            raise InputError(f"{where}: id {id_} is that of category number {ids[id_]} too; ids must differ")
        if name in names:
            raise InputError(
                f"{where}: name {name!r} is that of category number {names[name]} too; names must differ, so"
                " rename one of them or merge the two"
            )
        ids[id_] = names[name] = position
    if not categories:
        raise InputError(f'{json_file}: "categories" is empty; at least one category is needed')
    return sorted(categories, key=lambda category: category["id"])


def _is_unicode(text: str) -> bool:
    """Whether a text can be written to a file: JSON may hold halves of characters, such as "\\ud83d"."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _find_categories(path: Path) -> list[Any] | None:
    """The top-level "categories" list, found in the bytes of the file; None when a full parse must decide."""
    try:
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _last_categories(data) or _first_categories(data)
    except (OSError, ValueError):  # missing or empty file, broken JSON: the full parse says it well
        return None


def _last_categories(data: mmap.mmap) -> list[Any] | None:
    """The list when it is the last thing in the file.

    Nothing but the brace that closes the document follows, therefore it is at the top level: text within a
    string or a nested object would have to be closed first.
    """
    start = data.rfind(_CATEGORIES)
    found = _list_after_key(data, start + len(_CATEGORIES)) if start >= 0 else None
    if found is None or len(data) - found[1] > 1000 or data[found[1] :].strip() != b"}":
        return None
    return found[0]


def _first_categories(data: mmap.mmap) -> list[Any] | None:
    """The list found by counting brackets, outside of strings, from the start of the file."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data):
        text = token.group()
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif depth == 1 and text == _CATEGORIES:
            found = _list_after_key(data, token.end())
            if found is not None:
                return found[0]
    return None


def _list_after_key(data: mmap.mmap, position: int) -> tuple[list[Any], int] | None:
    """The list that follows the colon at `position` and the position after it; None for anything else.

    ValueError when the list is not valid JSON.
    """
    colon = _COLON.match(data, position)
    if colon is None or data[colon.end() : colon.end() + 1] != b"[":
        return None
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data, colon.end()):
        text = token.group()
        depth += (text in b"{[") - (text in b"}]")
        if depth == 0:
            return json.loads(data[colon.end() : token.end()]), token.end()
    return None


def keypoint_metadata(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """The metadata fields of the keypoints that the categories declare.

    A category declares keypoints by "keypoints" (names), "skeleton" (pairs of indices from 1, for drawing)
    and "sigmas" (one number each, for OKS). Names that differ in their side only (`left_eye`, `right_eye`)
    swap when an image is mirrored.

    Returns:
        keypoint_names, keypoint_flip_map, keypoint_connection_rules and, if declared, keypoint_oks_sigmas; {}
        when no category declares keypoints, or two declare different ones: a keypoint head predicts one set.
    """
    declared = [c for c in categories if is_name_list(c.get("keypoints"))]
    sets = [(c["keypoints"], c.get("sigmas")) for c in declared]
    if not sets or any(each != sets[0] for each in sets):
        return {}
    names, sigmas = sets[0]
    fields = {
        "keypoint_names": names,
        "keypoint_flip_map": find_flip_pairs(names),
        "keypoint_connection_rules": _connections(names, declared[0].get("skeleton")),
    }
    return {**fields, "keypoint_oks_sigmas": sigmas} if isinstance(sigmas, list) and sigmas else fields


def add_keypoint_metadata(metadata: Metadata, categories: list[dict[str, Any]]) -> None:
    """Set the keypoint fields that the categories declare, in place; fields that were set by hand stay."""
    if metadata.get("keypoint_names") is None:
        fields = keypoint_metadata(categories)
        metadata.set(**{name: value for name, value in fields.items() if metadata.get(name) is None})


def is_name_list(value: Any) -> bool:
    """Whether `value` is a list of different texts, not empty."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _connections(names: list[str], skeleton: Any) -> list[tuple[str, str, tuple[int, int, int]]]:
    """(name, name, RGB colour) for each edge; an edge to a keypoint that does not exist is left out."""
    edges = [
        (int(edge[0]), int(edge[1]))
        for edge in (skeleton if isinstance(skeleton, list) else [])
        if isinstance(edge, list) and len(edge) == 2 and all(e in range(1, len(names) + 1) for e in edge)
    ]
    return [(names[a - 1], names[b - 1], distinct_color(i)) for i, (a, b) in enumerate(edges)]


def distinct_color(index: int) -> tuple[int, int, int]:
    """RGB colour 0-255 number `index`: steps of the golden ratio around the hue circle stay far apart."""
    hue = (0.02 + index * 0.618033988749895) % 1.0
    saturation, value = (0.85, 0.65, 1.0)[index % 3], (0.95, 1.0, 0.75)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
