"""What this version makes of a config: keys that it does not obey yet, choices, and ranges.

A key is never ignored: it is obeyed, or refused when it is set away from its default.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from panomask.config.coercion import SEQUENCES
from panomask.config.defaults import get_cfg
from panomask.config.node import CfgNode, flatten
from panomask.errors import InputError, nearest_names

NOT_OBEYED = (
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_*",
    "DATASETS.PROPOSAL_FILES_*",
    "GLOBAL.HACK",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.KEYPOINT_ON",
    "MODEL.LOAD_PROPOSALS",
    "MODEL.PANOPTIC_FPN.*",
    "MODEL.RESNETS.DEFORM_*",
    "MODEL.RETINANET.*",
    "MODEL.ROI_BOX_CASCADE_HEAD.*",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_*",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE",
    "MODEL.ROI_KEYPOINT_HEAD.*",
    "MODEL.RPN.BOUNDARY_THRESH",
    "MODEL.SEM_SEG_HEAD.*",
    "TEST.AUG.*",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "VIS_PERIOD",
)
"""Keys, or patterns of keys, whose default alone is supported."""

_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
CHOICES: dict[str, tuple[Any, ...]] = {
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "RepeatFactorTrainingSampler"),
    "DATASETS.ON_BAD_ANNOTATION": ("refuse", "drop"),
    "FLOAT32_PRECISION": ("", "highest", "high", "medium"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "VERSION": (2,),
}
"""Keys that take one of a few values. Names in a registry are not here: the registry checks them itself."""

AT_LEAST: dict[str, float] = {
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MAX_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "INPUT.MIN_SIZE_TEST": 0,
    "LOG_PERIOD": 1,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.NUM_DECAYS": 1,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "TEST.DETECTIONS_PER_IMAGE": 1,
    "TEST.EVAL_PERIOD": 0,
    "TEST.SHEET_IMAGES": 0,
}
"""Smallest value of numeric keys."""

_obeyed_by_projects: set[str] = set()


def obeys(*keys: str) -> None:
    """Says that the calling code obeys `keys`, so that `check_supported` lets any value of them pass.

    For projects, which never edit the core: `obeys("MODEL.RETINANET.*")` at import. A key is dotted and may
    hold wildcards. Raises InputError for one that matches no key of the default config.
    """
    known = [key for key, _ in flatten(get_cfg())]
    for pattern in keys:
        if not any(fnmatchcase(key, pattern) for key in known):
            near = ", ".join(nearest_names(pattern, known)) or "none"
            raise InputError(f"obeys({pattern!r}): no such key; nearest known: {near}")
    _obeyed_by_projects.update(keys)


def check_supported(cfg: CfgNode) -> None:
    """Raises InputError for the first key whose value this version cannot obey, naming what it supports."""
    values = dict(flatten(cfg))
    for key, default in flatten(get_cfg()):
        if key not in values or _matches(key, _obeyed_by_projects):
            continue
        value = values[key]
        if _matches(key, NOT_OBEYED) and _plain(value) != _plain(default):
            raise InputError(
                f"{key} is {value!r}, but this version supports only its default {default!r};"
                " take the key out of the config"
            )
        if key in CHOICES and value not in CHOICES[key]:
            raise InputError(f"{key} is {value!r}; allowed are {', '.join(map(repr, CHOICES[key]))}")
        if key in AT_LEAST and not (_is_number(value) and value >= AT_LEAST[key]):
            raise InputError(f"{key} is {value!r}; it takes a number of at least {AT_LEAST[key]}")
    _check_registered(cfg.DATASETS.REGISTER)


def _check_registered(table: dict[str, Any]) -> None:
    for name, entry in table.items():
        key = f"DATASETS.REGISTER.{name}"
        for field in ("ANNOTATIONS", "IMAGES"):
            if not isinstance(entry, dict) or not isinstance(entry.get(field), str) or not entry[field]:
                raise InputError(
                    f"{key}.{field} is missing; a data set needs {key}.ANNOTATIONS (COCO JSON file)"
                    f" and {key}.IMAGES (folder)"
                )


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """`value` with every tuple as a list: the two mean the same in a config."""
    return [_plain(item) for item in value] if isinstance(value, SEQUENCES) else value
