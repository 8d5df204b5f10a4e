"""Detectron2's model zoo: configs, checkpoints and published scores by the names that it gave them.

from panomask import model_zoo
model = model_zoo.get("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", trained=True)
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from panomask.addresses import DETECTRON2_PREFIX
from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode, get_cfg
from panomask.config.zoo import CONFIG_FOLDER, refuse_python_config, zoo_configs
from panomask.errors import InputError, nearest_names
from panomask.modeling import build_model

__all__ = [
    "NotInZooError",
    "ZooModel",
    "get",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
    "zoo_models",
]

SCORES_FILE = CONFIG_FOLDER / "zoo_scores.tsv"
_METRICS = {
    "box AP": ("bbox", "AP"),
    "box AP50": ("bbox", "AP50"),
    "mask AP": ("segm", "AP"),
    "kp. AP": ("keypoints", "AP"),
    "PQ": ("panoptic_seg", "PQ"),
    "prop. AR": ("box_proposals", "AR@1000"),
}
"""Column of the table of scores -> (task, metric) as evaluators name it."""


class NotInZooError(InputError, RuntimeError):
    """The zoo holds nothing of that name. Detectron2 raises RuntimeError for it."""


class ZooModel(NamedTuple):
    """What the zoo publishes of one config."""

    config: str
    """Its path below configs/; the zoo's Python configs have a YAML file of the same name here."""
    scores: dict[tuple[str, str], float]
    """(task, metric) -> points of 100."""
    checkpoint: str
    """The address of its weights, detectron2://..."""


@lru_cache
def zoo_models() -> dict[str, ZooModel]:
    """What the zoo has published scores for, by config.

    Raises:
        InputError: `configs/` is not where it belongs.
    """
    if not SCORES_FILE.is_file():
        raise InputError(f"{SCORES_FILE} is missing; install panomask again, or run it from a checkout")
    lines = [line for line in SCORES_FILE.read_text().splitlines() if not line.startswith("#")]
    models = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        name = _yaml_name(row["config"])
        scores = {metric: float(row[column]) for column, metric in _METRICS.items() if row[column]}
        models[name] = ZooModel(name, scores, row["checkpoint"])
    return models


def get_config_file(config_path: str) -> str:
    """The path of a config by its name, such as "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml".

    Raises:
        NotInZooError: there is no such config.
        InputError: it names one of the zoo's Python configs, which are not run.
    """
    refuse_python_config(config_path)
    if not (file := CONFIG_FOLDER / config_path).is_file():
        near = ", ".join(nearest_names(config_path, zoo_configs())) or "none"
        raise NotInZooError(f"{config_path}: no such config in {CONFIG_FOLDER}; nearest: {near}")
    return str(file)


def get_checkpoint_url(config_path: str) -> str:
    """Where the weights are that the zoo trained with a config (.yaml, or .py as the zoo has it).

    Raises:
        NotInZooError: the zoo publishes none for it.
    """
    name = _yaml_name(config_path)
    if name not in zoo_models():
        near = ", ".join(nearest_names(name, zoo_models())) or "none"
        raise NotInZooError(f"{config_path}: the zoo publishes no weights for it; it does for: {near}")
    return zoo_models()[name].checkpoint.replace("detectron2://", DETECTRON2_PREFIX)


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """The defaults with a config of the zoo on top.

    Args:
        config_path: see `get_config_file`.
        trained: MODEL.WEIGHTS is the zoo's trained model rather than what the config starts from.
    """
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(config_path))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """The model of a config, in training mode, with the weights of MODEL.WEIGHTS.

    Args:
        config_path: see `get_config_file`.
        trained: with the zoo's trained weights; otherwise with those that training starts from.
        device: "cuda" where there is a GPU, otherwise "cpu".
    """
    cfg = get_config(config_path, trained)
    cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS, match="parameters" if trained else "overlap")
    return model


def _yaml_name(config_path: str) -> str:
    """`config_path` with the suffix that the file has here."""
    return Path(config_path).with_suffix(".yaml").as_posix()
