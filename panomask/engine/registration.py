"""The data sets that a config registers: DATASETS.REGISTER."""

from typing import Any

from panomask.config import CfgNode
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.coco import register_coco_instances
from panomask.data.datasets.coco_panoptic import register_panoptic
from panomask.data.datasets.register_semantic import register_semantic
from panomask.errors import InputError

_registered: dict[str, dict[str, Any]] = {}
"""Data sets registered from a config: name -> its entry, and what is done with bad annotations."""


def register_datasets(cfg: CfgNode) -> None:
    """Register the data sets of DATASETS.REGISTER. Calling again is fine.

    An entry with a PANOPTIC_ROOT is a panoptic set, one with a SEM_SEG_ROOT a semantic one, any other one a
    set of instances in COCO's format.

    Raises:
        InputError: a name that another data set has.
    """
    for name, entry in cfg.DATASETS.REGISTER.items():
        source = {**entry, "ON_BAD": str(cfg.DATASETS.ON_BAD_ANNOTATION)}
        if name in DatasetCatalog:
            if _registered.get(name) == source:
                continue
            if name not in _registered:
                raise InputError(
                    f"DATASETS.REGISTER.{name}: a data set of this name is registered already; "
                    "choose another name"
                )
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name, None)
        _register(name, entry, source["ON_BAD"])
        _registered[name] = source


def _register(name: str, entry: CfgNode, on_bad: str) -> None:
    if entry.get("SEM_SEG_ROOT"):
        register_semantic(
            name,
            entry.SEM_SEG_ROOT,
            entry.IMAGES,
            entry.STUFF_CLASSES,
            ignore_label=entry.IGNORE_LABEL,
            on_bad=on_bad,
        )
    elif entry.get("PANOPTIC_ROOT"):
        label = {"ignore_label": entry.IGNORE_LABEL}
        register_panoptic(name, entry.ANNOTATIONS, entry.PANOPTIC_ROOT, entry.IMAGES, label, on_bad=on_bad)
    else:
        register_coco_instances(
            name, _keypoint_metadata(entry), str(entry.ANNOTATIONS), str(entry.IMAGES), on_bad=on_bad
        )


def _keypoint_metadata(entry: CfgNode) -> dict[str, Any]:
    """What an entry of DATASETS.REGISTER says of keypoints; the rest is told from the annotation file."""
    pairs, sigmas = entry.get("KEYPOINT_FLIP_PAIRS"), entry.get("KEYPOINT_SIGMAS")
    metadata: dict[str, Any] = {}
    if pairs:
        metadata["keypoint_flip_map"] = [tuple(pair) for pair in pairs]
    if sigmas:
        metadata["keypoint_oks_sigmas"] = list(sigmas)
    return metadata
