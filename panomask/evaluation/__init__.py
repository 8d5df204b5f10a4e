"""Evaluation: one loop, evaluators that measure, and results as tables and files."""

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
from panomask.evaluation.results import (
    flatten_results_dict,
    print_csv_format,
    results_table,
    unmet_expectations,
)

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "encode_masks",
    "evaluate_coco_json",
    "flatten_results_dict",
    "inference_context",
    "inference_on_dataset",
    "instances_to_coco_json",
    "load_ground_truth",
    "load_results",
    "print_csv_format",
    "results_table",
    "unmet_expectations",
]
