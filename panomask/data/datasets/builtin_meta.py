"""What is known about the built-in data sets without reading a file."""

from collections.abc import Callable
from functools import partial
from typing import Any

from panomask.data.datasets.cityscapes_labels import INSTANCE_LABELS, SCORED_LABELS
from panomask.data.datasets.coco_categories import distinct_color
from panomask.data.datasets.keypoint_sides import find_flip_pairs
from panomask.data.datasets.lvis_categories import LVIS_CLASSES
from panomask.errors import InputError
from panomask.structures.keypoints import COCO_PERSON_KEYPOINT_NAMES, COCO_PERSON_OKS_SIGMAS

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


COCO_PERSON_KEYPOINT_FLIP_MAP = tuple(find_flip_pairs(COCO_PERSON_KEYPOINT_NAMES))
"""Pairs that change places when an image is mirrored."""

_PERSON_EDGES = (
    "left_ear left_eye 102 204 255, right_ear right_eye 51 153 255, left_eye nose 102 0 204,"
    "nose right_eye 51 102 255, left_shoulder right_shoulder 255 128 0, left_shoulder left_elbow 153 255 204,"
    "right_shoulder right_elbow 128 229 255, left_elbow left_wrist 153 255 153,"
    "right_elbow right_wrist 102 255 224, left_hip right_hip 255 102 0, left_hip left_knee 255 255 77,"
    "right_hip right_knee 153 255 204, left_knee left_ankle 191 255 128, right_knee right_ankle 255 195 77"
)


def _parse_edge(text: str) -> tuple[str, str, tuple[int, int, int]]:
    start, end, red, green, blue = text.split()
    return start, end, (int(red), int(green), int(blue))


KEYPOINT_CONNECTION_RULES = [_parse_edge(edge) for edge in _PERSON_EDGES.split(",")]
"""Which of COCO's keypoints to join when drawing: (name, name, RGB colour)."""

CITYSCAPES_CATEGORIES = [
    {
        "color": label.color,
        "isthing": int(label.has_instances),
        "id": label.id,
        "trainId": label.train_id,
        "name": label.name,
    }
    for label in SCORED_LABELS
]
"""The 19 scored classes of Cityscapes, 11 stuff and 8 things, in the order of their train ids."""


def _get_coco_instances_meta() -> dict[str, Any]:
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    return {
        "thing_dataset_id_to_contiguous_id": {c["id"]: index for index, c in enumerate(things)},
        "thing_classes": [c["name"] for c in things],
        "thing_colors": [c["color"] for c in things],
    }


def _get_coco_person_meta() -> dict[str, Any]:
    return {
        "thing_classes": ["person"],
        "keypoint_names": list(COCO_PERSON_KEYPOINT_NAMES),
        "keypoint_flip_map": list(COCO_PERSON_KEYPOINT_FLIP_MAP),
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
        "keypoint_oks_sigmas": list(COCO_PERSON_OKS_SIGMAS),
    }


def _get_cityscapes_meta() -> dict[str, Any]:
    return {
        "thing_classes": [label.name for label in INSTANCE_LABELS],
        "thing_colors": [list(label.color) for label in INSTANCE_LABELS],
        "thing_dataset_id_to_contiguous_id": {label.id: index for index, label in enumerate(INSTANCE_LABELS)},
        "stuff_classes": [label.name for label in SCORED_LABELS],
        "stuff_colors": [list(label.color) for label in SCORED_LABELS],
        "stuff_dataset_id_to_contiguous_id": {label.id: label.train_id for label in SCORED_LABELS},
    }


def _get_lvis_meta(version: str) -> dict[str, Any]:
    names = LVIS_CLASSES[version]
    return {
        "thing_classes": list(names),
        "thing_dataset_id_to_contiguous_id": {index + 1: index for index in range(len(names))},
    }


_FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "coco": _get_coco_instances_meta,
    "coco_person": _get_coco_person_meta,
    "cityscapes": _get_cityscapes_meta,
    **{f"lvis_{version}": partial(_get_lvis_meta, version) for version in LVIS_CLASSES},
}


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Metadata fields of a family of data sets, afresh at every call."""
    if dataset_name not in _FAMILIES:
        raise InputError(f"There is no built-in metadata for {dataset_name!r}; known: {', '.join(_FAMILIES)}")
    return _FAMILIES[dataset_name]()
