#!/usr/bin/env python
"""Predict on images, folders and videos with trained weights.

OUTPUT receives every image and video under its own name (videos as MP4), with the predictions drawn, and
  coco_instances_results.json  all detections in COCO's results format: image_id, category_id, bbox
                               (x, y, width, height), score, segmentation (RLE)
  images.json                  the images (and frames of videos) and categories that those ids stand for
Both load with pycocotools: COCO("images.json").loadRes("coco_instances_results.json"). With --annotations the
ids are those of a COCO annotation file, and the results can be scored against it.

A panoptic model also gives panoptic_predictions.json and panoptic_predictions/*.png, COCO's panoptic format,
which tools/evaluate_json.py scores; its pictures show all segments, with names where there is room. A
semantic model gives semantic_predictions/*.png, grey-scale images of labels, and semantic_predictions.json,
their names.

A file that cannot be read is named on one line, the others are processed, and the exit status is 1.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from panomask.config import CfgNode, get_cfg
from panomask.engine import DefaultPredictor, load_config, register_datasets, run_tool, setup_logger
from panomask.engine.prediction_files import CocoIds, PredictionFiles, list_inputs, plan_outputs
from panomask.errors import InputError
from panomask.registry import kind_of

EXAMPLES = """
examples:
  a folder of images, with what the quick start trained:
    %(prog)s --config-file output/quickstart/config.yaml --weights output/quickstart/model_final.pth \\
      --input datasets/shapes/v2/val --output drawn
  some images and a video, only what is almost certain, on the CPU:
    %(prog)s --config-file FILE --input a.jpg 'more/*.png' clip.mp4 --output drawn \\
      --confidence-threshold 0.9 MODEL.WEIGHTS model_final.pth MODEL.DEVICE cpu
  predictions to be scored against annotations:
    %(prog)s --config-file FILE --weights FILE --input val/ --output drawn --confidence-threshold 0 \\
      --annotations instances_val.json
"""

DEFAULT_THRESHOLD = 0.5
PANOPTIC_THRESHOLD_KEY = "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"

logger = logging.getLogger("panomask.predict")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the model's config (YAML)")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint; the same as MODEL.WEIGHTS FILE")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, videos, folders of them, or quoted patterns such as 'photos/**/*.jpg'",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for all output")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="SCORE",
        help=f"detections below this score are neither drawn nor written (default: {DEFAULT_THRESHOLD}), nor"
        " those below what the config demands in testing; of a panoptic model, things below it leave their"
        f" pixels to stuff (default: the config's {PANOPTIC_THRESHOLD_KEY})",
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="take image and category ids from this COCO file (of panoptic annotations for a panoptic model),"
        " by file name and class name",
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides, such as MODEL.DEVICE cpu"
    )
    args = parser.parse_intermixed_args()
    args.input, swallowed = _split_at_key(args.input)
    args.opts = swallowed + args.opts
    return args


def _split_at_key(words: list[str]) -> tuple[list[str], list[str]]:
    """Paths, and the KEY VALUE pairs that argparse took for paths since they follow them."""
    known = get_cfg()
    for i, word in enumerate(words):
        if word.split(".")[0] in known and not Path(word).exists():
            return words[:i], words[i:]
    return words, []


def build_config(args: argparse.Namespace) -> CfgNode:
    """The config of the command line; weights are demanded."""
    cfg = load_config(args.config_file, args.opts)
    if args.weights is not None:
        cfg.MODEL.WEIGHTS = args.weights
    if not cfg.MODEL.WEIGHTS:
        raise InputError("no weights: give --weights FILE (or MODEL.WEIGHTS FILE), such as a model_final.pth")
    register_datasets(cfg)
    threshold = find_threshold(cfg, args.confidence_threshold)
    # Detections below the threshold are dropped in any case: dropped early, they cost no mask.
    node, name = score_threshold(cfg)
    node[name] = max(node[name], threshold)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = threshold
    cfg.freeze()
    return cfg


def score_threshold(cfg: CfgNode) -> tuple[CfgNode, str]:
    """Where the config says the score that the model's detections need: the node, and the key in it."""
    model = cfg.MODEL
    refines_boxes = (model.MASK_ON or model.KEYPOINT_ON) and model.ROI_HEADS.NAME != "GivenBoxROIHeads"
    if kind_of(model.META_ARCHITECTURE) == "RetinaNet" and not refines_boxes:
        return model.RETINANET, "SCORE_THRESH_TEST"
    if kind_of(model.META_ARCHITECTURE) == "FCOS" and not refines_boxes:
        return model.FCOS, "INFERENCE_TH_TEST"
    return model.ROI_HEADS, "SCORE_THRESH_TEST"


def find_threshold(cfg: CfgNode, given: float | None) -> float:
    """The score that objects need: `given`, else the model's default."""
    if given is None:
        is_panoptic = kind_of(cfg.MODEL.META_ARCHITECTURE) == "PanopticFPN"
        return (
            cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH if is_panoptic else DEFAULT_THRESHOLD
        )
    if kind_of(cfg.MODEL.META_ARCHITECTURE) == "SemanticSegmentor":
        raise InputError(
            "--confidence-threshold: a semantic model gives every pixel its best class, without objects that"
            " could be left out; leave the option away"
        )
    return given


def process_all(files: PredictionFiles, outputs: Mapping[Path, Path]) -> int:
    """Process every input, whatever happens to the others, and save; returns how many failed."""
    failed = 0
    try:
        for path, target in tqdm(outputs.items(), unit="file", disable=None):
            try:
                files.process(path, target)
            except InputError as error:
                failed += 1
                tqdm.write(f"error: {error}", file=sys.stderr)
    finally:
        files.save()
    return failed


def main() -> None:
    """Parse, check everything that can be checked before the model is built, predict."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is predicted so far gets saved
    if args.confidence_threshold is not None and not 0 <= args.confidence_threshold <= 1:
        raise InputError(f"--confidence-threshold {args.confidence_threshold}: a score from 0 to 1 is needed")
    setup_logger()
    folder = Path(args.output)
    outputs = plan_outputs(list_inputs(args.input), folder)
    cfg = build_config(args)
    predictor = DefaultPredictor(cfg)
    ids = CocoIds(predictor.metadata, args.annotations)
    if kind_of(cfg.MODEL.META_ARCHITECTURE) == "PanopticFPN" and cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED:
        ids.panoptic_categories()  # all of them are known: better now than at the first image
    files = PredictionFiles(
        predictor,
        predictor.metadata,
        folder,
        ids=ids,
        confidence_threshold=find_threshold(cfg, args.confidence_threshold),
    )
    failed = process_all(files, outputs)
    logger.info("%s: %s", files.summary(), folder)
    if failed:
        done = f"the others are in {folder}" if failed < len(outputs) else "there is nothing to draw"
        raise InputError(f"{failed} of {len(outputs)} inputs could not be processed; {done}")


if __name__ == "__main__":
    run_tool(main)
