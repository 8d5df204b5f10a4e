"""Every relation between keys is broken once, by itself, and the message names its keys and its rule."""

import pytest

from panomask.config import check_supported, get_cfg
from panomask.config.node import flatten
from panomask.config.relations import RELATIONS, Relation
from panomask.errors import InputError

LOADED = ("MODEL.LOAD_PROPOSALS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
BROKEN = [
    (*LOADED, "DATASETS.TRAIN", ("a", "b"), "DATASETS.PROPOSAL_FILES_TRAIN", ("a.pkl",)),
    (*LOADED, "DATASETS.TEST", ("a",)),
    ("MODEL.LOAD_PROPOSALS", True),
    ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (640,)),
    ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE", [384, 600]),
    ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [0.9, 0.9]),
    ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", [600, 384]),
    ("INPUT.LSJ.MIN_SCALE", 1.0, "INPUT.LSJ.MAX_SCALE", 0.5),
    ("INPUT.LSJ.ENABLED", True, "INPUT.CROP.ENABLED", True),
    ("INPUT.LSJ.ENABLED", True, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 65535),
    ("MODEL.PIXEL_MEAN", [103.5], "MODEL.PIXEL_STD", [1.0, 1.0]),
    ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
    (*CASCADE, "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6)),
    (*CASCADE, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
    (*CASCADE, "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.4, 0.6, 0.7)),
    (*CASCADE, "MODEL.ROI_HEADS.IOU_LABELS", [0, -1]),
    (*CASCADE, "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True),
    (
        *("MODEL.META_ARCHITECTURE", "FCOS", "MODEL.ROI_HEADS.NAME", "GivenBoxROIHeads"),
        *("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True),
    ),
    ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True),
    ("MODEL.KEYPOINT_ON", True),  # Res5ROIHeads are the default
    ("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.KEYPOINT_ON", True),
    ("MODEL.META_ARCHITECTURE", "FCOS", "MODEL.MASK_ON", True),
    ("MODEL.ROI_HEADS.NAME", "GivenBoxROIHeads"),  # GeneralizedRCNN is the default
    ("MODEL.META_ARCHITECTURE", "FCOS", "MODEL.FCOS.IN_FEATURES", ["p3", "p4"]),
    ("MODEL.FCOS.SIZES_OF_INTEREST", [64, 128, 100, 512]),
    ("MODEL.RETINANET.IOU_THRESHOLDS", [0.5, 0.4]),
    ("MODEL.RETINANET.IOU_LABELS", [0, 1]),
    ("MODEL.META_ARCHITECTURE", "PanopticFPN"),  # MASK_ON is False by default
    ("TEST.SAVE_PANOPTIC", True),  # GeneralizedRCNN is the default
    ("TEST.SAVE_PANOPTIC", True, "MODEL.META_ARCHITECTURE", "FCOS"),
    ("TEST.SAVE_PANOPTIC", True, "MODEL.META_ARCHITECTURE", "RetinaNet"),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.7, 0.3], "MODEL.ROI_HEADS.IOU_LABELS", [0, -1, 1]),
    ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.3, 0.7]),
    ("MODEL.RPN.IOU_LABELS", [0, 1]),
    ("SOLVER.RESCALE_INTERVAL", True, "SOLVER.WARMUP_ITERS", 1000, "SOLVER.MAX_ITER", 1000),
    ("SOLVER.NESTEROV", True, "SOLVER.MOMENTUM", 0.0),
]


def _broken_by(*overrides) -> tuple[str, list[Relation]]:
    """What is said of a config, and the relations that do not hold in it."""
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    values = dict(flatten(cfg))
    with pytest.raises(InputError) as caught:
        check_supported(cfg)
    return str(caught.value), [each for each in RELATIONS if not each.holds(*map(values.get, each.keys))]


@pytest.mark.parametrize("overrides", BROKEN, ids=lambda overrides: overrides[-2])
def test_what_does_not_fit_together_is_said(overrides):
    message, (broken,) = _broken_by(*overrides)
    assert message.endswith(broken.rule)
    assert all(f"{key} is " in message for key in broken.keys)
    assert "\n" not in message


def test_every_relation_can_be_broken():
    assert {id(broken) for overrides in BROKEN for broken in _broken_by(*overrides)[1]} == set(
        map(id, RELATIONS)
    )


@pytest.mark.parametrize(
    "overrides",
    [
        LOADED,  # no data set is named
        (*LOADED, "DATASETS.TRAIN", ("a", "b"), "DATASETS.PROPOSAL_FILES_TRAIN", ("a.pkl", "b.pkl")),
        ("DATASETS.TRAIN", ("a",)),  # nothing is loaded
        CASCADE,
        (*CASCADE, "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5,), "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS")
        + ([[10.0, 10.0, 5.0, 5.0]],),
        ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
        ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        ("INPUT.LSJ.MIN_SCALE", 1.0, "INPUT.LSJ.MAX_SCALE", 1.0),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (640, 800)),
        ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [384, 600]),
        ("MODEL.RPN.IOU_THRESHOLDS", [0.5], "MODEL.RPN.IOU_LABELS", [0, 1]),
        ("SOLVER.NESTEROV", True, "SOLVER.MOMENTUM", 0.0, "SOLVER.OPTIMIZER", "ADAMW"),
    ],
)
def test_what_fits_together(overrides):
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    check_supported(cfg)


def test_single_names_that_code_assigns():
    cfg = get_cfg()
    cfg.merge_from_list(list(LOADED))
    cfg.DATASETS.TEST = cfg.DATASETS.PROPOSAL_FILES_TEST = "name"
    check_supported(cfg)
