"""What is known about the built-in data sets without reading a file."""

from collections.abc import Callable
from functools import partial
from typing import Any

from panomask.data.datasets.ade20k_classes import ADE20K_SEM_SEG_CATEGORIES
from panomask.data.datasets.cityscapes_labels import INSTANCE_LABELS, SCORED_LABELS
from panomask.data.datasets.keypoint_sides import find_flip_pairs
from panomask.data.datasets.lvis_categories import LVIS_CLASSES
from panomask.data.datasets.panoptic_categories import (
    THINGS_COLOR,
    THINGS_LABEL,
    THINGS_NAME,
    panoptic_class_metadata,
)
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
_COCO_STUFF = (
    "92 banner, 93 blanket, 95 bridge, 100 cardboard, 107 counter, 109 curtain, 112 door-stuff,"
    "118 floor-wood, 119 flower, 122 fruit, 125 gravel, 128 house, 130 light, 133 mirror-stuff, 138 net,"
    "141 pillow, 144 platform, 145 playingfield, 147 railroad, 148 river, 149 road, 151 roof, 154 sand,"
    "155 sea, 156 shelf, 159 snow, 161 stairs, 166 tent, 168 towel, 171 wall-brick, 175 wall-stone,"
    "176 wall-tile, 177 wall-wood, 178 water-other, 180 window-blind, 181 window-other, 184 tree-merged,"
    "185 fence-merged, 186 ceiling-merged, 187 sky-other-merged, 188 cabinet-merged, 189 table-merged,"
    "190 floor-other-merged, 191 pavement-merged, 192 mountain-merged, 193 grass-merged, 194 dirt-merged,"
    "195 paper-merged, 196 food-other-merged, 197 building-other-merged, 198 rock-merged,"
    "199 wall-other-merged, 200 rug-merged"
)
_COCO_COLORS = (
    "dc143c 770b20 00008e 0000e6 6a00e4 003c64 005064 000046 0000c0 faaa1e 64aa1e dcdc00 af74af fa001e "
    "a52a2a ff4dff 00e2fc b6b6ff 005200 78a69d 6e4c00 ae39ff c76400 480076 ffb3f0 007d5c d10097 bcd0b6 "
    "00dcb0 ff63a4 5c0049 8581ff 4eb4ff 00e400 aefff3 2d59ff 868667 9194ae ffd0ba c5e2ff ab8601 6d3f36 "
    "cf8aff 97005f 09503d 546933 4a4169 a6c466 d0c3d2 ff6d41 008f95 b300c2 d1636a 057900 e3ffcd 93bad0 "
    "994501 035fa1 a3ff00 7700aa 00b6c7 00a578 b78258 5f2000 827287 6e8185 a64a76 db8eb9 4fd272 b25a3e "
    "41460f 7fa773 3b696a 8e6c2d c4ac00 5f3650 804cff c93901 f6007a bfa2d0 ffff80 93d3cb 966464 a8abac "
    "9270c6 d2aa64 5c8859 da58b8 f18100 d911ff 7c4ab5 464646 ffe4ff 9ad000 c1005c 4c5b71 ffb4c3 6a9ab0 "
    "e6968c 3c8fff 804080 5c5237 fed47c 494dae ffa062 ffffff 68546d a9a483 e1c7ff 89364a 879edf 07f6e7 "
    "6bffc8 3a2995 b7798e ff4961 6b8e23 be9999 928b8d 4682b4 86c79c d1e28c 60246c 606060 40aa40 98fb98 "
    "d0e5e4 cebaab 98a140 747000 00728f 66669c fa8dff"
)
"""Of the things and then of the stuff, as panopticapi publishes them: RRGGBB."""


def _parse(table: str, colors: list[str], *, is_thing: bool) -> list[dict[str, Any]]:
    categories = []
    for entry, color in zip(table.split(","), colors, strict=True):
        id_, name = entry.strip().split(" ", 1)
        rgb = list(bytes.fromhex(color))
        categories.append({"id": int(id_), "name": name, "isthing": int(is_thing), "color": rgb})
    return categories


_NUM_COCO_THINGS = 80
COCO_CATEGORIES = [
    *_parse(_COCO_THINGS, _COCO_COLORS.split()[:_NUM_COCO_THINGS], is_thing=True),
    *_parse(_COCO_STUFF, _COCO_COLORS.split()[_NUM_COCO_THINGS:], is_thing=False),
]
"""COCO's 80 thing and 53 stuff classes, each by id: {"id", "name", "isthing": 1 or 0, "color": [R, G, B]}."""


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


def _get_coco_panoptic_separated_meta() -> dict[str, Any]:
    """Things and stuff numbered apart; the first semantic class stands for all things."""
    stuff = [category for category in COCO_CATEGORIES if not category["isthing"]]
    names = [c["name"].replace("-other", "").replace("-merged", "") for c in stuff]
    return {
        **_get_coco_instances_meta(),
        "stuff_dataset_id_to_contiguous_id": {
            **{c["id"]: index for index, c in enumerate(stuff, start=1)},
            0: THINGS_LABEL,
        },
        "stuff_classes": [THINGS_NAME, *names],
        "stuff_colors": [list(THINGS_COLOR), *(c["color"] for c in stuff)],
    }


def _get_coco_panoptic_standard_meta() -> dict[str, Any]:
    """Things and stuff in one list of 133 classes."""
    return _one_list(COCO_CATEGORIES)


def _get_cityscapes_panoptic_meta() -> dict[str, Any]:
    """Things and stuff in one list of 19 classes, by train id."""
    return _one_list(CITYSCAPES_CATEGORIES)


def _get_cityscapes_panoptic_separated_meta() -> dict[str, Any]:
    """Things and stuff numbered apart; the first semantic class stands for all things."""
    return panoptic_class_metadata(
        [
            {"id": each.id, "name": each.name, "isthing": each.has_instances, "color": list(each.color)}
            for each in SCORED_LABELS
        ]
    )


def _one_list(categories: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata of categories that share one list of classes: every name is among both things and stuff."""
    names = [category["name"] for category in categories]
    colors = [list(category["color"]) for category in categories]
    ids: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for index, category in enumerate(categories):
        ids[bool(category["isthing"])][category["id"]] = index
    return {
        "thing_classes": names,
        "thing_colors": colors,
        "thing_dataset_id_to_contiguous_id": ids[True],
        "stuff_classes": list(names),
        "stuff_colors": list(colors),
        "stuff_dataset_id_to_contiguous_id": ids[False],
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


def _get_ade20k_meta() -> dict[str, Any]:
    return {"stuff_classes": list(ADE20K_SEM_SEG_CATEGORIES)}


def _get_lvis_meta(version: str) -> dict[str, Any]:
    names = LVIS_CLASSES[version]
    return {
        "thing_classes": list(names),
        "thing_dataset_id_to_contiguous_id": {index + 1: index for index in range(len(names))},
    }


_FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "coco": _get_coco_instances_meta,
    "coco_panoptic_separated": _get_coco_panoptic_separated_meta,
    "coco_panoptic_standard": _get_coco_panoptic_standard_meta,
    "coco_person": _get_coco_person_meta,
    "cityscapes": _get_cityscapes_meta,
    "cityscapes_panoptic": _get_cityscapes_panoptic_meta,
    "cityscapes_panoptic_separated": _get_cityscapes_panoptic_separated_meta,
    "ade20k_sem_seg": _get_ade20k_meta,
    **{f"lvis_{version}": partial(_get_lvis_meta, version) for version in LVIS_CLASSES},
}


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Metadata fields of a family of data sets, afresh at every call."""
    if dataset_name not in _FAMILIES:
        raise InputError(f"There is no built-in metadata for {dataset_name!r}; known: {', '.join(_FAMILIES)}")
    return _FAMILIES[dataset_name]()
