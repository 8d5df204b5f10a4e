"""What a trained model costs: its parameters, and the operations of one inference."""

from collections.abc import Sequence
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
    register_datasets(cfg)
    model = DefaultPredictor(cfg).model
    sample = build_sample(cfg)
    try:
        counts = (
            FlopCountAnalysis(model, [sample])
            .unsupported_ops_warnings(False)
            .uncalled_modules_warnings(False)
        )
        flops = float(counts.total())
    except RuntimeError as error:  # of torch's tracing: of the model, which may be anybody's
        raise InputError(
            f"{config_file}: its operations cannot be counted ({str(error).splitlines()[0]})"
        ) from error
    return {"parameters": float(sum(p.numel() for p in model.parameters())), "flops": flops}


def build_sample(cfg: CfgNode) -> dict[str, object]:
    """The first image of DATASETS.TEST, as the model takes it."""
    if not cfg.DATASETS.TEST:
        raise InputError("DATASETS.TEST is empty: there is no image to count operations on")
    data_set = get_detection_dataset_dicts(cfg.DATASETS.TEST[0], filter_empty=False, check_consistency=False)
    sample = DatasetMapper(cfg, is_train=False)(data_set[0])
    return {key: sample[key] for key in ("image", "height", "width", "proposals") if key in sample}
