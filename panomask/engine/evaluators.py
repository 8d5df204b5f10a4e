"""Which evaluator fits a data set: by the `evaluator_type` of its metadata and by what the model predicts."""

import os
from collections.abc import Callable, Mapping

from panomask.config import CfgNode
from panomask.data import MetadataCatalog
from panomask.data.datasets.builtin import check_files
from panomask.engine.semantic_setup import check_labels
from panomask.errors import InputError, nearest_names
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from panomask.registry import kind_of

COCO_DETECTIONS_PER_IMAGE = 100
Builder = Callable[[CfgNode, str], DatasetEvaluator]

OUTPUTS: dict[str, frozenset[str]] = {
    "FCOS": frozenset({"instances"}),
    "GeneralizedRCNN": frozenset({"instances"}),
    "PanopticFPN": frozenset({"instances", "sem_seg", "panoptic_seg"}),
    "ProposalNetwork": frozenset({"instances"}),
    "RetinaNet": frozenset({"instances"}),
    "SemanticSegmentor": frozenset({"sem_seg"}),
}
"""MODEL.META_ARCHITECTURE -> what evaluators find in its output; others may give all of these."""

_WITH_MASK_HEAD = ("FCOS", "GeneralizedRCNN", "PanopticFPN", "RetinaNet")
"""Models that predict masks if MODEL.MASK_ON."""


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

    That is where files of a built-in set are missing, no evaluator fits a test set and the model, or label
    images are not what the annotations say.
    """
    for name in (*(() if eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST):
        check_files(name)
    for name in cfg.DATASETS.TEST:
        build_evaluator(cfg, name)
    if not eval_only:
        check_labels(cfg)


def _outputs(cfg: CfgNode) -> frozenset[str]:
    """What evaluators find in the output of the config's model; a model of a project may give anything."""
    model = kind_of(cfg.MODEL.META_ARCHITECTURE)
    outputs = OUTPUTS.get(model, OUTPUTS["PanopticFPN"])
    if model == "PanopticFPN" and not cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED:
        return outputs - {"panoptic_seg"}
    return outputs


def _need(cfg: CfgNode, dataset_name: str, output: str, what: str) -> None:
    """Raise InputError where the model predicts nothing that the data set could score."""
    if output not in _outputs(cfg):
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
        raise InputError(
            f"data set {dataset_name!r} (evaluator_type {kind!r}) scores {what}, which a"
            f" {cfg.MODEL.META_ARCHITECTURE} (MODEL.META_ARCHITECTURE) does not predict; give another data"
            " set in DATASETS.TEST, or another model"
        )


def _build_coco(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """TEST.DETECTIONS_PER_IMAGE above 100 raises COCO's limit of 100 detections, for crowded images."""
    _need(cfg, dataset_name, "instances", "objects")
    return COCOEvaluator(
        dataset_name,
        output_dir=_folder(cfg, dataset_name),
        max_dets_per_image=max(COCO_DETECTIONS_PER_IMAGE, cfg.TEST.DETECTIONS_PER_IMAGE),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )


def _build_lvis(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    _need(cfg, dataset_name, "instances", "objects")
    return LVISEvaluator(dataset_name, output_dir=_folder(cfg, dataset_name))


def _build_semantic(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    _need(cfg, dataset_name, "sem_seg", "semantic labels")
    return SemSegEvaluator(dataset_name, boundary_iou=cfg.TEST.BOUNDARY_IOU)


def _build_panoptic(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """PQ, box and mask AP, semantic scores: those of what the model predicts."""
    return _build_each(cfg, dataset_name, {"instances": _build_coco, "sem_seg": _build_semantic})


def _build_cityscapes_instance(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    _need(cfg, dataset_name, "instances", "objects")
    if kind_of(cfg.MODEL.META_ARCHITECTURE) in _WITH_MASK_HEAD and not cfg.MODEL.MASK_ON:
        raise InputError(f"data set {dataset_name!r}: Cityscapes scores masks; set MODEL.MASK_ON True")
    return CityscapesInstanceEvaluator(dataset_name)


def _build_cityscapes_semantic(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    _need(cfg, dataset_name, "sem_seg", "semantic labels")
    return CityscapesSemSegEvaluator(dataset_name)


def _build_cityscapes_panoptic(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """As `_build_panoptic`, with Cityscapes' own scores of masks and labels."""
    others = {"instances": _build_cityscapes_instance, "sem_seg": _build_cityscapes_semantic}
    return _build_each(cfg, dataset_name, others)


def _build_each(cfg: CfgNode, dataset_name: str, builders: Mapping[str, Builder]) -> DatasetEvaluator:
    """PQ, and the evaluators of `builders`, output -> builder, whose output the model gives."""
    outputs = _outputs(cfg)
    builders = {"panoptic_seg": _build_panoptic_quality, **builders}
    evaluators = [build(cfg, dataset_name) for output, build in builders.items() if output in outputs]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _build_panoptic_quality(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    return COCOPanopticEvaluator(
        dataset_name, output_dir=_folder(cfg, dataset_name), save_predictions=cfg.TEST.SAVE_PANOPTIC
    )


def _build_pascal_voc(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    _need(cfg, dataset_name, "instances", "objects")
    return PascalVOCDetectionEvaluator(dataset_name)


def _folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where predictions are written."""
    return os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)


EVALUATORS: dict[str, Builder] = {
    "coco": _build_coco,
    "coco_panoptic_seg": _build_panoptic,
    "lvis": _build_lvis,
    "cityscapes_instance": _build_cityscapes_instance,
    "cityscapes_panoptic_seg": _build_cityscapes_panoptic,
    "cityscapes_sem_seg": _build_cityscapes_semantic,
    "pascal_voc": _build_pascal_voc,
    "sem_seg": _build_semantic,
}
"""`evaluator_type` -> how its evaluator is built. Projects add theirs."""
