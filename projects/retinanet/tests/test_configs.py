"""What the rows of RetinaNet's table 1 come to; that they merge is tested for all projects together."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch

from panomask.config import CfgNode, check_supported, get_cfg
from panomask.config.safe_yaml import read_yaml
from panomask.modeling import build_model

PROJECT = Path(__file__).parents[1]
COCO = PROJECT / "configs" / "retinanet_R_50_FPN_600.yaml"
ZOO = PROJECT.parents[1] / "configs" / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml"
TABLE_1A = [0.10, 0.25, 0.50, 0.75, 0.90, 0.99, 0.999]
TABLE_1B = [(0, 0.75), (0.1, 0.75), (0.2, 0.75), (0.5, 0.50), (1, 0.25), (2, 0.25), (5, 0.25)]
ANCHORS_PER_CELL = [1, 2, 3, 4, 3, 6, 9, 12]


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


def retinanets(table: str, base: Path | None) -> list[CfgNode]:
    return [cfg.MODEL.RETINANET for cfg in rows_of(f"{table}.yaml", base)]


def build_small(cfg: CfgNode):
    """The row's model; its head and anchors are in question, the rest is as small as it gets."""
    cfg.MODEL.merge_from_list(["DEVICE", "cpu", "FPN.OUT_CHANNELS", 8])
    cfg.MODEL.RESNETS.merge_from_list(["DEPTH", 18, "STEM_OUT_CHANNELS", 8, "RES2_OUT_CHANNELS", 8])
    return build_model(cfg)


@pytest.mark.parametrize("base", [None, COCO, ZOO], ids=["shapes", "coco_600", "coco"])
def test_losses_are_the_papers(base: Path | None):
    losses = [
        [(c.FOCAL_LOSS_GAMMA, c.FOCAL_LOSS_ALPHA) for c in retinanets(s, base)] for s in ("alpha", "gamma")
    ]
    assert losses == [[(0, alpha) for alpha in TABLE_1A], TABLE_1B]


@pytest.mark.parametrize("base", [None, COCO], ids=["shapes", "coco_600"])
def test_classifier_starts_at_the_papers_prior_in_every_row(base: Path | None):
    """Section 5.1: without it, the paper's training with the cross entropy diverged."""
    assert {c.PRIOR_PROB for s in ("alpha", "gamma") for c in retinanets(s, base)} == {0.01}


def test_table_1a_is_the_balanced_cross_entropy():
    """Equation 3: alpha log(p) of the object's class, 1 - alpha of all else, whatever is easy or hard."""
    # Scores of 3/4 and 1/2 where the object is of the first class, of 1/5 and 1/3 in the background.
    logits = torch.tensor([[[math.log(3), 0.0], [-math.log(4), -math.log(2)]]], dtype=torch.float64)
    of_object, of_others = math.log(4 / 3), math.log(2) + math.log(5 / 4) + math.log(3 / 2)
    for cfg, alpha in zip(rows_of("alpha.yaml"), TABLE_1A, strict=True):
        loss = build_small(cfg).classification_loss([logits], torch.tensor([[0, 2]]))
        assert loss.item() == pytest.approx(alpha * of_object + (1 - alpha) * of_others)


@pytest.mark.parametrize("sweep", ["anchors.yaml", "anchors_shapes.yaml"])
def test_scales_divide_the_octave(sweep: str):
    rows = rows_of(sweep)
    for cfg, count in zip(rows, [1, 2, 3, 4] * 2, strict=True):
        sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
        firsts = [level[0] for level in sizes]
        assert firsts == [firsts[0] * 2**level for level in range(len(cfg.MODEL.RETINANET.IN_FEATURES))]
        for level in sizes:
            assert level == pytest.approx([level[0] * 2 ** (k / count) for k in range(count)], rel=1e-5)
    ratios = [cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS for cfg in rows]
    assert ratios == [[[1.0]]] * 4 + [[[0.5, 1.0, 2.0]]] * 4


def test_three_scales_and_ratios_are_the_zoos():
    cfg = get_cfg()
    cfg.merge_from_file(str(ZOO))
    (row,) = rows_of("anchors.yaml", ZOO)[6:7]
    for found, expected in zip(
        row.MODEL.ANCHOR_GENERATOR.SIZES, cfg.MODEL.ANCHOR_GENERATOR.SIZES, strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-5)
    assert row.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS == cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS


@pytest.mark.parametrize("sweep", ["anchors.yaml", "anchors_shapes.yaml"])
def test_anchors_per_cell(sweep: str):
    for cfg, count in zip(rows_of(sweep), ANCHORS_PER_CELL, strict=True):
        model = build_small(cfg)
        assert set(model.anchor_generator.num_cell_anchors) == {count}
        assert model.head.cls_score.out_channels == count * cfg.MODEL.RETINANET.NUM_CLASSES
        torch.testing.assert_close(model.head.cls_score.bias.sigmoid().unique(), torch.tensor([0.01]))
