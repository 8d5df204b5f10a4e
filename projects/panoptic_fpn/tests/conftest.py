"""What the tests of this project share: a small config, and a batch of the embedded data set."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from panomask.config import CfgNode
from panomask.data import DatasetCatalog, DatasetMapper
from panomask.engine import load_config, match_num_classes
from panomask.engine.semantic_setup import match_stuff_classes

PROJECT = Path(__file__).parents[1]
CONFIG = PROJECT / "configs" / "panoptic_fpn_shapes.yaml"
TRAIN_NET = PROJECT.parents[1] / "tools" / "train_net.py"

TINY = """
    MODEL.DEVICE cpu  MODEL.RESNETS.STEM_OUT_CHANNELS 8  MODEL.RESNETS.RES2_OUT_CHANNELS 8
    MODEL.FPN.OUT_CHANNELS 16  MODEL.SEM_SEG_HEAD.CONVS_DIM 32  MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_MASK_HEAD.CONV_DIM 8  MODEL.RPN.POST_NMS_TOPK_TRAIN 50  MODEL.RPN.POST_NMS_TOPK_TEST 20
    INPUT.MIN_SIZE_TRAIN 96  INPUT.MAX_SIZE_TRAIN 128  INPUT.MIN_SIZE_TEST 64  INPUT.MAX_SIZE_TEST 96
    INPUT.RANDOM_FLIP none
""".split()


@pytest.fixture(scope="session")
def tiny_cfg() -> Callable[..., CfgNode]:
    """tiny_cfg(architecture, *opts): the project's config made small, its classes those of `shapes`."""

    def load(architecture: str, *opts: Any) -> CfgNode:
        cfg = load_config(CONFIG, [*TINY, "MODEL.META_ARCHITECTURE", architecture, *opts])
        match_num_classes(cfg, cfg.DATASETS.TRAIN)
        match_stuff_classes(cfg, cfg.DATASETS.TRAIN)
        return cfg

    return load


@pytest.fixture(scope="session")
def batch(tiny_cfg: Callable[..., CfgNode]) -> list[dict[str, Any]]:
    """Two images of shapes_panoptic_train as a model takes them in training."""
    cfg = tiny_cfg("PanopticFPN")
    mapper = DatasetMapper(cfg, is_train=True)
    return [mapper(record) for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[:2]]


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., None]:
    """train(*arguments): tools/train_net.py on the project's config made small, into tmp_path/out."""

    def run(*arguments: Any) -> None:
        opts = [*TINY, "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "TEST.SHEET_IMAGES", 0]
        opts += ["LOG_PERIOD", 1, "OUTPUT_DIR", tmp_path / "out"]
        command = [sys.executable, TRAIN_NET, "--config-file", CONFIG, *arguments, *opts]
        result = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert result.returncode == 0, result.stderr

    return run
