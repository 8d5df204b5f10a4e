"""Fixtures that several folders of tests use."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from panomask.data import DatasetCatalog, MetadataCatalog

_TINY_CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: True
  DEVICE: cpu
  BACKBONE: {{NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}}
  RESNETS:
    DEPTH: 18
    STEM_OUT_CHANNELS: 8
    RES2_OUT_CHANNELS: 8
    NORM: BN
    OUT_FEATURES: [res2, res3, res4, res5]
  FPN: {{IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 16}}
  ANCHOR_GENERATOR: {{SIZES: [[8], [16], [32], [64], [128]]}}
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 50
    POST_NMS_TOPK_TRAIN: 30
    PRE_NMS_TOPK_TEST: 50
    POST_NMS_TOPK_TEST: 20
  ROI_HEADS: {{NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], BATCH_SIZE_PER_IMAGE: 16}}
  ROI_BOX_HEAD: {{NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 16, POOLER_RESOLUTION: 3}}
  ROI_MASK_HEAD: {{NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 8, POOLER_RESOLUTION: 4}}
DATASETS:
  REGISTER: {{tiny: {{ANNOTATIONS: {folder}/tiny.json, IMAGES: {folder}/images}}}}
  TRAIN: [tiny]
  TEST: [tiny]
INPUT: {{MIN_SIZE_TRAIN: [64, 80], MAX_SIZE_TRAIN: 96, MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{IMS_PER_BATCH: 2, BASE_LR: 0.01, MAX_ITER: 6, STEPS: [4], WARMUP_ITERS: 2, CHECKPOINT_PERIOD: 3}}
TEST: {{SHEET_IMAGES: 0}}
LOG_PERIOD: 1
OUTPUT_DIR: {folder}/out
"""


@pytest.fixture(scope="session")
def golden_recipe() -> ModuleType:
    """The module golden_recipe.py beside this file: weights, images, annotations behind golden numbers."""
    path = Path(__file__).with_name("golden_recipe.py")
    spec = importlib.util.spec_from_file_location("golden_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Runs that open a log of their own leave other tests' loggers alone."""
    loggers = [logging.getLogger(name) for name in ("panomask", "fvcore")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.level, logger.propagate, logger.handlers[:] = level, propagate, handlers


@pytest.fixture
def tiny_run(tmp_path: Path) -> Iterator[Path]:
    """A config file for a Mask R-CNN that trains six iterations in a second, on six images of its own.

    OUTPUT_DIR is `out` beside the file; the data set is called "tiny" and has the classes a and b.
    """
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i in range(6):
        height, width = (64, 96) if i % 2 else (96, 64)
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), pixels)
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width})
        for k in range(2):
            x, y = 10 + 20 * k, 10 + 10 * k
            polygon = [x, y, x + 30, y, x + 30, y + 30, x, y + 30]
            annotation = {"id": 2 * i + k + 1, "image_id": i + 1, "category_id": k + 1, "iscrowd": 0}
            annotations.append(annotation | {"bbox": [x, y, 30, 30], "area": 900, "segmentation": [polygon]})
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "tiny.json").write_text(json.dumps(document))
    config = tmp_path / "tiny.yaml"
    config.write_text(_TINY_CONFIG.format(folder=tmp_path))
    yield config
    if "tiny" in DatasetCatalog:
        DatasetCatalog.remove("tiny")
    MetadataCatalog.pop("tiny", None)
