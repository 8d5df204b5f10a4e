"""Which evaluator fits a data set: by the `evaluator_type` of its metadata."""

import os
from collections.abc import Callable

from panomask.config import CfgNode
from panomask.data import MetadataCatalog
from panomask.data.datasets.builtin import check_files
from panomask.errors import InputError, nearest_names
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

COCO_DETECTIONS_PER_IMAGE = 100


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """The evaluator of the data set's `evaluator_type`, COCO's where it has none.

    Raises:
        InputError: no evaluator is known for that type.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
    if kind not in EVALUATORS:
        near = nearest_names(str(kind), EVALUATORS)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InputError(
            f"data set {dataset_name!r} has evaluator_type {kind!r}; known:"
            f" {', '.join(map(repr, EVALUATORS))}.{hint} Set it by"
            f" MetadataCatalog.get({dataset_name!r}).set(evaluator_type=...), or override build_evaluator"
        )
    return EVALUATORS[kind](cfg, dataset_name)


def check_data_sets(cfg: CfgNode, *, eval_only: bool = False) -> None:
    """Raise InputError where a run could only fail later, in minutes or in its evaluation after the training.

    That is where files of a built-in set are missing, or no evaluator fits a test set and the model.
    """
    for name in (*(() if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST):
        check_files(name)
    for name in cfg.DATASETS.TEST:
        build_evaluator(cfg, name)


def _build_coco(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """TEST.DETECTIONS_PER_IMAGE above 100 raises COCO's limit of 100 detections, for crowded images."""
    return COCOEvaluator(
        dataset_name,
        output_dir=_folder(cfg, dataset_name),
        max_dets_per_image=max(COCO_DETECTIONS_PER_IMAGE, cfg.TEST.DETECTIONS_PER_IMAGE),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )


def _build_lvis(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    return LVISEvaluator(dataset_name, output_dir=_folder(cfg, dataset_name))


def _build_cityscapes_instance(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" and not cfg.MODEL.MASK_ON:
        raise InputError(f"data set {dataset_name!r}: Cityscapes scores masks; set MODEL.MASK_ON True")
    return CityscapesInstanceEvaluator(dataset_name)


def _build_pascal_voc(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    return PascalVOCDetectionEvaluator(dataset_name)


def _folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where predictions are written."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)


EVALUATORS: dict[str, Callable[[CfgNode, str], DatasetEvaluator]] = {
    "coco": _build_coco,
    "lvis": _build_lvis,
    "cityscapes_instance": _build_cityscapes_instance,
    "pascal_voc": _build_pascal_voc,
}
"""`evaluator_type` -> how its evaluator is built. Projects add theirs."""
