import re
from pathlib import Path

import pytest

import panomask
from panomask.config import check_supported, get_cfg, obeys, validation
from panomask.config.node import flatten
from panomask.data import image_io
from panomask.errors import InputError
from panomask.layers import batch_norm
from panomask.modeling import poolers


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
        ("MODEL.ANCHOR_GENERATOR.ANGLES", "[[0]]"),
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
    check_supported(cfg_with("GLOBAL.HACK", "1.0", "MODEL.ANCHOR_GENERATOR.ANGLES", "[(-90, 0, 90)]"))


@pytest.mark.parametrize("key", sorted(validation.CHOICES))
def test_choices(key):
    allowed = validation.CHOICES[key]
    for value in allowed:
        check_supported(cfg_with(key, value, "INPUT.MIN_SIZE_TRAIN", "640,800"))
    cfg = cfg_with(key, 7 if isinstance(allowed[0], int) else "foo")
    message = error_of(cfg)
    assert message.startswith(f"{key} is ")
    assert all(repr(value) in message for value in allowed)


@pytest.mark.parametrize("key", sorted(validation.AT_LEAST))
def test_ranges(key):
    low = validation.AT_LEAST[key]
    check_supported(cfg_with(key, low))
    assert f"number of at least {low}" in error_of(cfg_with(key, low - 1))


@pytest.mark.parametrize("key", sorted(validation.INTERVALS))
def test_intervals(key):
    interval = validation.INTERVALS[key]
    default = dict(flatten(get_cfg()))[key]
    for bound, bracket in zip(interval[1:-1].split(", "), (interval[0], interval[-1]), strict=True):
        cfg = cfg_with(key, type(default)(float(bound)))
        if bracket in "[]":
            check_supported(cfg)
        else:
            error_of(cfg)
    message = error_of(cfg_with(key, -5))
    assert message.startswith(f"{key} is -5")
    assert message.endswith(f"number in {interval}")


@pytest.mark.parametrize("key", [key for key, default in flatten(get_cfg()) if default is not None])
def test_none_is_for_keys_whose_default_it_is(key):
    cfg = get_cfg()
    *groups, name = key.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[name] = None
    assert error_of(cfg).startswith(f"{key} is None")


def test_a_default_of_none_can_be_restored():
    cfg = cfg_with("SOLVER.WEIGHT_DECAY_BIAS", "0.1")
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY_BIAS", "None"])
    check_supported(cfg)


BAD_VALUES = [
    ("INPUT.LSJ.MAX_SCALE", "0"),
    ("INPUT.LSJ.SIZE", "1024"),
    ("INPUT.LSJ.SIZE", "1024.5,1024"),
    ("INPUT.CROP.SIZE", "0.9"),
    ("INPUT.CROP.SIZE", "0.9,-0.9"),
    ("INPUT.FORMAT", ""),
    ("INPUT.FORMAT", "RGBA"),
    ("INPUT.MIN_SIZE_TRAIN", "()"),
    ("INPUT.MIN_SIZE_TRAIN", "-640"),
    ("INPUT.MIN_SIZE_TRAIN", "((640, 800),)"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.0, 1.0]]"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], 16]"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], []]"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "[[[8]]]"),
    ("MODEL.FPN.IN_FEATURES", "[2, 3]"),
    ("MODEL.FPN.NORM", "bn"),
    ("MODEL.PIXEL_MEAN", "[]"),
    ("MODEL.PIXEL_STD", "1.0,0.0,1.0"),
    ("MODEL.RESNETS.OUT_FEATURES", "[['res2']]"),
    ("MODEL.RESNETS.RES5_DILATION", "3"),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "1,1,1"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "-inf"),
    ("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[512, 0]"),
    ("MODEL.RPN.BBOX_REG_WEIGHTS", "1,1,1,0"),
    ("MODEL.RPN.CONV_DIMS", "[1.5]"),
    ("MODEL.RPN.CONV_DIMS", "[]"),
    ("MODEL.RPN.IOU_LABELS", "[0, 2, 1]"),
    ("MODEL.RPN.IOU_LABELS", "[0, 0.5, 1]"),
    ("MODEL.RPN.IOU_THRESHOLDS", "0.3,1.7"),
    ("MODEL.RPN.IOU_THRESHOLDS", "0.7,0.3"),
    ("MODEL.RPN.LOSS_WEIGHT", "inf"),
    ("OUTPUT_DIR", ""),
    ("OUTPUT_DIR", " "),
    ("SOLVER.ADAMW_BETAS", "0.9"),
    ("SOLVER.ADAMW_BETAS", "0.9,1.0"),
    ("SOLVER.STEPS", "((1, 2),)"),
    ("SOLVER.WEIGHT_DECAY_BIAS", "x"),
    ("SOLVER.WEIGHT_DECAY_BIAS", "True"),
    ("TEST.EXPECTED_RESULTS", "[1, 2, 3]"),
    ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 38.5]]"),
    ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', '38.5', 0.1]]"),
    ("DATASETS.TRAIN", "[1, 2, 3]"),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_value_that_no_run_can_use(key, value):
    assert error_of(cfg_with(key, value)).startswith(f"{key} is ")


@pytest.mark.parametrize("key", [key for key, default in flatten(get_cfg()) if isinstance(default, float)])
def test_not_a_number(key):
    assert error_of(cfg_with(key, float("nan"))).startswith(f"{key} is nan")


@pytest.mark.parametrize(
    "overrides",
    [
        ("INPUT.MIN_SIZE_TRAIN", "0"),  # as they are
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[8, 16]", "MODEL.RPN.CONV_DIMS", "-1,256"),
        ("MODEL.PIXEL_MEAN", "103.5", "MODEL.PIXEL_STD", "57.0"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0001", "TEST.DETECTIONS_PER_IMAGE", "-1"),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "inf", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "inf"),
        ("SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", "0", "SOLVER.WARMUP_FACTOR", "1"),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.0"),
        ("TEST.EXPECTED_RESULTS", "[['bbox', 'AP', 38.5, 0.2], ['segm', 'AP', 35, 1]]"),
    ],
)
def test_values_that_mean_something(overrides):
    check_supported(cfg_with(*overrides))


def test_values_that_code_assigns():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = 640
    cfg.DATASETS.TRAIN = "coco_2017_train"
    cfg.SOLVER.WARMUP_ITERS = 0.1 * cfg.SOLVER.MAX_ITER
    cfg.MODEL.OF_MY_OWN = None
    check_supported(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80.0
    assert "takes a whole number of at least 1" in error_of(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    cfg.MODEL.BACKBONE.NAME = 50
    assert "takes a str like 'build_resnet_backbone'" in error_of(cfg)


def test_choices_are_those_of_the_layers():
    assert set(validation.CHOICES["MODEL.RESNETS.NORM"]) == {"", *batch_norm._NORMS}
    assert set(validation.CHOICES["MODEL.ROI_BOX_HEAD.POOLER_TYPE"]) == set(poolers._POOLERS)
    assert validation.CHOICES["INPUT.FORMAT"] == image_io._EIGHT_BIT_FORMATS


def test_tables_name_existing_keys():
    keys = [key for key, _ in flatten(get_cfg())]
    tables = (validation.CHOICES, validation.AT_LEAST, validation.INTERVALS, validation.LISTS)
    related = [key for relation in validation.RELATIONS for key in relation.keys]
    assert {*related, *validation.SPECIAL, *(key for table in tables for key in table)} <= set(keys)
    for pattern in validation.NOT_OBEYED:
        assert any(validation._matches(key, [pattern]) for key in keys), pattern


def test_registered_data_set_needs_both():
    check_supported(cfg_with("DATASETS.REGISTER.a.IMAGES", "x", "DATASETS.REGISTER.a.ANNOTATIONS", "y"))
    message = error_of(cfg_with("DATASETS.REGISTER.a.IMAGES", "x"))
    assert message.startswith("DATASETS.REGISTER.a.ANNOTATIONS is missing")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("KEYPOINT_FLIP_PAIRS", "[['a', 'b', 'c']]", "pairs of names"),
        ("KEYPOINT_FLIP_PAIRS", "[['a', 1]]", "pairs of names"),
        ("KEYPOINT_SIGMAS", "[0.1, 0]", "one number above 0"),
        ("KEYPOINT_SIGMAS", "['x']", "one number above 0"),
    ],
)
def test_keypoints_of_a_registered_data_set(field, value, allowed):
    paths = ("DATASETS.REGISTER.a.IMAGES", "x", "DATASETS.REGISTER.a.ANNOTATIONS", "y")
    message = error_of(cfg_with(*paths, f"DATASETS.REGISTER.a.{field}", value))
    assert message.startswith(f"DATASETS.REGISTER.a.{field} is ")
    assert allowed in message


PANOPTIC = {"ANNOTATIONS": "a.json", "IMAGES": "x", "PANOPTIC_ROOT": "y"}
SEMANTIC = {"SEM_SEG_ROOT": "y", "IMAGES": "x", "STUFF_CLASSES": "road,sky"}


def registered(**fields):
    return cfg_with(*(word for name in fields for word in (f"DATASETS.REGISTER.a.{name}", fields[name])))


def test_registered_panoptic_and_semantic_sets():
    check_supported(registered(**PANOPTIC))
    check_supported(registered(**SEMANTIC))
    assert registered(**SEMANTIC).DATASETS.REGISTER.a.STUFF_CLASSES == ["road", "sky"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"PANOPTIC_ROOT": "y", "IMAGES": "x"}, "ANNOTATIONS is missing"),
        ({**PANOPTIC, "STUFF_CLASSES": "sky"}, "has ANNOTATIONS and STUFF_CLASSES"),
        ({**PANOPTIC, **SEMANTIC}, "has SEM_SEG_ROOT and ANNOTATIONS"),
        ({**SEMANTIC, "PANOPTIC_ROOT": "z"}, "has SEM_SEG_ROOT and PANOPTIC_ROOT"),
        ({**SEMANTIC, "IMAGES": ""}, "IMAGES is missing"),
        ({**SEMANTIC, "STUFF_CLASSES": ""}, "STUFF_CLASSES is missing; name the classes"),
        ({**SEMANTIC, "STUFF_CLASSES": "sky,sky"}, "it takes different names"),
        ({**SEMANTIC, "IGNORE_LABEL": "-1"}, "it takes a label"),
        ({**PANOPTIC, "KEYPOINT_SIGMAS": "[0.1]"}, "KEYPOINT_SIGMAS is for instances"),
        ({**PANOPTIC, "PANOPTIC_ROOT": "", "IGNORE_LABEL": "7"}, "IGNORE_LABEL is for panoptic and semantic"),
    ],
)
def test_registered_sets_of_which_something_is_wrong(fields, message):
    found = error_of(registered(**fields))
    assert found.startswith("DATASETS.REGISTER.a")
    assert message in found
    assert "\n" not in found


def test_oks_sigmas():
    check_supported(cfg_with("TEST.KEYPOINT_OKS_SIGMAS", "[0.1, 0.2]"))
    for wrong in ("[0.1, 0.0]", "[-1.0]", "[[0.1]]"):
        assert "one number above 0" in error_of(cfg_with("TEST.KEYPOINT_OKS_SIGMAS", wrong))


def test_a_project_obeys_keys_of_its_own(monkeypatch):
    monkeypatch.setattr(validation, "_obeyed_by_projects", set())
    cfg = cfg_with("MODEL.ANCHOR_GENERATOR.ANGLES", "[[0]]", "SOLVER.OPTIMIZER", "LION")
    error_of(cfg)
    obeys("MODEL.ANCHOR_GENERATOR.A*", "SOLVER.OPTIMIZER")
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
