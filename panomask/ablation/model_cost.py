"""What a trained model costs: its parameters, and the operations of one inference."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from panomask.config import CfgNode
from panomask.data import DatasetMapper, get_detection_dataset_dicts
from panomask.engine import DefaultPredictor, load_config, register_datasets
from panomask.errors import InputError


def measure_model(config_file: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Parameters, and FLOPs of the first image of DATASETS.TEST, on the CPU.

    A multiply-add counts once, those of convolutions and matrix products alone, as in papers. Counted while
    the model runs, so that it need not be traceable. A two-stage model's depend on what it proposes.

    Args:
        config_file: config.yaml of a training.
        overrides: KEY, VALUE, ...: MODEL.WEIGHTS, and PROJECT where the file's does not name its folder.

    Raises:
        InputError: weights or data that are not there.
    """
    cfg = load_config(config_file, [*overrides, "MODEL.DEVICE", "cpu"])
    with _quietly():
        register_datasets(cfg)
        model = DefaultPredictor(cfg).model
        sample = build_sample(cfg)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model([sample])
    flops = counter.get_total_flops() / 2  # torch counts multiplication and addition
    return {"parameters": float(sum(p.numel() for p in model.parameters())), "flops": float(flops)}


def build_sample(cfg: CfgNode) -> dict[str, object]:
    """The first image of DATASETS.TEST, as the model takes it."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is no image to count operations on")
    data_set = get_detection_dataset_dicts(cfg.DATASETS.TEST[0], filter_empty=False, check_consistency=False)
    sample = DatasetMapper(cfg, is_train=False)(data_set[0])
    return {key: sample[key] for key in ("image", "height", "width", "proposals") if key in sample}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what loading says, which belongs to a training and not to a table."""
    log = logging.getLogger("panomask")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
