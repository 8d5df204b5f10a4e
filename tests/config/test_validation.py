import re
from pathlib import Path

import pytest

import panomask
from panomask.config import check_supported, get_cfg, obeys, validation
from panomask.config.node import flatten
from panomask.errors import InputError


def cfg_with(*overrides):
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    return cfg


def error_of(cfg):
    with pytest.raises(InputError) as caught:
        check_supported(cfg)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_supported():
    check_supported(get_cfg())


def test_mask_rcnn_fpn_is_supported():
    check_supported(
        cfg_with(
            *(
                "MODEL.MASK_ON",
                "True",
                "MODEL.RESNETS.DEPTH",
                "101",
                "MODEL.ROI_HEADS.NAME",
                "StandardROIHeads",
            ),
            *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.ROI_BOX_HEAD.NUM_FC", "2"),
            *("MODEL.FPN.IN_FEATURES", "res2,res3,res4,res5", "MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64]]"),
            *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou", "SOLVER.OPTIMIZER", "ADAMW"),
            *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "TEST.PRECISE_BN.ENABLED", "True"),
        )
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.KEYPOINT_ON", "True"),
        ("MODEL.LOAD_PROPOSALS", "True"),
        ("MODEL.RETINANET.NUM_CLASSES", "3"),
        ("MODEL.PANOPTIC_FPN.COMBINE.ENABLED", "False"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
        ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "3"),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "0.5,0.5,0.5"),
        ("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "True"),
        ("MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", "3"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"),
        ("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", "True"),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", "[False, True, True, True]"),
        ("MODEL.RPN.BOUNDARY_THRESH", "0"),
        ("MODEL.ANCHOR_GENERATOR.ANGLES", "[[0]]"),
        ("DATASETS.PROPOSAL_FILES_TRAIN", "a.pkl"),
        ("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "3"),
        ("TEST.AUG.ENABLED", "True"),
        ("TEST.KEYPOINT_OKS_SIGMAS", "0.1"),
        ("GLOBAL.HACK", "2.0"),
        ("VIS_PERIOD", "5"),
    ],
)
def test_key_not_obeyed_yet_is_refused(key, value):
    cfg = cfg_with(key, value)
    values, defaults = dict(flatten(cfg)), dict(flatten(get_cfg()))
    assert error_of(cfg).startswith(f"{key} is {values[key]!r}, but this version supports only its default")
    assert repr(defaults[key]) in error_of(cfg)


def test_a_key_said_to_be_its_default_is_fine():
    check_supported(
        cfg_with("MODEL.RETINANET.NUM_CLASSES", "80", "MODEL.ANCHOR_GENERATOR.ANGLES", "[(-90, 0, 90)]")
    )


@pytest.mark.parametrize("key", sorted(validation.CHOICES))
def test_choices(key):
    allowed = validation.CHOICES[key]
    for value in allowed:
        cfg = cfg_with(key, value)
        check_supported(cfg)
    cfg = cfg_with(key, 7 if isinstance(allowed[0], int) else "foo")
    message = error_of(cfg)
    assert message.startswith(f"{key} is ")
    assert all(repr(value) in message for value in allowed)


@pytest.mark.parametrize("key", sorted(validation.AT_LEAST))
def test_ranges(key):
    low = validation.AT_LEAST[key]
    check_supported(cfg_with(key, low))
    assert f"at least {low}" in error_of(cfg_with(key, low - 1))
    assert f"at least {low}" in error_of(cfg_with(key, None))


def test_tables_name_existing_keys():
    keys = [key for key, _ in flatten(get_cfg())]
    assert {*validation.CHOICES, *validation.AT_LEAST} <= set(keys)
    for pattern in validation.NOT_OBEYED:
        assert any(validation._matches(key, [pattern]) for key in keys), pattern


def test_registered_data_set_needs_both():
    check_supported(cfg_with("DATASETS.REGISTER.a.IMAGES", "x", "DATASETS.REGISTER.a.ANNOTATIONS", "y"))
    message = error_of(cfg_with("DATASETS.REGISTER.a.IMAGES", "x"))
    assert message.startswith("DATASETS.REGISTER.a.ANNOTATIONS is missing")


def test_a_project_obeys_keys_of_its_own(monkeypatch):
    monkeypatch.setattr(validation, "_obeyed_by_projects", set())
    cfg = cfg_with("MODEL.RETINANET.NUM_CLASSES", "3", "SOLVER.OPTIMIZER", "LION")
    error_of(cfg)
    obeys("MODEL.RETINANET.*", "SOLVER.OPTIMIZER")
    check_supported(cfg)
    error_of(cfg_with("VIS_PERIOD", "5"))
    with pytest.raises(InputError, match=r"no such key; nearest known: MODEL\.RETINANET\.NUM_CLASSES"):
        obeys("MODEL.RETINANET.NUM_CLASS")


def test_every_key_is_read_somewhere_or_refused():
    root = Path(panomask.__file__).parent
    sources = [path.read_text() for path in root.rglob("*.py") if path.parent.name != "config"]
    words = set(re.findall(r"\.([A-Z][A-Z0-9_]+)\b", "\n".join(sources)))
    words |= set(re.findall(r'"([A-Z][A-Z0-9_]+)"', "\n".join(sources)))
    checked = [*validation.NOT_OBEYED, "VERSION"]
    keys = [key for key, _ in flatten(get_cfg()) if not validation._matches(key, checked)]
    assert [key for key in keys if key.split(".")[-1] not in words] == []
