"""A tiny model of this project, and a batch for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from panomask.config import CfgNode
from panomask.data import DatasetCatalog, DatasetMapper
from panomask.engine import load_config, match_num_classes

PROJECT = Path(__file__).parents[1]
TINY = """
    MODEL.DEVICE cpu  MODEL.RESNETS.STEM_OUT_CHANNELS 8  MODEL.RESNETS.RES2_OUT_CHANNELS 8
    MODEL.ROI_BOX_HEAD.FC_DIM 16  MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 3  MODEL.ROI_MASK_HEAD.CONV_DIM 8
    MODEL.ROI_MASK_HEAD.FC_DIM 16  MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION 4  MODEL.FPN.OUT_CHANNELS 16
    MODEL.RPN.POST_NMS_TOPK_TRAIN 30  MODEL.RPN.POST_NMS_TOPK_TEST 10
    INPUT.MIN_SIZE_TRAIN 96  INPUT.MAX_SIZE_TRAIN 128  INPUT.MIN_SIZE_TEST 64  INPUT.MAX_SIZE_TEST 96
""".split()


@pytest.fixture(scope="session")
def tiny_cfg() -> Callable[..., CfgNode]:
    """tiny_cfg(config file, *opts): a config of this project made small, its classes those of `shapes`."""

    def load(config: str | Path, *opts: Any) -> CfgNode:
        cfg = load_config(config, [*TINY, *opts])
        match_num_classes(cfg, cfg.DATASETS.TRAIN)
        return cfg

    return load


@pytest.fixture(scope="session")
def batch(tiny_cfg: Callable[..., CfgNode]) -> list[dict[str, Any]]:
    """Two images of shapes_train as a model takes them in training."""
    cfg = tiny_cfg(PROJECT / "configs" / "mask_rcnn_C4_shapes.yaml")
    mapper = DatasetMapper(cfg, is_train=True)
    return [mapper(record) for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[:2]]
