"""What is known about the built-in data sets without reading a file."""

from typing import Any

from panomask.data.datasets.coco_categories import distinct_color
from panomask.errors import InputError

_COCO_THINGS = (
    "1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat, 10 traffic light,"
    "11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep,"
    "21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie,"
    "33 suitcase, 34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat,"
    "40 baseball glove, 41 skateboard, 42 surfboard, 43 tennis racket, 44 bottle, 46 wine glass, 47 cup,"
    "48 fork, 49 knife, 50 spoon, 51 bowl, 52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli,"
    "57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62 chair, 63 couch, 64 potted plant, 65 bed,"
    "67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone,"
    "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86 vase, 87 scissors,"
    "88 teddy bear, 89 hair drier, 90 toothbrush"
)


def _parse(table: str) -> list[dict[str, Any]]:
    categories = []
    for index, entry in enumerate(table.split(",")):
        id_, name = entry.strip().split(" ", 1)
        color = list(distinct_color(index))
        categories.append({"id": int(id_), "name": name, "isthing": 1, "color": color})
    return categories


COCO_CATEGORIES = _parse(_COCO_THINGS)
"""COCO's 80 thing classes by id: {"id", "name", "isthing": 1, "color": [R, G, B]}."""


def _get_coco_instances_meta() -> dict[str, Any]:
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    return {
        "thing_dataset_id_to_contiguous_id": {c["id"]: index for index, c in enumerate(things)},
        "thing_classes": [c["name"] for c in things],
        "thing_colors": [c["color"] for c in things],
    }


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Metadata fields of a family of data sets; "coco" is the only one so far."""
    if dataset_name != "coco":
        raise InputError(f"There is no built-in metadata for {dataset_name!r}; known is 'coco'")
    return _get_coco_instances_meta()
