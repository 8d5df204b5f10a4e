import io
import pickle

import pytest

from panomask.config import CfgNode, get_cfg
from panomask.errors import InputError

BASE_RCNN_FPN = """
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  RESNETS: {OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
DATASETS:
  TRAIN: ("coco_2017_train",)
SOLVER:
  STEPS: (60000, 80000)
  BASE_LR: 1e-2
VERSION: 2
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="a.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_file


def error_of(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- merging ----


def test_merge_from_file_with_base(write):
    write(BASE_RCNN_FPN, "base.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write("_BASE_: base.yaml\nMODEL:\n  MASK_ON: True\n  RESNETS:\n    DEPTH: 101\n"))
    assert cfg.MODEL.MASK_ON is True
    assert cfg.MODEL.RESNETS.DEPTH == 101
    assert cfg.MODEL.RESNETS.OUT_FEATURES == ["res2", "res3", "res4", "res5"]
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[32], [64], [128], [256], [512]]
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",)
    assert cfg.SOLVER.STEPS == (60000, 80000)
    assert cfg.SOLVER.BASE_LR == 0.01
    assert cfg.MODEL.RPN.NMS_THRESH == 0.7


@pytest.mark.parametrize("allow_unsafe", [True, False])
def test_no_file_runs_code(write, tmp_path, allow_unsafe):
    victim = tmp_path / "victim"
    path = write(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{victim}']\n")
    with pytest.raises(InputError, match="is not allowed in a config; plain values"):
        get_cfg().merge_from_file(path, allow_unsafe=allow_unsafe)
    with pytest.raises(InputError, match="is not allowed in a config; plain values"):
        CfgNode.load_yaml_with_base(path, allow_unsafe=allow_unsafe)
    assert not victim.exists()


def test_load_yaml_with_base_returns_the_nested_values(write):
    write("A: {X: 1}\n", "base.yaml")
    assert CfgNode.load_yaml_with_base(write("_BASE_: base.yaml\nB: 2\n")) == {"A": {"X": 1}, "B": 2}


def test_merge_from_list():
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            "SOLVER.BASE_LR",
            "1",
            "DATASETS.TRAIN",
            "shapes_train",
            "MODEL.MASK_ON",
            "true",
            "SOLVER.STEPS",
            "6,8",
        ]
        + [
            "OUTPUT_DIR",
            "123",
            "SOLVER.MAX_ITER",
            7,
            "SOLVER.WEIGHT_DECAY_BIAS",
            "0.0",
            "SOLVER.MAX_ITER",
            "9",
        ]
    )
    assert type(cfg.SOLVER.BASE_LR) is float
    assert cfg.SOLVER.BASE_LR == 1.0
    assert cfg.DATASETS.TRAIN == ("shapes_train",)
    assert cfg.MODEL.MASK_ON is True
    assert cfg.SOLVER.STEPS == (6, 8)
    assert cfg.OUTPUT_DIR == "123"
    assert cfg.SOLVER.MAX_ITER == 9  # the last one wins
    assert cfg.SOLVER.WEIGHT_DECAY_BIAS == 0.0


def test_merge_from_other_cfg():
    cfg, other = get_cfg(), CfgNode({"SOLVER": {"MAX_ITER": 5}, "MODEL": {"PIXEL_MEAN": [1.0, 2.0, 3.0]}})
    cfg.merge_from_other_cfg(other)
    other.MODEL.PIXEL_MEAN.append(4.0)
    assert cfg.SOLVER.MAX_ITER == 5
    assert cfg.MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0]
    assert "unknown key SOLVER.X" in error_of(cfg.merge_from_other_cfg, CfgNode({"SOLVER": {"X": 1}}))


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("MODEL: {ROI_HEADS: {NUM_CLASS: 3}}", ["MODEL.ROI_HEADS.NUM_CLASS;", "MODEL.ROI_HEADS.NUM_CLASSES"]),
        ("MODEL: {WEIGHT: x}", ["unknown key MODEL.WEIGHT;", "MODEL.WEIGHTS"]),
        ("SOLVERS: {BASE_LR: 1.0}", ["unknown key SOLVERS;", "SOLVER"]),
        ("BASE_LR: 1.0", ["unknown key BASE_LR;", "SOLVER.BASE_LR"]),
        ("ZZZZZZZZZ: 1", ["unknown key ZZZZZZZZZ; nearest known: none"]),
        ("INPUT: {CROP: {KIND: x}}", ["allowed here: INPUT.CROP.ENABLED, INPUT.CROP.SIZE, INPUT.CROP.TYPE"]),
        ("SOLVER: {_BASE_: x.yaml}", ["unknown key SOLVER._BASE_"]),
        ("1: x", ["key 1 is a int"]),
        ("SOLVER: {MAX_ITER: abc}", ["SOLVER.MAX_ITER takes an int like 40000, not a str: 'abc'"]),
        ("SOLVER: {MAX_ITER: {A: 1}}", ["SOLVER.MAX_ITER takes an int", "group of keys"]),
        ("SOLVER: 3", ["SOLVER is a group of keys and cannot take the value 3"]),
        ("MODEL: {MASK_ON: 1}", ["MODEL.MASK_ON takes a bool"]),
        ("VERSION: 1", ["VERSION is 1; this program reads VERSION 2"]),
    ],
)
def test_bad_file_names_file_and_key(write, text, parts):
    path = write(text)
    cfg = get_cfg()
    message = error_of(cfg.merge_from_file, path)
    for part in [path, *parts]:
        assert part in message
    assert cfg == get_cfg()


def test_the_base_that_holds_the_mistake_is_named(write):
    base = write("SOLVER: {BASE_LRR: 1.0}", "base.yaml")
    message = error_of(get_cfg().merge_from_file, write("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 5}\n"))
    assert message.startswith(f"{base}: unknown key SOLVER.BASE_LRR")


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["SOLVER.MAX_ITER"], "come in pairs"),
        (["SOLVER.MAX_ITER", "5", "SEED"], "3 words given: SOLVER.MAX_ITER 5 SEED"),
        (["SOLVER.MAXITER", "5"], "override: unknown key SOLVER.MAXITER; nearest known: SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER.X", "5"], "SOLVER.MAX_ITER takes an int"),
        (["SOLVER.MAX_ITER", "5", "SOLVER.MAX_ITER.X", "5"], "was given a value before"),
        (["_BASE_", "x.yaml"], "unknown key _BASE_"),
        (["", "5"], "unknown key"),
        (["SOLVER", "5"], "SOLVER is a group of keys"),
        (["SOLVER.MAX_ITER", "9e4"], "takes an int like 40000, not a float: '9e4'"),
    ],
)
def test_bad_overrides(overrides, part):
    cfg = get_cfg()
    assert part in error_of(cfg.merge_from_list, overrides)
    assert cfg == get_cfg()


def test_a_merge_is_all_or_nothing(write):
    cfg = get_cfg()
    error_of(cfg.merge_from_file, write("SOLVER: {MAX_ITER: 5, BASE_LRR: 1.0}"))
    assert cfg == get_cfg()
    assert not cfg.is_explicit("SOLVER.MAX_ITER")


def test_frozen_config_refuses_assignment_and_merge():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SOLVER.MAX_ITER = 5
    with pytest.raises(AttributeError):
        cfg.merge_from_list(["SOLVER.MAX_ITER", "5"])
    cfg.defrost()
    cfg.merge_from_list(["SOLVER.MAX_ITER", "5"])
    assert cfg.SOLVER.MAX_ITER == 5


def test_yacs_renamed_deprecated_and_new_keys():
    cfg = CfgNode({"NEW": 1, "OPEN": {}})
    cfg.register_renamed_key("OLD", "NEW")
    cfg.register_deprecated_key("GONE")
    cfg.OPEN.set_new_allowed(True)
    assert "OLD was renamed to NEW" in error_of(cfg.merge_from_list, ["OLD", 1])
    cfg.merge_from_list(["GONE", 1, "OPEN.A", "1e-4", "OPEN.B.C", "x"])
    assert cfg == {"NEW": 1, "OPEN": {"A": 0.0001, "B": {"C": "x"}}}


# ---- data sets of the user's own ----


def test_register_from_file_and_command_line(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("DATASETS:\n  REGISTER:\n    nuts: {ANNOTATIONS: n.json, IMAGES: nuts}\n"))
    cfg.merge_from_list(
        ["DATASETS.REGISTER.my_set.ANNOTATIONS", "a.json", "DATASETS.REGISTER.my_set.IMAGES", "123"]
        + ["DATASETS.REGISTER.nuts.IMAGES", "other"]
    )
    rest = {"PANOPTIC_ROOT": "", "SEM_SEG_ROOT": "", "STUFF_CLASSES": [], "IGNORE_LABEL": 255}
    rest |= {"KEYPOINT_FLIP_PAIRS": [], "KEYPOINT_SIGMAS": []}
    assert cfg.DATASETS.REGISTER == {
        "nuts": {"ANNOTATIONS": "n.json", "IMAGES": "other", **rest},
        "my_set": {"ANNOTATIONS": "a.json", "IMAGES": "123", **rest},
    }
    assert get_cfg().DATASETS.REGISTER == {}


def test_register_takes_keypoint_pairs_and_sigmas(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("DATASETS: {REGISTER: {a: {KEYPOINT_FLIP_PAIRS: [[l, r], [m, n]]}}}\n"))
    cfg.merge_from_list(["DATASETS.REGISTER.a.KEYPOINT_SIGMAS", "[0.1, 0.2]"])
    assert cfg.DATASETS.REGISTER.a.KEYPOINT_FLIP_PAIRS == [["l", "r"], ["m", "n"]]
    assert cfg.DATASETS.REGISTER.a.KEYPOINT_SIGMAS == [0.1, 0.2]
    cfg.merge_from_list(["DATASETS.REGISTER.b.IMAGES", "x"])
    assert cfg.DATASETS.REGISTER.b.KEYPOINT_SIGMAS == []  # no entry shares a list with another


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (
            "DATASETS.REGISTER.a.IMAGE",
            "allowed here: DATASETS.REGISTER.a.ANNOTATIONS, DATASETS.REGISTER.a.IGNORE_LABEL",
        ),
        ("DATASETS.REGISTER.a", "DATASETS.REGISTER.a is a group of keys"),
        ("DATASETS.REGISTER.a.IMAGES.x", "DATASETS.REGISTER.a.IMAGES takes a str"),
    ],
)
def test_register_takes_known_fields_only(key, part):
    assert part in error_of(get_cfg().merge_from_list, [key, "x"])


# ---- dump ----


def changed_cfg(write):
    write(BASE_RCNN_FPN, "base.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write("_BASE_: base.yaml\n"))
    cfg.merge_from_list(
        [
            "TEST.EXPECTED_RESULTS",
            "[('bbox', 'AP', 38.5, 0.2)]",
            "OUTPUT_DIR",
            "'(1, 2)'",
            "MODEL.WEIGHTS",
            "5",
        ]
        + ["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", "[[1.0, 1, 2, 2]]", "SOLVER.STEPS", "()"]
        + ["DATASETS.REGISTER.a.ANNOTATIONS", "null", "DATASETS.REGISTER.a.IMAGES", "é"]
    )
    cfg.DATASETS.TEST = ["x", "y"]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = ((1.0,), (2.0,))
    return cfg


@pytest.mark.parametrize("make", [lambda write: get_cfg(), changed_cfg], ids=["defaults", "changed"])
@pytest.mark.parametrize("options", [{}, {"sort_keys": False}, {"default_flow_style": True}])
def test_dump_reloads_equal(write, make, options):
    cfg = make(write)
    loaded = get_cfg()
    loaded.merge_from_file(write(cfg.dump(**options), "dump.yaml"))
    assert loaded == cfg  # tuples and lists differ, so nested ones are compared too
    assert loaded.SOLVER.WEIGHT_DECAY_BIAS is None


def test_dump_into_a_stream_without_aliases():
    cfg = get_cfg()
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2"]
    stream = io.StringIO()
    cfg.dump(stream)
    assert stream.getvalue() == cfg.dump()
    assert "&id" not in cfg.dump()


# ---- which keys were set ----


def test_is_explicit_after_each_way_of_setting(write):
    cfg = get_cfg()
    assert not cfg.is_explicit("SOLVER.MAX_ITER")
    cfg.merge_from_file(write("SOLVER: {MAX_ITER: 40000}\n"))  # the default's value, but said
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    cfg.merge_from_other_cfg(CfgNode({"SEED": 1}))
    cfg.MODEL.MASK_ON = True
    for key in ("SOLVER.MAX_ITER", "MODEL.ROI_HEADS.NUM_CLASSES", "SEED", "MODEL.MASK_ON"):
        assert cfg.is_explicit(key)
    assert not cfg.is_explicit("SOLVER.BASE_LR")
    assert not get_cfg().is_explicit("SOLVER.MAX_ITER")


def test_a_project_that_adds_a_key_sets_a_default():
    cfg = get_cfg()
    cfg.MODEL.MINE = CfgNode()
    cfg.MODEL.MINE.WIDTH = 3
    assert not cfg.is_explicit("MODEL.MINE.WIDTH")
    cfg.merge_from_list(["MODEL.MINE.WIDTH", "4"])
    assert cfg.is_explicit("MODEL.MINE.WIDTH")


@pytest.mark.parametrize("copy", [CfgNode.clone, lambda cfg: pickle.loads(pickle.dumps(cfg))])
def test_copies_remember(copy):
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", "1", "DATASETS.REGISTER.a.IMAGES", "x"])
    cfg.freeze()
    copied = copy(cfg)
    assert copied == cfg
    assert type(copied.MODEL) is CfgNode
    assert copied.is_frozen()
    assert copied.is_explicit("SEED")
    assert not copied.is_explicit("OUTPUT_DIR")
    copied.defrost()
    copied.merge_from_list(["DATASETS.REGISTER.b.IMAGES", "y"])
    assert list(cfg.DATASETS.REGISTER) == ["a"]


@pytest.mark.parametrize("key", ["SOLVER.MAX_ITERS", "NONE.X", "MODEL.DEVICE.cud"])
def test_is_explicit_of_an_unknown_key(key):
    with pytest.raises(KeyError):
        get_cfg().is_explicit(key)
