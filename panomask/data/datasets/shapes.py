"""The embedded data set `shapes`: written on first use below `data_root()`, the same everywhere.

Six classes of textured figures (one of them a person with keypoints) that overlap in front of sky, grass and
water; instances, keypoints and panoptic segments in COCO's formats. The files: see `shapes_writing`.
"""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, MetadataCatalog, data_root
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.coco_categories import keypoint_metadata
from panomask.data.datasets.coco_panoptic import load_panoptic
from panomask.data.datasets.panoptic_categories import (
    LABEL_DIVISOR,
    THINGS_LABEL,
    check_panoptic_categories,
    panoptic_class_metadata,
)
from panomask.data.datasets.shapes_annotation import COLORS, keypoint_categories, panoptic_categories
from panomask.data.datasets.shapes_drawing import KEYPOINT_NAMES, THING_CLASSES
from panomask.data.datasets.shapes_writing import SPLITS, VERSION, is_complete, write_shapes
from panomask.semantic_png import IGNORE_LABEL

__all__ = ["ensure_shapes", "register_shapes", "write_shapes"]

logger = logging.getLogger(__name__)

_COCO_SIGMAS = {"head": 0.035, "shoulder": 0.079, "hand": 0.062, "hip": 0.107, "foot": 0.089}
KEYPOINT_SIGMAS = tuple(_COCO_SIGMAS[name.split("_")[-1]] for name in KEYPOINT_NAMES)
"""OKS sigmas of the figure's keypoints: COCO's of ears, shoulders, wrists, hips and ankles."""


def shapes_folder() -> Path:
    """Where the data set lies at present, there or not: data_root()/shapes/v{VERSION}."""
    return data_root() / "shapes" / f"v{VERSION}"


def ensure_shapes() -> Path:
    """The folder of the data set; written first (about 15 s) if it is not there.

    Raises:
        InputError: the folder cannot be written, or is there without being a whole data set.
    """
    folder = shapes_folder()
    if not is_complete(folder):
        logger.info("Writing the data set `shapes` to %s", folder)
        start = time.perf_counter()
        write_shapes(folder)
        logger.info("`shapes` written in %.1f s", time.perf_counter() - start)
    return folder


def register_shapes() -> None:
    """Register shapes_{train,val} (instances), shapes_keypoints_{train,val} and shapes_panoptic_{train,val}.

    That of keypoints has the class `figure` alone.
    """
    for split in SPLITS:
        _register_panoptic(f"shapes_panoptic_{split}", split)
        _register(f"shapes_{split}", kind="instances", split=split, classes=list(THING_CLASSES))
        _register(f"shapes_keypoints_{split}", kind="keypoints", split=split, classes=["figure"])


def _register(name: str, *, kind: str, split: str, classes: list[str]) -> None:
    DatasetCatalog.register(name, partial(_load, name))
    MetadataCatalog.provide(name, partial(_paths, kind, split))
    colors = [COLORS[class_name] for class_name in classes]
    MetadataCatalog.get(name).set(evaluator_type="coco", thing_classes=classes, thing_colors=colors)
    if kind == "keypoints":
        declared = keypoint_metadata(keypoint_categories())
        MetadataCatalog.get(name).set(**declared, keypoint_oks_sigmas=list(KEYPOINT_SIGMAS))


def _register_panoptic(name: str, split: str) -> None:
    DatasetCatalog.register(name, partial(_load_panoptic, name))
    MetadataCatalog.provide(name, partial(_panoptic_paths, split))
    categories = check_panoptic_categories("shapes", panoptic_categories())
    MetadataCatalog.get(name).set(
        evaluator_type="coco_panoptic_seg",
        ignore_label=IGNORE_LABEL,
        label_divisor=LABEL_DIVISOR,
        sem_seg_things_label=THINGS_LABEL,
        **panoptic_class_metadata(categories),
    )


def _panoptic_paths(split: str) -> dict[str, str]:
    folder = shapes_folder()
    return {
        "panoptic_json": str(folder / "annotations" / f"panoptic_{split}.json"),
        "panoptic_root": str(folder / f"panoptic_{split}"),
        "image_root": str(folder / split),
    }


def _load_panoptic(name: str) -> list[dict[str, Any]]:
    ensure_shapes()
    metadata = MetadataCatalog.get(name)
    return load_panoptic(metadata.panoptic_json, metadata.panoptic_root, metadata.image_root, name)


def _paths(kind: str, split: str) -> dict[str, str]:
    folder = shapes_folder()
    return {
        "json_file": str(folder / "annotations" / f"{kind}_{split}.json"),
        "image_root": str(folder / split),
    }


def _load(name: str) -> list[dict[str, Any]]:
    ensure_shapes()
    metadata = MetadataCatalog.get(name)
    return load_coco_json(metadata.json_file, metadata.image_root, name)
