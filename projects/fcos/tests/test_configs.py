"""What the rows of FCOS's table come to; that they merge is tested for all projects together."""

from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from panomask.config import CfgNode, check_supported, get_cfg
from panomask.config.safe_yaml import read_yaml
from panomask.modeling import build_model

PROJECT = Path(__file__).parents[1]
COCO = PROJECT.parents[1] / "configs" / "COCO-Detection" / "fcos_R_50_FPN_1x.yaml"
STEPS = [
    {"NORM"},
    {"CENTERNESS_ON_REG"},
    {"CENTER_SAMPLE"},
    {"LOC_LOSS_TYPE"},
    {"NORM_REG_TARGETS", "USE_SCALE"},
]
"""Keys below MODEL.FCOS that each row changes in the row above."""


def rows(base: Path | None = None) -> list[CfgNode]:
    """The config of every row, in the table's order."""
    document = read_yaml(PROJECT / "improvements.yaml")
    (axis,) = document["axes"].values()
    configs = []
    for choice in axis.values():
        cfg = base_config(base or PROJECT / document["base"])
        cfg.merge_from_list([str(text) for item in choice.items() for text in item])
        check_supported(cfg)
        configs.append(cfg)
    return configs


def base_config(file: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(file))
    return cfg


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco"])
def test_each_row_changes_one_part_of_the_row_above(base: Path | None):
    fcos = [cfg.MODEL.FCOS for cfg in rows(base)]
    steps = [{key for key in below if below[key] != above[key]} for above, below in pairwise(fcos)]
    assert steps == STEPS


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco"])
def test_last_row_is_the_config_as_it_stands(base: Path | None):
    assert rows(base)[-1] == base_config(base or PROJECT / "configs" / "fcos_shapes.yaml")


def test_models_have_the_parts_of_their_rows():
    models = [build_small(cfg) for cfg in rows()]
    has_norm = [any(isinstance(m, nn.GroupNorm) for m in model.head.modules()) for model in models]
    assert has_norm == [False, True, True, True, True, True]
    # A learnable factor of the distances for each of the four levels, until they are learnt in strides.
    levels = len(rows()[0].MODEL.FCOS.IN_FEATURES)
    scales = [sum(p.numel() for name, p in model.named_parameters() if "scale" in name) for model in models]
    assert scales == [levels] * 5 + [0]


def build_small(cfg: CfgNode):
    cfg.MODEL.merge_from_list(["DEVICE", "cpu", "FPN.OUT_CHANNELS", 32])
    cfg.MODEL.RESNETS.merge_from_list(["DEPTH", 18, "STEM_OUT_CHANNELS", 8, "RES2_OUT_CHANNELS", 8])
    return build_model(cfg)
