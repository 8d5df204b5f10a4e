"""Code written for Detectron2 finds its names here, under Detectron2's module paths."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from panomask.detectron2_api import MODULES

NAMES = Path(__file__).with_name("detectron2_names.txt").read_text().split()
"""What published research code imports from Detectron2 and this version serves; a name once here stays."""


def _run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("target", sorted({target for targets in MODULES.values() for target in targets}))
def test_every_target_exists(target: str):
    importlib.import_module(target)


def test_used_names_are_served():
    code = f"""
import importlib, panomask
panomask.install_as_detectron2()
for name in {NAMES!r}:
    owner, _, leaf = name.rpartition(".")
    if name in panomask.detectron2_api.MODULES:
        importlib.import_module(name)
    elif owner in panomask.detectron2_api.MODULES:
        exec(f"from {{owner}} import {{leaf}}")
    else:  # a method of a class or an attribute of a function
        module, _, attribute = owner.rpartition(".")
        getattr(getattr(importlib.import_module(module), attribute), leaf)
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["layers", "structures", "modeling", "solver", "checkpoint", "data"])
def test_no_file_hides_a_public_name(package: str):
    """`from panomask.layers import nms` must be the function, not a file layers/nms.py."""
    module = importlib.import_module(f"panomask.{package}")
    modules = [name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)]
    assert set(modules) <= {"transforms", "samplers", "datasets", "detection_utils"}


def test_ways_to_import():
    code = """
import panomask
panomask.install_as_detectron2()
panomask.install_as_detectron2()  # twice does no harm
import detectron2.data.transforms as T
import detectron2.utils.comm as comm
from detectron2.engine import launch
from detectron2.data import transforms
import panomask.distributed, panomask.structures, detectron2
assert comm.get_rank is panomask.distributed.get_rank
assert detectron2.structures.Boxes is panomask.structures.Boxes
from detectron2.data.datasets import convert_to_coco_json
assert callable(convert_to_coco_json) and detectron2.__version__ == "0.6"
assert callable(launch) and T.ResizeShortestEdge is transforms.ResizeShortestEdge
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_import_of_all_names():
    code = """
import panomask
panomask.install_as_detectron2()
from detectron2.data.transforms import *
from detectron2.evaluation import *
from detectron2.utils import *
import panomask.data.transforms, panomask.evaluation
assert ResizeShortestEdge is panomask.data.transforms.ResizeShortestEdge
assert SemSegEvaluator is panomask.evaluation.SemSegEvaluator
assert panomask.__version__
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_names_that_detectron2_has_in_its_modules_too():
    code = """
import panomask
panomask.install_as_detectron2()
from detectron2.data.datasets.builtin import ADE20K_SEM_SEG_CATEGORIES, DatasetCatalog, _get_builtin_metadata
from detectron2.data.datasets.cityscapes_panoptic import CITYSCAPES_CATEGORIES, MetadataCatalog
from detectron2.evaluation.sem_seg_evaluation import SemSegEvaluator, all_gather, load_image_into_numpy_array
from detectron2.modeling.meta_arch.panoptic_fpn import META_ARCH_REGISTRY, ImageList, PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, ImageList
from detectron2.utils.video_visualizer import Instances, VideoVisualizer, _DetectedInstance
from detectron2.utils.visualizer import MetadataCatalog, Visualizer
assert type(ADE20K_SEM_SEG_CATEGORIES) is type(CITYSCAPES_CATEGORIES) is list
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_research_code_builds_its_own_optimizer_schedule_and_sampler():
    code = """
import torch
import panomask
from panomask.config import check_supported, get_cfg
from panomask.errors import InputError
from panomask.solver import build_lr_scheduler, build_optimizer
cfg = get_cfg()
cfg.merge_from_list(["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"])
cfg.merge_from_list(["SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "DATALOADER.SAMPLER_TRAIN", "ByClass"])

def is_refused(run, *args):
    try:
        run(*args)
    except InputError:
        return True
    return False

assert is_refused(check_supported, cfg)
panomask.install_as_detectron2()
assert not is_refused(check_supported, cfg)
model = torch.nn.Linear(1, 1)
assert is_refused(build_optimizer, cfg, model)
assert is_refused(build_lr_scheduler, cfg, torch.optim.SGD(model.parameters(), lr=1))
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_served_fails_at_its_import():
    done = _run(
        "import panomask; panomask.install_as_detectron2(); from detectron2.structures import Nonsense"
    )
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "Nonsense" in done.stderr


def test_it_is_opt_in_and_gives_way_to_the_real_one():
    code = """
import sys, types, panomask
assert "detectron2" not in sys.modules
sys.modules["detectron2"] = types.ModuleType("detectron2")
panomask.install_as_detectron2()
"""
    done = _run(code)
    assert done.returncode != 0
    assert "already imported" in done.stderr
