"""What the tests of models share: golden files, small configs and inputs."""

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from panomask.config import CfgNode, get_cfg
from panomask.structures import Boxes, Instances, Keypoints, PolygonMasks

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "configs"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """golden(name): the content of golden_<name>.json.gz, numbers recorded from Detectron2."""
    return lambda name: json.loads(gzip.decompress((HERE / f"golden_{name}.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def golden_checks() -> ModuleType:
    """The module golden_checks.py beside this file: models against what Detectron2 recorded."""
    spec = importlib.util.spec_from_file_location("golden_checks", HERE / "golden_checks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def zoo_cfg() -> Callable[..., CfgNode]:
    """zoo_cfg(file, *opts): a config of configs/ with overrides, on the CPU."""

    def load(file: str, *opts: Any) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(CONFIGS / file))
        cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
        return cfg

    return load


@pytest.fixture(scope="session")
def tiny_cfg(zoo_cfg: Callable[..., CfgNode]) -> Callable[..., CfgNode]:
    """tiny_cfg(*opts): Mask R-CNN with a ResNet-18 FPN of 16 channels and 3 classes, for 64-pixel images."""
    tiny = """
        MODEL.RESNETS.DEPTH 18  MODEL.RESNETS.STEM_OUT_CHANNELS 16  MODEL.RESNETS.RES2_OUT_CHANNELS 16
        MODEL.BACKBONE.FREEZE_AT 0  MODEL.PIXEL_STD [50.0,50.0,50.0]  MODEL.FPN.OUT_CHANNELS 16
        MODEL.ANCHOR_GENERATOR.SIZES [[8],[16],[32],[64],[128]]
        MODEL.RPN.PRE_NMS_TOPK_TRAIN 100  MODEL.RPN.POST_NMS_TOPK_TRAIN 50  MODEL.RPN.POST_NMS_TOPK_TEST 100
        MODEL.ROI_HEADS.NUM_CLASSES 3  MODEL.ROI_BOX_HEAD.FC_DIM 32  MODEL.ROI_MASK_HEAD.CONV_DIM 16
    """.split()

    def load(*opts: Any) -> CfgNode:
        return zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", *tiny, *opts)

    return load


@pytest.fixture(scope="session")
def make_instances(golden_recipe: ModuleType) -> Callable[..., Instances]:
    """make_instances(height, width, count, num_classes, seed): objects with polygons and 17 keypoints."""

    def make(height: int, width: int, count: int, num_classes: int, seed: int = 0) -> Instances:
        objects = golden_recipe.instances(height, width, count, num_classes, seed=seed)
        return Instances(
            (height, width),
            gt_boxes=Boxes(torch.tensor([x["bbox"] for x in objects]).reshape(-1, 4)),
            gt_classes=torch.tensor([x["category_id"] for x in objects], dtype=torch.int64),
            gt_masks=PolygonMasks([[np.array(x["polygon"])] for x in objects]),
            gt_keypoints=Keypoints(torch.tensor([x["keypoints"] for x in objects]).reshape(-1, 17, 3)),
        )

    return make


@pytest.fixture(scope="session")
def make_input(
    golden_recipe: ModuleType, make_instances: Callable[..., Instances]
) -> Callable[..., dict[str, Any]]:
    """make_input(height, width, count, num_classes, seed): a model's input of one image with objects."""

    def make(height: int, width: int, count: int = 2, num_classes: int = 3, seed: int = 0) -> dict[str, Any]:
        image = golden_recipe.image(height, width, seed=seed).transpose(2, 0, 1)
        instances = make_instances(height, width, count, num_classes, seed)
        return {"image": torch.from_numpy(image.copy()), "instances": instances}

    return make
