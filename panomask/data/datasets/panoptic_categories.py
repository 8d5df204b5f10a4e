"""The categories of a COCO panoptic file, and the classes of a data set that follow from them.

Things are numbered 0..T-1 and stuff 1..S, each in the order of the category ids. In semantic labels 0 stands
for "things": the pixels of every thing, crowds too. Detectron2 calls this layout "panoptic separated".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from panomask.data.catalog import Metadata, MetadataCatalog
from panomask.data.datasets.coco_categories import check_categories, distinct_color, find_categories
from panomask.errors import InputError
from panomask.semantic_png import IGNORE_LABEL

THINGS_LABEL = 0
"""The semantic label of the pixels of every thing."""

THINGS_NAME = "things"
THINGS_COLOR = (82, 18, 128)
"""RGB of the semantic class "things", as Detectron2 draws it."""

LABEL_DIVISOR = 1000


class SegmentClass(NamedTuple):
    """What the category of a segment means.

    Attributes:
        class_idx: contiguous number of the thing or stuff class.
        is_thing: whether its objects are told apart.
    """

    class_idx: int
    is_thing: bool


def read_panoptic_categories(json_file: str | Path) -> list[dict[str, Any]]:
    """The categories of a panoptic file sorted by id, without parsing the whole file.

    Raises:
        InputError: the file is missing or broken, or see `check_panoptic_categories`.
    """
    return check_panoptic_categories(json_file, find_categories(json_file))


def check_panoptic_categories(json_file: str | Path, categories: list[Any]) -> list[dict[str, Any]]:
    """The categories sorted by id, their "isthing" as a bool.

    Raises:
        InputError: one that is both thing and stuff, one without "isthing", or see `check_categories`.
    """
    _refuse_thing_and_stuff(json_file, categories)
    checked = check_categories(json_file, categories)
    for category in checked:
        is_thing = category.get("isthing")
        if not isinstance(is_thing, (bool, int)) or is_thing not in (0, 1):
            found = f"has {is_thing!r:.80} as" if "isthing" in category else "has no"
            raise InputError(
                f'{json_file}: category {category["id"]} ({category["name"]!r}) {found} "isthing"; a panoptic'
                " file needs 1 for things and 0 for stuff; a file of instances is given without"
                " PANOPTIC_ROOT"
            )
    return [{**category, "isthing": bool(category["isthing"])} for category in checked]


def _refuse_thing_and_stuff(json_file: str | Path, categories: list[Any]) -> None:
    """InputError for an id or a name that one entry calls a thing and another one stuff."""
    seen: dict[tuple[str, Any], tuple[int, Any]] = {}
    for position, category in enumerate(categories):
        if not isinstance(category, dict):
            continue
        for key in ("id", "name"):
            value, is_thing = category.get(key), category.get("isthing")
            if not isinstance(value, (int, str)):
                continue
            first, other = seen.setdefault((key, value), (position, is_thing))
            if [other, is_thing] in ([0, 1], [1, 0]):
                raise InputError(
                    f"{json_file}: category number {position} (counted from 0): {key} {value!r} is"
                    f" {'a thing' if is_thing else 'stuff'} here and {'a thing' if other else 'stuff'} in"
                    f' category number {first}; a category is one of the two: mend "isthing", or give'
                    " the two different ids and names"
                )


def panoptic_classes(categories: list[dict[str, Any]]) -> dict[int, SegmentClass]:
    """Category id of the file -> its class, for checked categories."""
    things = [category["id"] for category in categories if category["isthing"]]
    stuff = [category["id"] for category in categories if not category["isthing"]]
    return {
        **{id_: SegmentClass(index, True) for index, id_ in enumerate(things)},
        **{id_: SegmentClass(index, False) for index, id_ in enumerate(stuff, start=THINGS_LABEL + 1)},
    }


def panoptic_class_metadata(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """thing_* and stuff_* fields of metadata for checked categories.

    A category without a "color" (three numbers 0 to 255) gets one that is far from its neighbours'.
    """
    things = [(i, category) for i, category in enumerate(categories) if category["isthing"]]
    stuff = [(i, category) for i, category in enumerate(categories) if not category["isthing"]]
    classes = panoptic_classes(categories)
    stuff_ids = {id_: each.class_idx for id_, each in classes.items() if not each.is_thing}
    if all(category["id"] != 0 for category in categories):
        stuff_ids[0] = THINGS_LABEL  # Detectron2's entry for the label "things"
    return {
        "thing_classes": [category["name"] for _, category in things],
        "thing_colors": [_color(*entry) for entry in things],
        "thing_dataset_id_to_contiguous_id": {
            id_: each.class_idx for id_, each in classes.items() if each.is_thing
        },
        "stuff_classes": [THINGS_NAME, *(category["name"] for _, category in stuff)],
        "stuff_colors": [list(THINGS_COLOR), *(_color(*entry) for entry in stuff)],
        "stuff_dataset_id_to_contiguous_id": stuff_ids,
    }


def _color(position: int, category: dict[str, Any]) -> list[int]:
    color = category.get("color")
    if isinstance(color, list) and len(color) == 3 and all(type(c) is int and 0 <= c <= 255 for c in color):
        return list(color)
    return list(distinct_color(position))


def set_panoptic_metadata(
    metadata: Metadata, json_file: str | Path, categories: list[dict[str, Any]]
) -> dict[int, SegmentClass]:
    """Put the classes of the checked `categories` into the metadata; colours that are there stay.

    Returns:
        Category id of the file -> class.

    Raises:
        InputError: the set is known with other classes, or a class has the number of the ignored label.
    """
    fields = panoptic_class_metadata(categories)
    ignore_label = metadata.get("ignore_label", IGNORE_LABEL)
    if 0 <= ignore_label < len(fields["stuff_classes"]):
        raise InputError(
            f"{json_file}: {len(fields['stuff_classes']) - 1} stuff categories are numbered from 1 on, but"
            f" {ignore_label} stands for void; set DATASETS.REGISTER.<name>.IGNORE_LABEL 65535 (in Python:"
            ' register_panoptic(..., metadata={"ignore_label": 65535}))'
        )
    for field, value in fields.items():
        known = metadata.get(field)
        if field.endswith("_colors") and known is not None:
            continue
        if known is not None and type(value)(known) != value:
            raise InputError(
                f"{json_file}: its categories give {field} {str(value)[:200]}, but data set"
                f" {metadata.name!r} is known with {str(known)[:200]}; register it under another name"
            )
        metadata.__dict__[field] = value
    return panoptic_classes(categories)


def ensure_panoptic_metadata(name: str) -> None:
    """Let the metadata of data set `name` have its classes, from the head of its panoptic file if needed.

    Does nothing for a set without a panoptic file, or one whose stuff classes are known.

    Raises:
        InputError: the file is missing or broken, or its categories are.
    """
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("panoptic_json")
    if json_file is not None and metadata.get("stuff_classes") is None:
        set_panoptic_metadata(metadata, json_file, read_panoptic_categories(json_file))


def classes_of_metadata(
    metadata: Mapping[str, Any], category_ids: set[int] | None
) -> dict[int, SegmentClass]:
    """Category id of the file -> class, by the two id maps that Detectron2's metadata hold; things win.

    Args:
        metadata: with thing_dataset_id_to_contiguous_id and stuff_dataset_id_to_contiguous_id.
        category_ids: those of the file, if it lists any. Others are not known then: Detectron2's maps have an
            entry 0 for the label "things", which is no category.

    Raises:
        InputError: a map is missing.
    """
    for field in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"):
        if field not in metadata:
            raise InputError(
                f"the metadata of a panoptic data set needs {field}, category id -> class number; it has"
                f" {', '.join(metadata) or 'nothing'}; register_panoptic takes both maps from the file"
            )
    stuff, things = (
        {
            id_: SegmentClass(class_idx, kind == "thing")
            for id_, class_idx in metadata[f"{kind}_dataset_id_to_contiguous_id"].items()
            if category_ids is None or id_ in category_ids
        }
        for kind in ("stuff", "thing")
    )
    return {**stuff, **things}
