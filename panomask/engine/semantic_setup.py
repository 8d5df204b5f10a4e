"""Semantic classes of model and data made to agree before a run starts."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from panomask import distributed
from panomask.config import CfgNode
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.dataset_mapper import SEMANTIC_MODELS
from panomask.data.datasets.panoptic_categories import ensure_panoptic_metadata
from panomask.data.detection_utils import check_metadata_consistency
from panomask.data.label_check import check_label_images
from panomask.data.panoptic_targets import things_label_of
from panomask.engine.run_state import TrainedNames
from panomask.errors import InputError
from panomask.registry import kind_of

SEM_SEG_CLASSES_KEY = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"

MOST_BYTES = 20e6
"""A training set with a larger annotation file is not loaded only to look at its label images."""

_INSTANCE_TYPES = ("lvis", "cityscapes_instance", "pascal_voc")
_OWN_DATA = (
    "give a panoptic set (DATASETS.REGISTER.<name>.ANNOTATIONS, .PANOPTIC_ROOT and .IMAGES; see"
    " datasets/README.md)"
)


def match_stuff_classes(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """Make the semantic head's number of classes and its ignored label those of the data, in place.

    Does nothing for models without a semantic head, and for data sets that say nothing of stuff.

    Args:
        cfg: not frozen.
        names: registered data sets, all that the run uses.

    Returns:
        Lines for the log.

    Raises:
        InputError: data sets disagree, or the config states another number or label than they have.
    """
    if kind_of(cfg.MODEL.META_ARCHITECTURE) not in SEMANTIC_MODELS:
        return []
    classes = {name: found for name in names if (found := stuff_classes_of(name))}
    if not classes:
        return []
    first, class_names = next(iter(classes.items()))
    for name, other in classes.items():
        if len(other) != len(class_names):
            raise InputError(
                f"data set {first} has {len(class_names)} semantic classes (stuff_classes) and data set"
                f" {name} has {len(other)}; DATASETS.TRAIN and DATASETS.TEST must have the same"
            )
    notes = [
        f"Semantic classes of {name} have other names than those of {first}"
        for name, other in classes.items()
        if other != class_names
    ]
    counted = f"{len(class_names)} semantic classes"
    if class_names[0] == "things":
        counted = f'{len(class_names)} semantic classes ("things" and {len(class_names) - 1} of stuff)'
    notes += _settle(cfg, "NUM_CLASSES", len(class_names), f"data set {first} has {counted}")
    labels = {name: MetadataCatalog.get(name).get("ignore_label") for name in classes}
    labels = {name: label for name, label in labels.items() if label is not None}
    for name, label in labels.items():
        first, of_first = next(iter(labels.items()))
        if label != of_first:
            raise InputError(
                f"the label of void is {of_first} in data set {first} and {label} in data set {name}; a model"
                " ignores one label, so convert the label images of one of the two"
            )
        notes += _settle(cfg, "IGNORE_VALUE", label, f"the label of void in data set {name} is {label}")
    return notes


def _settle(cfg: CfgNode, field: str, value: int, reason: str) -> list[str]:
    """Set MODEL.SEM_SEG_HEAD.<field> if the config leaves it open; else it must have this value already."""
    head, key = cfg.MODEL.SEM_SEG_HEAD, f"MODEL.SEM_SEG_HEAD.{field}"
    if head[field] == value:
        return []
    if cfg.is_explicit(key):
        raise InputError(f"{key} is {head[field]}, but {reason}; set {key} {value} or leave it out")
    setattr(head, field, value)
    return [f"{key} is {value}: {reason}"]


def stuff_classes_of(name: str) -> list[str] | None:
    """Names of the semantic classes of a registered data set by label, without loading it.

    None where nothing says them.

    Raises:
        InputError: an unknown name, or a panoptic file that cannot be read.
    """
    if name not in DatasetCatalog:
        DatasetCatalog.get(name)  # raises, naming the nearest known names
    ensure_panoptic_metadata(name)
    classes = MetadataCatalog.get(name).get("stuff_classes")
    return None if classes is None else list(classes)


def check_truth(cfg: CfgNode, *, eval_only: bool = False) -> None:
    """Raise InputError where the data sets lack what the model learns, or is scored on, before a run starts.

    A data set that a user registered by a function of his own passes: its dicts may hold anything.
    """
    model = kind_of(cfg.MODEL.META_ARCHITECTURE)
    train = [] if eval_only else list(cfg.DATASETS.TRAIN)
    for name in (*train, *cfg.DATASETS.TEST):
        stuff_classes, things = stuff_classes_of(name), MetadataCatalog.get(name).get("thing_classes")
        has_stuff_alone = bool(stuff_classes) and not things
        if model in ("FCOS", "GeneralizedRCNN", "RetinaNet") and has_stuff_alone:
            raise InputError(
                f"data set {name} has semantic labels alone, and MODEL.META_ARCHITECTURE {model} finds"
                " objects; set MODEL.META_ARCHITECTURE SemanticSegmentor, or give data with objects"
            )
        if model == "PanopticFPN" and stuff_classes and things and things_label_of(name) != 0:
            raise InputError(
                f"data set {name} counts things and stuff in one list of {len(stuff_classes)} classes, but"
                " PanopticFPN has one semantic label, 0, for all things; register it by register_panoptic or"
                " register_coco_panoptic_separated (built-in sets: those that end in _separated)"
            )
        has_no_things = things is not None and len(things) == 0  # None: nothing says so
        if model == "PanopticFPN" and (has_no_things or (name in train and has_stuff_alone)):
            raise InputError(
                f"data set {name} has no things, which PanopticFPN finds beside stuff; {_OWN_DATA}, or set"
                " MODEL.META_ARCHITECTURE SemanticSegmentor"
            )
        if (
            model in SEMANTIC_MODELS
            and name in train
            and stuff_classes is None
            and _has_instances_alone(name)
        ):
            raise InputError(
                f"data set {name} has no semantic labels, which {model} learns; {_OWN_DATA}, or set"
                " MODEL.META_ARCHITECTURE GeneralizedRCNN"
            )
    if model in SEMANTIC_MODELS and len(train) > 1:
        for key in ("stuff_classes", "sem_seg_things_label"):
            check_metadata_consistency(key, train)


def _has_instances_alone(name: str) -> bool:
    """Whether one of the readers of instances reads the data set, so that its dicts hold nothing else."""
    metadata = MetadataCatalog.get(name)
    reads_more = metadata.get("panoptic_json") or metadata.get("sem_seg_root") or metadata.get("gt_dir")
    is_known = metadata.get("json_file") or metadata.get("evaluator_type") in _INSTANCE_TYPES
    return bool(is_known) and not reads_more


def check_labels(cfg: CfgNode) -> None:
    """Look for a few seconds at the label images of a training's data sets, in the main process.

    Those of DATASETS.TEST would be opened only when the training is over. Of DATASETS.TRAIN, a set of which a
    file is large is left to the loader.

    Raises:
        InputError: a fault, see `check_label_images`.
    """
    if not distributed.is_main_process():
        return
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        metadata = MetadataCatalog.get(name)
        files = [metadata.get(field) for field in ("panoptic_json", "json_file")]
        size = max((os.path.getsize(file) for file in files if file and os.path.isfile(file)), default=0)
        if size <= MOST_BYTES or name in cfg.DATASETS.TEST:
            check_label_images(name)


class TrainedStuff(TrainedNames):
    """The semantic classes that a model is trained on."""

    def __init__(self, dataset_name: str) -> None:
        """`dataset_name`: a data set with `stuff_classes`."""
        metadata = MetadataCatalog.get(dataset_name)
        colors = metadata.get("stuff_colors")
        fields: dict[str, Any] = {
            "stuff_classes": list(metadata.stuff_classes),
            "stuff_colors": [] if colors is None else np.asarray(colors).tolist(),
            "ignore_label": metadata.get("ignore_label"),
            "sem_seg_things_label": things_label_of(dataset_name),
        }
        super().__init__("semantic classes", "stuff_classes", fields)


def settle_stuff(cfg: CfgNode, trained: Mapping[str, Any] | None) -> dict[str, Any]:
    """For prediction: set the number of semantic classes where the config leaves it open, in place.

    Args:
        cfg: not frozen.
        trained: what `TrainedStuff` wrote to the checkpoint; None where it did not.

    Returns:
        Metadata fields of the semantic classes that the model predicts; empty where nothing is known of them.
    """
    if kind_of(cfg.MODEL.META_ARCHITECTURE) not in SEMANTIC_MODELS:
        return {}
    if trained is None:
        names = [name for name in cfg.DATASETS.TEST if name in DatasetCatalog]
        match_stuff_classes(cfg, names[:1])
        return {}
    if not cfg.is_explicit(SEM_SEG_CLASSES_KEY):
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(trained["stuff_classes"])
    return {name: value for name, value in trained.items() if value is not None and value != []}
