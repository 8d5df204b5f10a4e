"""What this version makes of a config: keys that it does not obey yet, choices, ranges, shapes of lists.

A key is never ignored: it is obeyed, or refused when it is set away from its default. What no run can use is
refused here, in one line, rather than where it would fail. Intervals are written as in mathematics: "[0, 1)"
holds 0 and not 1.
"""

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from panomask.config.coercion import SEQUENCES, article, plain
from panomask.config.defaults import get_cfg
from panomask.config.node import CfgNode, flatten
from panomask.config.relations import RELATIONS
from panomask.errors import InputError, nearest_names
from panomask.registry import kind_of

NOT_OBEYED = (
    "GLOBAL.HACK",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "VIS_PERIOD",
)
"""Keys, or patterns of keys, whose default alone is supported."""

_BOX_LOSSES = ("smooth_l1", "iou", "giou", "diou", "ciou")
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
_POOLERS = ("ROIAlign", "ROIAlignMax", "ROIAlignV2", "ROIAlignV2Max", "ROIPool", "ROIWarp", "ROIWarpMax")
CHOICES: dict[str, tuple[Any, ...]] = {
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "RepeatFactorTrainingSampler"),
    "DATASETS.ON_BAD_ANNOTATION": ("refuse", "drop"),
    "FLOAT32_PRECISION": ("", "highest", "high", "medium"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "INPUT.FORMAT": ("BGR", "RGB", "L", "YUV-BT.601"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "MODEL.FCOS.LOC_LOSS_TYPE": _BOX_LOSSES[1:],
    "MODEL.FCOS.NORM": _NORMS,
    "MODEL.FCOS.TOP_LEVELS": (0, 1, 2),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.REGNET.BLOCK": ("ResBottleneckBlock", "ResBasicBlock", "VanillaBlock"),
    "MODEL.REGNET.NORM": _NORMS,
    "MODEL.REGNET.STEM": ("SimpleStem", "ResStem"),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.RESNETS.RES5_DILATION": (1, 2),
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.RETINANET.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSSES,
    "MODEL.SEM_SEG_HEAD.NORM": _NORMS,
    "SOLVER.AMP.PRECISION": ("float16", "bfloat16"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "SOLVER.OPTIMIZER": ("SGD", "ADAMW"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "TEST.PRECISION": ("float32", "bfloat16", "float16"),
    "VERSION": (2,),
}
"""Keys that take one of a few values. Names in a registry are not here: the registry checks them itself."""

_HEAD_AT_LEAST = {"CONV_DIM": 1, "NUM_CONV": 0, "POOLER_RESOLUTION": 1, "POOLER_SAMPLING_RATIO": 0}
_LOSS_AT_LEAST = {"BBOX_REG_LOSS_WEIGHT": 0, "SMOOTH_L1_BETA": 0}
AT_LEAST: dict[str, float] = {
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.REPEAT_THRESHOLD": 0,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": 1,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 1,
    "INPUT.MAX_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "INPUT.MIN_SIZE_TEST": 0,
    "LOG_PERIOD": 1,
    "MODEL.FCOS.LOSS_GAMMA": 0,
    "MODEL.FCOS.NUM_BOX_CONVS": 0,
    "MODEL.FCOS.NUM_CLASSES": 1,
    "MODEL.FCOS.NUM_CLS_CONVS": 0,
    "MODEL.FCOS.PRE_NMS_TOPK_TEST": 1,
    "MODEL.FPN.OUT_CHANNELS": 1,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 0,
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": 0,
    "MODEL.REGNET.DEPTH": 1,
    "MODEL.REGNET.GROUP_WIDTH": 1,
    "MODEL.REGNET.STEM_WIDTH": 1,
    "MODEL.REGNET.W_0": 8,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 1,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 1,
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": 0,
    "MODEL.RETINANET.NUM_CLASSES": 1,
    "MODEL.RETINANET.NUM_CONVS": 0,
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 1,
    **{f"MODEL.ROI_BOX_HEAD.{name}": low for name, low in (_HEAD_AT_LEAST | _LOSS_AT_LEAST).items()},
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT": 0,
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 0,
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": 1,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 1,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    **{f"MODEL.ROI_MASK_HEAD.{name}": low for name, low in _HEAD_AT_LEAST.items()},
    **{f"MODEL.RPN.{name}": low for name, low in _LOSS_AT_LEAST.items()},
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 1,
    "MODEL.RPN.BOUNDARY_THRESH": -1,  # anchors may stick out
    "MODEL.RPN.LOSS_WEIGHT": 0,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 1,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 1,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 1,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.BASE_LR_END": 0,
    "SOLVER.BIAS_LR_FACTOR": 0,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.NUM_DECAYS": 1,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.WEIGHT_DECAY_BIAS": 0,
    "SOLVER.WEIGHT_DECAY_NORM": 0,
    "TEST.AUG.MAX_SIZE": 1,
    "TEST.DETECTIONS_PER_IMAGE": -1,  # all of them
    "TEST.EVAL_PERIOD": 0,
    "TEST.PRECISE_BN.NUM_ITER": 1,
    "TEST.SHEET_IMAGES": 0,
}
"""Smallest value of numeric keys."""

INTERVALS: dict[str, str] = {
    "INPUT.LSJ.MAX_SCALE": "(0, inf)",
    "INPUT.LSJ.MIN_SCALE": "(0, inf)",
    "MODEL.ANCHOR_GENERATOR.OFFSET": "[0, 1)",
    "MODEL.BACKBONE.FREEZE_AT": "[-1, 5]",
    "MODEL.FCOS.INFERENCE_TH_TEST": "[-1, 1]",  # as of MODEL.ROI_HEADS
    "MODEL.FCOS.LOSS_ALPHA": "[-1, 1]",  # a negative one: no weights
    "MODEL.FCOS.NMS_TH": "[0, 1]",
    "MODEL.FCOS.POS_RADIUS": "(0, inf)",
    "MODEL.FCOS.PRIOR_PROB": "(0, 1)",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": "[0, 1]",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": "[0, 1]",
    "MODEL.REGNET.BOTTLENECK_RATIO": "(0, inf)",
    "MODEL.REGNET.SE_RATIO": "[0, inf)",
    "MODEL.REGNET.W_A": "[0, inf)",
    "MODEL.REGNET.W_M": "(1, inf)",
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": "[-1, 1]",
    "MODEL.RETINANET.NMS_THRESH_TEST": "[0, 1]",
    "MODEL.RETINANET.PRIOR_PROB": "(0, 1)",
    "MODEL.RETINANET.SCORE_THRESH_TEST": "[-1, 1]",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": "[0, inf)",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "[0, 1]",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "[0, 1]",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "[-1, 1]",  # a negative one keeps scores of 0 too
    "MODEL.RPN.NMS_THRESH": "[0, 1]",
    "MODEL.RPN.POSITIVE_FRACTION": "[0, 1]",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "(0, inf]",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": "(0, inf]",
    "SOLVER.GAMMA": "(0, inf)",
    "SOLVER.MOMENTUM": "[0, 1)",
    "SOLVER.WARMUP_FACTOR": "[0, 1]",
}
"""Where the value of numeric keys lies."""

LISTS: dict[str, tuple[int | None, str]] = {
    "INPUT.CROP.SIZE": (2, "(0, inf)"),
    "INPUT.LSJ.SIZE": (2, "[1, inf)"),
    "INPUT.MIN_SIZE_TRAIN": (None, "[0, inf)"),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": (None, "(0, inf)"),
    "MODEL.ANCHOR_GENERATOR.SIZES": (None, "(0, inf)"),
    "MODEL.PIXEL_MEAN": (None, "(-inf, inf)"),
    "MODEL.PIXEL_STD": (None, "(0, inf)"),
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": (4, "(0, inf)"),
    "MODEL.RETINANET.IOU_LABELS": (None, "[-1, 1]"),
    "MODEL.RETINANET.IOU_THRESHOLDS": (None, "(0, 1]"),
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": (4, "(0, inf)"),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (None, "(0, 1]"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (4, "(0, inf)"),
    "MODEL.ROI_HEADS.IOU_LABELS": (None, "[-1, 1]"),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": (None, "(0, 1]"),
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (None, "[1, inf)"),
    "MODEL.RPN.BBOX_REG_WEIGHTS": (4, "(0, inf)"),
    "MODEL.RPN.CONV_DIMS": (None, "[-1, inf)"),
    "MODEL.RPN.IOU_LABELS": (None, "[-1, 1]"),
    "MODEL.RPN.IOU_THRESHOLDS": (None, "(0, 1]"),
    "SOLVER.ADAMW_BETAS": (2, "[0, 1)"),
    "TEST.AUG.MIN_SIZES": (None, "[0, inf)"),
}
"""Lists of numbers: how many there are (None: one or more), and where each lies."""

_LIST_OR_NUMBER = ("INPUT.MIN_SIZE_TRAIN",)
_LISTS_OF_LISTS = (
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
)
_WHOLE_NUMBERS = ("INPUT.LSJ.SIZE", "MODEL.*.IOU_LABELS", "MODEL.*.CONV_DIMS", "TEST.AUG.MIN_SIZES")
_FRACTIONS_TOO = ("INPUT.*", "SOLVER.WARMUP_ITERS", "*_PERIOD")
"""Keys with a whole number for a default to which code may assign any other."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, SEQUENCES) and all(isinstance(name, str) and name for name in value)


def _are_expected_results(value: Any) -> bool:
    return isinstance(value, SEQUENCES) and all(
        isinstance(row, SEQUENCES)
        and [type(item) for item in row[:2]] == [str, str]
        and [_is_number(item) for item in row[2:]] == [True, True]
        and row[3] >= 0
        for row in value
    )


def _are_positive(value: Any) -> bool:
    return isinstance(value, SEQUENCES) and all(_is_within(number, "(0, inf)") for number in value)


def _are_pairs(value: Any) -> bool:
    return isinstance(value, SEQUENCES) and all(_are_names(pair) and len(pair) == 2 for pair in value)


_NAMES = (_are_names, "a list of names")
_SIGMAS = (_are_positive, "one number above 0 for each keypoint")
_NAME_OR_NAMES = (lambda value: (isinstance(value, str) and value != "") or _are_names(value), _NAMES[1])
SPECIAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "DATASETS.PROPOSAL_FILES_TEST": _NAME_OR_NAMES,
    "DATASETS.PROPOSAL_FILES_TRAIN": _NAME_OR_NAMES,
    "DATASETS.TEST": _NAME_OR_NAMES,
    "DATASETS.TRAIN": _NAME_OR_NAMES,
    "MODEL.FCOS.IN_FEATURES": _NAMES,
    "MODEL.FCOS.SIZES_OF_INTEREST": (
        _are_positive,
        "pixels above 0, one number less than MODEL.FCOS.IN_FEATURES has names",
    ),
    "MODEL.FPN.IN_FEATURES": _NAMES,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": (_is_number, "a number"),
    "MODEL.REGNET.OUT_FEATURES": _NAMES,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": (
        lambda value: isinstance(value, SEQUENCES) and [type(item) for item in value] == [bool] * 4,
        "True or False for each of res2, res3, res4 and res5",
    ),
    "MODEL.RESNETS.OUT_FEATURES": _NAMES,
    "MODEL.RETINANET.IN_FEATURES": _NAMES,
    "MODEL.ROI_HEADS.IN_FEATURES": _NAMES,
    "MODEL.RPN.IN_FEATURES": _NAMES,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": _NAMES,
    "OUTPUT_DIR": (lambda value: isinstance(value, str) and value.strip() != "", "the path of a folder"),
    "SOLVER.STEPS": (
        lambda value: isinstance(value, SEQUENCES) and all(map(_is_number, value)),
        "a list of iterations",
    ),
    "TEST.EXPECTED_RESULTS": (
        _are_expected_results,
        "a list of [task, metric, value, tolerance], such as ['bbox', 'AP', 38.5, 0.2]",
    ),
    "TEST.KEYPOINT_OKS_SIGMAS": _SIGMAS,
}
"""Keys with a rule of their own: what holds of a value, and how to say it."""

_REGISTER_FIELDS = {
    "IGNORE_LABEL": (lambda value: _is_within(value, "[0, 65535]", is_whole=True), "a label, 0 to 65535"),
    "STUFF_CLASSES": (
        lambda value: _are_names(value) and len(set(value)) == len(value),
        "different names, those of the labels 0, 1, ...",
    ),
    "KEYPOINT_FLIP_PAIRS": (_are_pairs, "pairs of names, such as [['left_eye', 'right_eye']]"),
    "KEYPOINT_SIGMAS": _SIGMAS,
}
"""The same for what an entry of DATASETS.REGISTER may have beside its paths."""


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
    """Raises InputError for the first key whose value this version cannot obey, naming what it supports.

    Keys that are not in the default config are the business of the code that added them.
    """
    values = dict(flatten(cfg))
    for key, default in flatten(get_cfg()):
        if key not in values or _matches(key, _obeyed_by_projects):
            continue
        reason = _objection(key, values[key], default)
        if reason:
            raise InputError(f"{key} is {values[key]!r}{reason}")
    kinds = {**values, "MODEL.META_ARCHITECTURE": kind_of(values.get("MODEL.META_ARCHITECTURE", ""))}
    for keys, holds, rule in RELATIONS:
        if any(key not in values or _matches(key, _obeyed_by_projects) for key in keys):
            continue
        if not holds(*(kinds[key] for key in keys)):
            raise InputError(f"{' and '.join(f'{key} is {values[key]!r}' for key in keys)}; {rule}")
    _check_registered(cfg.DATASETS.REGISTER)


def _objection(key: str, value: Any, default: Any) -> str:
    """What follows "KEY is VALUE" where the key cannot have that value by itself; "" where it can."""
    if _matches(key, NOT_OBEYED) and plain(value) != plain(default):
        return f", but this version supports only its default {default!r}; take the key out of the config"
    if key in CHOICES and value not in CHOICES[key]:
        return f"; allowed are {', '.join(map(repr, CHOICES[key]))}"
    if value is None and default is None:
        return ""
    if value is None or (isinstance(default, str) and not isinstance(value, str)):
        return f"; it takes {article(default)} like {default!r}"
    if not all(map(math.isfinite, _floats(value))) and "inf]" not in INTERVALS.get(key, ""):
        return "; it takes finite numbers"
    if key in SPECIAL:
        fits, allowed = SPECIAL[key]
        return "" if fits(value) else f"; it takes {allowed}"
    if key in LISTS:
        length, interval = LISTS[key]
        return "" if _is_list(key, value) else f"; it takes {length or 'one or more'} numbers in {interval}"
    low = AT_LEAST.get(key, -math.inf)
    interval = INTERVALS.get(key, f"[{low}, inf]")
    is_whole = isinstance(default, int) and not _matches(key, _FRACTIONS_TOO)
    if (key in AT_LEAST or key in INTERVALS) and not _is_within(value, interval, is_whole=is_whole):
        number = "whole number" if is_whole else "number"
        none = ", or None" if default is None else ""
        return f"; it takes a {number} {f'of at least {low}' if key in AT_LEAST else f'in {interval}'}{none}"
    return ""


def _check_registered(table: dict[str, Any]) -> None:
    for name, entry in table.items():
        key = f"DATASETS.REGISTER.{name}"
        entry = entry if isinstance(entry, dict) else {}
        is_semantic = bool(entry.get("SEM_SEG_ROOT"))
        for field in ("SEM_SEG_ROOT" if is_semantic else "ANNOTATIONS", "IMAGES"):
            if not isinstance(entry.get(field), str) or not entry[field]:
                raise InputError(
                    f"{key}.{field} is missing; a data set needs {key}.ANNOTATIONS (COCO JSON file)"
                    f" and {key}.IMAGES (folder); of panoptic data also {key}.PANOPTIC_ROOT (folder of PNG"
                    " files)"
                )
        for field in ("ANNOTATIONS", "PANOPTIC_ROOT") if is_semantic else ("STUFF_CLASSES",):
            if entry.get(field):
                raise InputError(
                    f"{key} has {'SEM_SEG_ROOT' if is_semantic else 'ANNOTATIONS'} and {field}: a semantic"
                    " set has SEM_SEG_ROOT, IMAGES and STUFF_CLASSES, a panoptic one ANNOTATIONS,"
                    " PANOPTIC_ROOT and IMAGES, which name its classes; take one of the two"
                )
        has_labels = is_semantic or bool(entry.get("PANOPTIC_ROOT"))
        for field in ("KEYPOINT_FLIP_PAIRS", "KEYPOINT_SIGMAS") if has_labels else ("IGNORE_LABEL",):
            if entry.get(field) not in (None, [], (), 255):
                raise InputError(
                    f"{key}.{field} is for {'instances' if has_labels else 'panoptic and semantic labels'},"
                    f" which {key} does not register; leave it out"
                )
        if is_semantic and not entry.get("STUFF_CLASSES"):
            raise InputError(
                f"{key}.STUFF_CLASSES is missing; name the classes of the labels 0, 1, ... in"
                f" {entry['SEM_SEG_ROOT']}, such as {key}.STUFF_CLASSES road,building,sky"
            )
        for field, (fits, allowed) in _REGISTER_FIELDS.items():
            if field in entry and not fits(entry[field]):
                raise InputError(f"{key}.{field} is {entry[field]!r}; it takes {allowed}")


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _is_within(value: Any, interval: str, *, is_whole: bool = False) -> bool:
    """Whether `value` is a number in `interval`: "[0, 1)" holds 0 and not 1."""
    if not _is_number(value) or (is_whole and not isinstance(value, int)):
        return False
    low, high = map(float, interval[1:-1].split(","))
    is_above = value >= low if interval[0] == "[" else value > low
    return is_above and (value <= high if interval[-1] == "]" else value < high)


def _is_list(key: str, value: Any) -> bool:
    """Whether `value` is a list as LISTS wants it for `key`."""
    length, interval = LISTS[key]
    if key in _LIST_OR_NUMBER and _is_number(value):
        value = [value]
    if not isinstance(value, SEQUENCES):
        return False
    is_nested = key in _LISTS_OF_LISTS and value and all(isinstance(row, SEQUENCES) for row in value)
    is_whole = _matches(key, _WHOLE_NUMBERS)
    return all(
        (len(row) == length if length else len(row) > 0)
        and all(_is_within(item, interval, is_whole=is_whole) for item in row)
        for row in (value if is_nested else [value])
    )


def _floats(value: Any) -> list[float]:
    """Every float in `value`, a scalar or nested lists."""
    if isinstance(value, SEQUENCES):
        return [number for item in value for number in _floats(item)]
    return [value] if isinstance(value, float) else []
