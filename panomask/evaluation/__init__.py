"""Evaluation: one loop, evaluators that measure, and results as tables and files."""

from panomask.evaluation.cityscapes_evaluation import (
    CityscapesEvaluator,
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
)
from panomask.evaluation.coco_evaluation import COCOEvaluator, encode_masks, instances_to_coco_json
from panomask.evaluation.coco_ground_truth import load_ground_truth, load_results
from panomask.evaluation.coco_json import convert_to_coco_dict, convert_to_coco_json
from panomask.evaluation.coco_scores import evaluate_coco_json
from panomask.evaluation.evaluator import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)
from panomask.evaluation.lvis_evaluation import LVISEvaluator
from panomask.evaluation.lvis_scores import evaluate_lvis_json
from panomask.evaluation.panoptic_evaluation import (
    COCOPanopticEvaluator,
    evaluate_panoptic_json,
    panoptic_to_coco,
)
from panomask.evaluation.pascal_voc_evaluation import PascalVOCDetectionEvaluator
from panomask.evaluation.results import (
    flatten_results_dict,
    print_csv_format,
    results_table,
    unmet_expectations,
)
from panomask.evaluation.sem_seg_evaluation import SemSegEvaluator

__all__ = [
    "COCOEvaluator",
    "COCOPanopticEvaluator",
    "CityscapesEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "LVISEvaluator",
    "PascalVOCDetectionEvaluator",
    "SemSegEvaluator",
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "encode_masks",
    "evaluate_coco_json",
    "evaluate_lvis_json",
    "evaluate_panoptic_json",
    "flatten_results_dict",
    "inference_context",
    "inference_on_dataset",
    "instances_to_coco_json",
    "load_ground_truth",
    "load_results",
    "panoptic_to_coco",
    "print_csv_format",
    "results_table",
    "unmet_expectations",
]
