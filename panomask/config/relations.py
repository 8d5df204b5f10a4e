"""What the values of several keys, each of them fit by itself, must be to one another.

`validation.py` refuses the config where a relation does not hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from panomask.config.coercion import SEQUENCES


class Relation(NamedTuple):
    """What the values of `keys`, each of them fit by itself, must be to one another."""

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    rule: str


def _is_rising(values: list[float]) -> bool:
    return list(values) == sorted(values)


def _is_crop(enabled: bool, kind: str, size: list[float]) -> bool:
    if kind.startswith("relative"):
        return not enabled or max(size) <= 1
    return not enabled or (min(size) >= 1 and (kind == "absolute" or _is_rising(size)))


def _has_proposals(is_loaded: bool, names: Any, files: Any) -> bool:
    counts = [1 if isinstance(value, str) else len(value) for value in (names, files)]
    return not is_loaded or counts[0] in (0, counts[1])


_WITHOUT_PANOPTIC_OUTPUT = ("FCOS", "GeneralizedRCNN", "ProposalNetwork", "RetinaNet", "SemanticSegmentor")
"""Ours among MODEL.META_ARCHITECTURE; a project's own may give anything."""

_ONE_STAGE = ("FCOS", "RetinaNet")
_TWO_STAGE = ("GeneralizedRCNN", "PanopticFPN")

RELATIONS = (
    *(
        Relation(
            ("MODEL.LOAD_PROPOSALS", f"DATASETS.{split}", f"DATASETS.PROPOSAL_FILES_{split}"),
            _has_proposals,
            "each data set needs its file of proposals",
        )
        for split in ("TRAIN", "TEST")
    ),
    Relation(
        ("MODEL.LOAD_PROPOSALS", "MODEL.PROPOSAL_GENERATOR.NAME"),
        lambda is_loaded, name: not is_loaded or name != "RPN",
        "proposals that are loaded are used by PrecomputedProposals",
    ),
    Relation(
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "INPUT.MIN_SIZE_TRAIN"),
        lambda sampling, sizes: sampling != "range" or (isinstance(sizes, SEQUENCES) and len(sizes) == 2),
        "sampling from a range needs two sizes, (min, max)",
    ),
    Relation(
        ("INPUT.CROP.ENABLED", "INPUT.CROP.TYPE", "INPUT.CROP.SIZE"),
        _is_crop,
        "relative sizes are at most 1, absolute ones at least 1, those of absolute_range (min, max)",
    ),
    Relation(
        ("INPUT.LSJ.MIN_SCALE", "INPUT.LSJ.MAX_SCALE"),
        lambda low, high: low <= high,
        "the scales must rise",
    ),
    Relation(
        ("INPUT.LSJ.ENABLED", "INPUT.CROP.ENABLED"),
        lambda is_jittered, is_cropped: not (is_jittered and is_cropped),
        "large-scale jitter crops by itself; set one of them False",
    ),
    Relation(
        ("INPUT.LSJ.ENABLED", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"),
        lambda is_jittered, ignore: not is_jittered or 0 <= ignore <= 255,
        "large-scale jitter pads label images of 8 bits by the latter, which must lie in 0 to 255",
    ),
    Relation(
        ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
        lambda mean, std: len(mean) == len(std),
        "both need one number for each channel",
    ),
    Relation(
        ("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.WIDTH_PER_GROUP"),
        lambda depth, width: depth >= 50 or width == 64,
        "depths 18 and 34 have no groups, and only the default, 64, is supported",
    ),
    Relation(
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"),
        lambda ious, weights: len(ious) == len(weights) and isinstance(weights[0], SEQUENCES),
        "both need one entry for each stage, of BBOX_REG_WEIGHTS a list",
    ),
    Relation(
        ("MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
        lambda name, is_agnostic: name != "CascadeROIHeads" or is_agnostic,
        "a cascade passes one box on from stage to stage and needs class-agnostic boxes",
    ),
    Relation(
        (
            "MODEL.ROI_HEADS.NAME",
            "MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
            "MODEL.ROI_HEADS.IOU_THRESHOLDS",
            "MODEL.ROI_HEADS.IOU_LABELS",
        ),
        lambda name, ious, thresholds, labels: (
            name != "CascadeROIHeads" or (list(thresholds), list(labels)) == ([ious[0]], [0, 1])
        ),
        "a cascade's first stage has the threshold IOUS[0] alone, with the labels 0 and 1",
    ),
    Relation(
        ("MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"),
        lambda name, is_on: not is_on or name not in ("CascadeROIHeads", "GivenBoxROIHeads"),
        "only StandardROIHeads trains masks and keypoints in predicted boxes",
    ),
    Relation(
        ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE"),
        lambda is_federated, is_sigmoid: is_sigmoid or not is_federated,
        "a federated loss leaves classes out one by one, which a softmax cannot",
    ),
    Relation(
        ("MODEL.KEYPOINT_ON", "MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME"),
        lambda is_on, model, heads: not (is_on and model in _TWO_STAGE and heads == "Res5ROIHeads"),
        "Res5ROIHeads predicts no keypoints; set MODEL.ROI_HEADS.NAME StandardROIHeads",
    ),
    *(
        Relation(
            (key, "MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME"),
            lambda is_on, model, heads: not (is_on and model in _ONE_STAGE and heads == "Res5ROIHeads"),
            "Res5ROIHeads needs a backbone without a pyramid; set MODEL.ROI_HEADS.NAME GivenBoxROIHeads",
        )
        for key in ("MODEL.MASK_ON", "MODEL.KEYPOINT_ON")
    ),
    Relation(
        ("MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME"),
        lambda model, heads: not (model in _TWO_STAGE and heads == "GivenBoxROIHeads"),
        "proposals have no classes, which GivenBoxROIHeads takes over; set MODEL.ROI_HEADS.NAME"
        " StandardROIHeads",
    ),
    Relation(
        ("MODEL.META_ARCHITECTURE", "MODEL.FCOS.IN_FEATURES", "MODEL.FCOS.SIZES_OF_INTEREST"),
        lambda model, names, sizes: model != "FCOS" or len(sizes) == len(names) - 1,
        "there is a size between each feature map and the next",
    ),
    Relation(
        ("MODEL.FCOS.SIZES_OF_INTEREST",),
        lambda sizes: list(sizes) == sorted(set(sizes)),
        "each size must be above the one before it",
    ),
    Relation(
        ("MODEL.META_ARCHITECTURE", "MODEL.PANOPTIC_FPN.COMBINE.ENABLED", "MODEL.MASK_ON"),
        lambda model, is_merged, has_masks: model != "PanopticFPN" or has_masks or not is_merged,
        "without masks no thing gets a pixel; set MODEL.MASK_ON True, or do not combine",
    ),
    Relation(
        ("TEST.SAVE_PANOPTIC", "MODEL.META_ARCHITECTURE", "MODEL.PANOPTIC_FPN.COMBINE.ENABLED"),
        lambda is_saved, model, is_merged: (
            not is_saved or (is_merged if model == "PanopticFPN" else model not in _WITHOUT_PANOPTIC_OUTPUT)
        ),
        "there are no panoptic predictions to save; set TEST.SAVE_PANOPTIC False",
    ),
    *(
        Relation((f"MODEL.{name}.IOU_THRESHOLDS",), _is_rising, "thresholds must rise")
        for name in ("RETINANET", "ROI_HEADS", "RPN")
    ),
    *(
        Relation(
            (f"MODEL.{name}.IOU_THRESHOLDS", f"MODEL.{name}.IOU_LABELS"),
            lambda thresholds, labels: len(labels) == len(thresholds) + 1,
            "there is one label more than thresholds",
        )
        for name in ("RETINANET", "ROI_HEADS", "RPN")
    ),
    Relation(
        ("SOLVER.RESCALE_INTERVAL", "SOLVER.WARMUP_ITERS", "SOLVER.MAX_ITER"),
        lambda is_rescaled, warmup, total: not is_rescaled or warmup < total,
        "a schedule squeezed into what the warm-up leaves needs a warm-up shorter than the training",
    ),
    Relation(
        ("SOLVER.OPTIMIZER", "SOLVER.NESTEROV", "SOLVER.MOMENTUM"),
        lambda optimizer, is_nesterov, momentum: optimizer != "SGD" or not is_nesterov or momentum > 0,
        "Nesterov's method needs a momentum above 0",
    ),
)
