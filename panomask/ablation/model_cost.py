"""What a trained model costs: its parameters, and the operations of one inference."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from panomask.config import CfgNode
from panomask.data import DatasetMapper, get_detection_dataset_dicts
from panomask.engine import DefaultPredictor, load_config, register_datasets
from panomask.engine.analysis import FlopCountAnalysis
from panomask.errors import InputError


def measure_model(config_file: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Parameters, and FLOPs (multiply-adds, as fvcore counts them) on the first image of DATASETS.TEST.

    On the CPU. The operations of a two-stage model depend on what it proposes for that image.

    Args:
        config_file: config.yaml of a training.
        overrides: KEY, VALUE, ...: MODEL.WEIGHTS, and PROJECT where the file's does not name its folder.

    Raises:
        InputError: weights or data that are not there, or a model that cannot be traced.
    """
    cfg = load_config(config_file, [*overrides, "MODEL.DEVICE", "cpu"])
    with _quietly():
        register_datasets(cfg)
        model = DefaultPredictor(cfg).model
        sample = build_sample(cfg)
        counts = FlopCountAnalysis(model, [sample])
        counts.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        try:
            flops = float(counts.total())
        except RuntimeError as error:  # of torch's tracing: of the model, which may be anybody's
            reason = str(error).splitlines()[0]
            raise InputError(f"{config_file}: the model's operations cannot be counted ({reason})") from error
    return {"parameters": float(sum(p.numel() for p in model.parameters())), "flops": flops}


def build_sample(cfg: CfgNode) -> dict[str, object]:
    """The first image of DATASETS.TEST, as the model takes it."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is no image to count operations on")
    data_set = get_detection_dataset_dicts(cfg.DATASETS.TEST[0], filter_empty=False, check_consistency=False)
    sample = DatasetMapper(cfg, is_train=False)(data_set[0])
    return {key: sample[key] for key in ("image", "height", "width", "proposals") if key in sample}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what loading and tracing say, which belongs to a training and not to a table."""
    log = logging.getLogger("panomask")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
            yield
    finally:
        log.setLevel(level)
