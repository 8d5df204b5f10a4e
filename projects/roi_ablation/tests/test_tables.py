"""Every row of every table builds, learns and predicts."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from panomask.ablation import read_sweep
from panomask.config import check_supported
from panomask.engine import load_config
from panomask.modeling import build_model

PROJECT = Path(__file__).parents[1]
TINY = """
    MODEL.DEVICE cpu  MODEL.RESNETS.STEM_OUT_CHANNELS 8  MODEL.RESNETS.RES2_OUT_CHANNELS 8
    MODEL.ROI_BOX_HEAD.FC_DIM 16  MODEL.ROI_MASK_HEAD.FC_DIM 16
    INPUT.MIN_SIZE_TRAIN 96  INPUT.MIN_SIZE_TEST 64  INPUT.MAX_SIZE_TEST 96
""".split()
SWEEPS = {path.stem: path for path in sorted(PROJECT.glob("*.yaml"))}
ON_COCO = {
    **{name: "mask_rcnn_R_50_C4_1x" for name in ("table_2b", "table_2c", "sampling")},
    **{"table_2d": "mask_rcnn_R_50_DC5_1x", "table_2e": "mask_rcnn_R_50_FPN_1x"},
}
ROWS = [
    pytest.param(name, index, id=f"{name}-{variant.folder}")
    for name, path in SWEEPS.items()
    if name != "table_2a_coco"
    for index, variant in enumerate(read_sweep(path).variants())
]


def words(variant) -> list[str]:
    return [word for pair in variant.overrides.items() for word in pair]


@pytest.mark.parametrize(("name", "index"), ROWS)
def test_every_row_trains_and_predicts(tiny_cfg, batch, name, index):
    variant = read_sweep(SWEEPS[name]).variants()[index]
    cfg = tiny_cfg(variant.base, *words(variant))
    check_supported(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] > 0
    sum(losses.values()).backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad
    )
    model.eval()
    with torch.no_grad():
        outputs = model([{"image": sample["image"]} for sample in batch])
    for output, sample in zip(outputs, batch, strict=True):
        found = output["instances"]
        assert found.pred_masks.shape == (len(found), *sample["image"].shape[1:])


@pytest.mark.parametrize("name", sorted(ON_COCO))
def test_the_same_rows_on_coco(name):
    base = PROJECT.parents[1] / "configs" / "COCO-InstanceSegmentation" / f"{ON_COCO[name]}.yaml"
    for variant in replace(read_sweep(SWEEPS[name]), base=str(base)).variants():
        cfg = load_config(variant.base, words(variant))
        check_supported(cfg)
        assert (cfg.PROJECT, cfg.DATASETS.TRAIN) == ("roi_ablation", ("coco_2017_train",))


def test_backbones_on_coco():
    for variant in read_sweep(SWEEPS["table_2a_coco"]).variants():
        check_supported(load_config(variant.base, words(variant)))


def test_the_rows_of_a_table_differ_in_what_they_say():
    keys = {
        name: {key for variant in read_sweep(SWEEPS[name]).variants() for key in variant.overrides}
        for name in ("table_2b", "table_2c", "table_2d", "table_2e")
    }
    poolers = {"MODEL.ROI_BOX_HEAD.POOLER_TYPE", "MODEL.ROI_MASK_HEAD.POOLER_TYPE"}
    assert keys["table_2c"] == keys["table_2d"] == poolers
    assert keys["table_2b"] == {"MODEL.ROI_MASK_HEAD.NAME", "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"}
    assert keys["table_2e"] == {"MODEL.ROI_MASK_HEAD.NAME", "MODEL.ROI_MASK_HEAD.NUM_FC"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table_2b", "table_2c", "table_2e"])
def test_every_row_is_trained_and_evaluated_by_its_command(tmp_path, name):
    """As a user runs it, with few iterations: the table has a number in every cell."""
    tool = PROJECT.parents[1] / "tools" / "ablate.py"
    short = ["SOLVER.MAX_ITER", "3", "TEST.SHEET_IMAGES", "0", "DATALOADER.NUM_WORKERS", "0"]
    command = [
        sys.executable,
        tool,
        SWEEPS[name],
        "--seeds",
        "1",
        "--jobs",
        "2",
        "--output",
        tmp_path / "out",
        *TINY,
    ]
    answer = subprocess.run([*map(str, command), *short], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert len(rows) == len(read_sweep(SWEEPS[name]).variants())
    for row in rows:
        assert row["status"] == "done"
        assert all(float(row[metric]) >= 0 for metric in ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP"))
