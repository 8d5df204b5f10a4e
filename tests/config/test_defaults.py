"""The defaults equal Detectron2's, recorded in golden_config_defaults.json."""

import json
from pathlib import Path

import pytest

from panomask.config import get_cfg
from panomask.config.node import flatten

GOLDEN = json.loads((Path(__file__).parent / "golden_config_defaults.json").read_text())
OURS = {
    "DATASETS.ON_BAD_ANNOTATION": "refuse",
    "INPUT.LSJ.ENABLED": False,
    "INPUT.LSJ.MAX_SCALE": 2.0,
    "INPUT.LSJ.MIN_SCALE": 0.1,
    "INPUT.LSJ.SIZE": [1024, 1024],
    "LOG_PERIOD": 20,
    "MODEL.CHANNELS_LAST": True,
    "MODEL.COMPILE": False,
    "MODEL.FCOS.CENTERNESS_ON_REG": True,
    "MODEL.FCOS.CENTER_SAMPLE": True,
    "MODEL.FCOS.INFERENCE_TH_TEST": 0.2,
    "MODEL.FCOS.IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "MODEL.FCOS.LOC_LOSS_TYPE": "giou",
    "MODEL.FCOS.LOSS_ALPHA": 0.25,
    "MODEL.FCOS.LOSS_GAMMA": 2.0,
    "MODEL.FCOS.NMS_TH": 0.6,
    "MODEL.FCOS.NORM": "GN",
    "MODEL.FCOS.NORM_REG_TARGETS": True,
    "MODEL.FCOS.NUM_BOX_CONVS": 4,
    "MODEL.FCOS.NUM_CLASSES": 80,
    "MODEL.FCOS.NUM_CLS_CONVS": 4,
    "MODEL.FCOS.POS_RADIUS": 1.5,
    "MODEL.FCOS.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.FCOS.PRIOR_PROB": 0.01,
    "MODEL.FCOS.SIZES_OF_INTEREST": [64, 128, 256, 512],
    "MODEL.FCOS.TOP_LEVELS": 2,
    "MODEL.FCOS.USE_SCALE": False,
    "MODEL.REGNET.BLOCK": "ResBottleneckBlock",
    "MODEL.REGNET.BOTTLENECK_RATIO": 1.0,
    "MODEL.REGNET.DEPTH": 23,
    "MODEL.REGNET.GROUP_WIDTH": 40,
    "MODEL.REGNET.NORM": "FrozenBN",
    "MODEL.REGNET.OUT_FEATURES": ["s4"],
    "MODEL.REGNET.SE_RATIO": 0.0,
    "MODEL.REGNET.STEM": "SimpleStem",
    "MODEL.REGNET.STEM_WIDTH": 32,
    "MODEL.REGNET.W_0": 96,
    "MODEL.REGNET.W_A": 38.65,
    "MODEL.REGNET.W_M": 2.43,
    "PROJECT": "",
    "SOLVER.ADAMW_BETAS": [0.9, 0.999],
    "SOLVER.OPTIMIZER": "SGD",
    "SOLVER.AMP.PRECISION": "float16",
    "TEST.BOUNDARY_IOU": False,
    "TEST.PRECISION": "float32",
    "TEST.SAVE_PANOPTIC": False,
    "TEST.SHEET_IMAGES": 8,
}


def as_json(value):
    return json.loads(json.dumps(value))


def test_every_key_of_detectron2_and_ours_on_top():
    assert len(GOLDEN) == 192
    assert {key: as_json(value) for key, value in flatten(get_cfg())} == {**GOLDEN, **OURS}


@pytest.mark.parametrize("key", sorted(GOLDEN))
def test_default_has_the_golden_type(key):
    value = dict(flatten(get_cfg()))[key]
    assert type(as_json(value)) is type(GOLDEN[key])  # 1.0 and 1 are equal, but not the same setting


def test_register_starts_empty():
    assert get_cfg().DATASETS.REGISTER == {}


def test_get_cfg_returns_a_fresh_copy():
    first = get_cfg()
    first.SOLVER.BASE_LR = 9.0
    first.MODEL.PIXEL_MEAN.append(4.0)
    second = get_cfg()
    assert second.SOLVER.BASE_LR == 0.001
    assert len(second.MODEL.PIXEL_MEAN) == 3
