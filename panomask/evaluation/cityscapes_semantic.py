"""Semantic scores by Cityscapes' definition (Cordts et al., CVPR 2016, 4.1), from counted pixels.

IoU is measured for the 19 classes and for their 7 categories. iIoU weights the pixels of each object by the
average size of its class over the object's own, so that small objects count as much as large ones. Numbers
are those of the package cityscapesscripts (2.3.0).
"""

from dataclasses import dataclass, field

import numpy as np

_TABLE = """
 7  road           flat          -
 8  sidewalk       flat          -
11  building       construction  -
12  wall           construction  -
13  fence          construction  -
17  pole           object        -
19  traffic-light  object        -
20  traffic-sign   object        -
21  vegetation     nature        -
22  terrain        nature        -
23  sky            sky           -
24  person         human          3462.4756337644
25  rider          human          3930.4788056518
26  car            vehicle       12794.0202738185
27  truck          vehicle       27855.1264367816
28  bus            vehicle       35732.1511111111
31  train          vehicle       67583.7075812274
32  motorcycle     vehicle        6298.7200839748
33  bicycle        vehicle        4672.3249222261
"""
"""By train id: label id, name, category, pixels of an object on average (of classes that have objects)."""

_ROWS = [line.split() for line in _TABLE.strip().splitlines()]
CLASS_NAMES = tuple(row[1].replace("-", " ") for row in _ROWS)
NUM_CLASSES = len(_ROWS)
CATEGORIES = tuple(dict.fromkeys(row[2] for row in _ROWS))
_CATEGORY_OF = np.array([CATEGORIES.index(row[2]) for row in _ROWS])
_AVERAGE_SIZES = np.array([0.0 if row[3] == "-" else float(row[3]) for row in _ROWS])
_HAS_OBJECTS = _AVERAGE_SIZES > 0

VOID = 255
TRAIN_IDS = np.full(256, VOID, dtype=np.uint8)
"""Train id of each label id; `VOID` for those that are not scored."""
TRAIN_IDS[[int(row[0]) for row in _ROWS]] = np.arange(NUM_CLASSES)

FIRST_INSTANCE = 1000
"""Instance ids above it are single objects: label id times 1000 plus a number."""


@dataclass
class SemanticCounts:
    """Pixels of any number of images; `+` adds those of others.

    Attributes:
        pixels: (19, 19) pixels by (true, predicted) train id, void left out.
        hits: (19,) weighted pixels of objects that are predicted as their class.
        category_hits: (19,) those that are predicted as any class of their category.
        sizes: (19,) weighted pixels of all objects.
    """

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(NUM_CLASSES))
    category_hits: np.ndarray = field(default_factory=lambda: np.zeros(NUM_CLASSES))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(NUM_CLASSES))

    def __add__(self, other: "SemanticCounts") -> "SemanticCounts":
        return SemanticCounts(
            self.pixels + other.pixels,
            self.hits + other.hits,
            self.category_hits + other.category_hits,
            self.sizes + other.sizes,
        )


def count_image(predicted: np.ndarray, label_ids: np.ndarray, instance_ids: np.ndarray) -> SemanticCounts:
    """The counts of one image.

    Args:
        predicted: (H, W) train ids 0..18.
        label_ids: (H, W) as in `*_labelIds.png`, 0..255.
        instance_ids: (H, W) as in `*_instanceIds.png`.
    """
    truth = TRAIN_IDS[label_ids]
    is_scored = truth != VOID
    pairs = truth[is_scored].astype(np.int64) * NUM_CLASSES + predicted[is_scored]
    pixels = np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)

    is_object = instance_ids > FIRST_INSTANCE
    is_object[is_object] = TRAIN_IDS[instance_ids[is_object] // FIRST_INSTANCE] != VOID
    found, object_of, sizes = np.unique(instance_ids[is_object], return_inverse=True, return_counts=True)
    classes = TRAIN_IDS[found // FIRST_INSTANCE]  # (M,)
    scale = _AVERAGE_SIZES[classes] / sizes
    true, guessed = classes[object_of], predicted[is_object]

    def weighted(pixels_of_objects: np.ndarray) -> np.ndarray:
        per_object = np.bincount(object_of, weights=pixels_of_objects, minlength=len(found)) * scale
        return np.bincount(classes, weights=per_object, minlength=NUM_CLASSES)

    return SemanticCounts(
        pixels=pixels,
        hits=weighted(guessed == true),
        category_hits=weighted(_CATEGORY_OF[guessed] == _CATEGORY_OF[true]),
        sizes=weighted(np.ones(len(true))),
    )


def class_scores(counts: SemanticCounts) -> tuple[np.ndarray, np.ndarray]:
    """IoU and iIoU (19,) of the classes, fractions; NaN where there is nothing to measure."""
    hits = counts.pixels.diagonal().astype(float)
    errors = counts.pixels.sum(axis=0) - hits
    iou = _divide(hits, counts.pixels.sum(axis=1) + errors)
    return iou, _divide(counts.hits, np.where(_HAS_OBJECTS, counts.sizes + errors, 0))


def category_scores(counts: SemanticCounts) -> tuple[np.ndarray, np.ndarray]:
    """IoU and iIoU (7,) of the categories, fractions; iIoU is NaN where a class has no objects."""
    member = np.eye(len(CATEGORIES), dtype=np.int64)[_CATEGORY_OF]  # (19, 7)
    pixels = member.T @ counts.pixels @ member
    hits = pixels.diagonal().astype(float)
    errors = pixels.sum(axis=0) - hits
    iou = _divide(hits, pixels.sum(axis=1) + errors)
    with_objects = (_HAS_OBJECTS[:, None] | (member == 0)).all(axis=0)
    return iou, _divide(
        counts.category_hits @ member, np.where(with_objects, counts.sizes @ member + errors, 0)
    )


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
