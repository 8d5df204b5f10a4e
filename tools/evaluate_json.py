#!/usr/bin/env python
"""Score predictions that are on disk; no model is needed.

TRUTH and PREDICTIONS are COCO files, and their content says what they are:

  panoptic    TRUTH lists segments, PREDICTIONS likewise, each beside a folder of PNG files: PQ, SQ, RQ. The
              folder is, unless given, the JSON file's path without .json, as panopticapi has it.
  instances   TRUTH holds objects, PREDICTIONS is a list of results: AP of boxes, masks and keypoints,
              whichever both hold.

Training and evaluation leave such files in OUTPUT_DIR/inference/NAME: coco_instances_results.json and, with
TEST.SAVE_PANOPTIC True, panoptic_predictions.json.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panomask.engine import run_tool, setup_logger
from panomask.errors import InputError
from panomask.evaluation import (
    evaluate_coco_json,
    evaluate_panoptic_json,
    load_ground_truth,
    results_table,
)
from panomask.evaluation.coco_ground_truth import has_masks
from panomask.evaluation.coco_keypoints import has_keypoints
from panomask.evaluation.coco_scores import IOU_TYPES, MAX_DETECTIONS
from panomask.json_file import read_json, write_json

EXAMPLES = """
examples:
  %(prog)s panoptic_val2017.json output/inference/coco_2017_val_panoptic_separated/panoptic_predictions.json
  %(prog)s mine/val.json predictions.json --truth-folder mine/png --predictions-folder png --output pq.json
  %(prog)s instances_val2017.json output/inference/coco_2017_val/coco_instances_results.json --tasks bbox segm
"""
_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("truth", metavar="TRUTH", help="annotation file (JSON)")
    parser.add_argument("predictions", metavar="PREDICTIONS", help="predictions (JSON)")
    parser.add_argument("--truth-folder", metavar="DIR", help="panoptic: PNG files of TRUTH")
    parser.add_argument("--predictions-folder", metavar="DIR", help="panoptic: PNG files of PREDICTIONS")
    parser.add_argument(
        "--tasks", nargs="+", choices=IOU_TYPES, help="instances: what to score (default: all that there is)"
    )
    parser.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="instances: best boxes and masks of an image and class that count"
        f" (default: {MAX_DETECTIONS[-1]})",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the numbers to this JSON file, too (null: nothing to score)"
    )
    return parser.parse_args()


def is_panoptic(path: str, content: Any) -> bool:
    """Whether a file's content lists segments of PNG files."""
    annotations = content.get("annotations") if isinstance(content, Mapping) else None
    if annotations is None:
        return False
    if not isinstance(annotations, list):
        raise InputError(f"{path}: 'annotations' must be a list; give a COCO file")
    if annotations:
        return any(isinstance(entry, Mapping) and "segments_info" in entry for entry in annotations)
    categories = content.get("categories")
    return isinstance(categories, list) and any(
        isinstance(entry, Mapping) and "isthing" in entry for entry in categories
    )


def holds_objects(content: Any) -> bool:
    """Whether a file's content, which is not panoptic, is a list of results or an annotation file."""
    return isinstance(content, list) or (isinstance(content, Mapping) and bool(content.get("annotations")))


def score_panoptic(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    refuse("panoptic", {"--tasks": args.tasks, "--max-detections": args.max_detections})
    folders = []
    for path, given, option in (
        (args.truth, args.truth_folder, "--truth-folder"),
        (args.predictions, args.predictions_folder, "--predictions-folder"),
    ):
        folder = Path(given) if given else Path(path).with_suffix("")
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; name that of the PNG files of {path} by {option}")
        folders.append(folder)
    metrics = evaluate_panoptic_json(args.truth, folders[0], args.predictions, folders[1])
    return {"panoptic_seg": metrics}


def score_instances(args: argparse.Namespace, results: Any) -> dict[str, dict[str, float]]:
    refuse(
        "instances",
        {"--truth-folder": args.truth_folder, "--predictions-folder": args.predictions_folder},
    )
    if isinstance(results, Mapping):
        raise InputError(
            f"{args.predictions}: an object, but {args.truth} is a file of instances; results are a list of"
            " objects with image_id, category_id, score and bbox, segmentation or keypoints"
        )
    limit = MAX_DETECTIONS[-1] if args.max_detections is None else args.max_detections
    if limit < MAX_DETECTIONS[-2]:
        raise InputError(
            f"--max-detections is {limit}; give {MAX_DETECTIONS[-2]} or more, for scores of"
            f" {MAX_DETECTIONS[0]} and {MAX_DETECTIONS[-2]} detections come along"
        )
    ground_truth = load_ground_truth(args.truth)
    tasks = args.tasks or tasks_of(ground_truth, results)
    limits = (*MAX_DETECTIONS[:-1], limit)
    return {
        task: evaluate_coco_json(ground_truth, args.predictions, task, max_detections=limits)
        for task in tasks
    }


def tasks_of(ground_truth: Any, results: Any) -> list[str]:
    """The tasks that truth and predictions both hold something for; boxes where there is nothing at all."""
    entries = [entry for entry in results if isinstance(entry, Mapping)] if isinstance(results, list) else []
    held = {task for task, field in _FIELDS.items() if any(entry.get(field) for entry in entries)}
    if not has_masks(ground_truth):
        held.discard("segm")
    if not has_keypoints(ground_truth):
        held.discard("keypoints")
    return [task for task in IOU_TYPES if task in held] or ["bbox"]


def refuse(kind: str, options: Mapping[str, object]) -> None:
    """Raise InputError for options that files of this kind do not obey."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"{name}: the files are of {kind}, which it has nothing to say about; leave it out"
            )


def main() -> None:
    args = parse_args()
    setup_logger()
    truth, predictions = read_json(args.truth), read_json(args.predictions)
    of_truth, of_predictions = is_panoptic(args.truth, truth), is_panoptic(args.predictions, predictions)
    if of_predictions and not of_truth:
        raise InputError(
            f"{args.predictions} is panoptic, but {args.truth} is not; give the panoptic annotation file"
        )
    if of_truth and not of_predictions and holds_objects(predictions):
        raise InputError(
            f"{args.predictions} holds instances, but {args.truth} is panoptic; give panoptic predictions, or"
            " the annotation file of the instances"
        )
    del truth
    results = score_panoptic(args) if of_truth else score_instances(args, predictions)
    try:
        if args.output:
            _write_numbers(args.output, results)
    finally:  # also where the file cannot be written
        print(results_table(results))


def _write_numbers(path: str, results: Mapping[str, Mapping[str, float]]) -> None:
    numbers = {
        task: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    try:
        write_json(path, numbers)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    run_tool(main)
