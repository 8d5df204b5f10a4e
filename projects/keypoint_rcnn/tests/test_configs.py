"""What the rows of the keypoint tables come to; that they merge is tested for all projects together."""

from itertools import product
from pathlib import Path

import pytest

from panomask.config import CfgNode, check_supported, get_cfg
from panomask.config.safe_yaml import read_yaml
from panomask.data.datasets.shapes_drawing import KEYPOINT_NAMES
from panomask.layers import ROIAlign, ROIPool
from panomask.modeling import build_model

PROJECT = Path(__file__).parents[1]
COCO = PROJECT.parents[1] / "configs" / "COCO-Keypoints" / "keypoint_rcnn_R_50_FPN_1x.yaml"
BOX, KEYPOINT = "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE"


def rows_of(sweep: str, base: Path | None = None) -> list[CfgNode]:
    """The config of every row, in the table's order."""
    document = read_yaml(PROJECT / sweep)
    configs = []
    for choices in product(*(axis.values() for axis in document["axes"].values())):
        cfg = get_cfg()
        cfg.merge_from_file(str(base or PROJECT / document["base"]))
        for choice in choices:
            cfg.merge_from_list([str(text) for item in choice.items() for text in item])
        check_supported(cfg)
        configs.append(cfg)
    return configs


def differences(one: CfgNode, other: CfgNode, prefix: str = "") -> set[str]:
    """Keys with different values."""
    found: set[str] = set()
    for key, value in one.items():
        if isinstance(value, CfgNode):
            found |= differences(value, other[key], f"{prefix}{key}.")
        elif value != other[key]:
            found.add(prefix + key)
    return found


def build_small(cfg: CfgNode):
    """The row's model, of the class counts of shapes; nothing but its branches and poolers is in question."""
    cfg.MODEL.merge_from_list(["DEVICE", "cpu", "FPN.OUT_CHANNELS", 8, "ROI_HEADS.NUM_CLASSES", 1])
    cfg.MODEL.RESNETS.merge_from_list(["DEPTH", 18, "STEM_OUT_CHANNELS", 8, "RES2_OUT_CHANNELS", 8])
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.MODEL.ROI_KEYPOINT_HEAD.merge_from_list(["CONV_DIMS", [8], "NUM_KEYPOINTS", len(KEYPOINT_NAMES)])
    return build_model(cfg)


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco"])
def test_pooling_rows_differ_in_the_poolers_alone(base: Path | None):
    align, pool, pool_boxes_too = rows_of("pooling.yaml", base)
    assert differences(align, pool) == {KEYPOINT}
    assert differences(align, pool_boxes_too) == {KEYPOINT, BOX}
    for cfg, kinds in zip(
        (align, pool, pool_boxes_too),
        [(ROIAlign, ROIAlign), (ROIAlign, ROIPool), (ROIPool, ROIPool)],
        strict=True,
    ):
        heads = build_small(cfg).roi_heads
        for pooler, kind in zip((heads.box_pooler, heads.keypoint_pooler), kinds, strict=True):
            assert {type(level) for level in pooler.level_poolers} == {kind}
            assert all(getattr(level, "aligned", True) for level in pooler.level_poolers)


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco"])
def test_branches_are_all_four_combinations(base: Path | None):
    rows = rows_of("branches.yaml", base)
    switches = {"MODEL.MASK_ON", "MODEL.KEYPOINT_ON"}
    assert all(differences(rows[0], row) <= switches for row in rows)
    built = [build_small(cfg).roi_heads for cfg in rows]
    found = [(hasattr(heads, "mask_head"), hasattr(heads, "keypoint_head")) for heads in built]
    assert found == [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco"])
def test_base_is_a_row_of_both_tables(base: Path | None):
    """So that the tables share their common row: keypoints without masks, pooled by RoIAlign."""
    cfg = get_cfg()
    cfg.merge_from_file(str(base or PROJECT / "configs" / "keypoint_rcnn_shapes.yaml"))
    for sweep, row in (("pooling.yaml", 0), ("branches.yaml", 2)):
        assert differences(cfg, rows_of(sweep, base)[row]) == set()
