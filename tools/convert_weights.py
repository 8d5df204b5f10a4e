#!/usr/bin/env python
"""Write weights of Detectron2, Detectron1, Caffe2 or torchvision as .safetensors or .pth, under our names.

INPUT is a file (.pth, .pkl, .pyth, .safetensors) or an address (https://, detectron2://). Only the weights
and what is said of the training data (names of classes, keypoints) are taken over. The names are
Detectron2's, so a .pth also loads there.

An ImageNet backbone has no place in a model yet: its names begin at `stem.` and `res2.`, and loading finds
the place. With --config-file, the weights get the names that they have in that model, and only what fits it
is written.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from panomask.addresses import local_path
from panomask.checkpoint.files import read_checkpoint, write_weights
from panomask.checkpoint.foreign import fit_names_of_networks, translate
from panomask.checkpoint.matching import describe_match, match_state_dict, refuse_other_model
from panomask.engine import load_config, run_tool, setup_logger
from panomask.errors import InputError
from panomask.modeling import build_model

EXAMPLES = """
examples:
  %(prog)s R-50.pkl R-50.safetensors
  %(prog)s output/quickstart/model_final.pth quickstart.safetensors
  %(prog)s maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth mask_rcnn.pth
  %(prog)s R-50.pkl backbone.pth --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml
"""

logger = logging.getLogger("panomask.convert_weights")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", help="file or address of weights")
    parser.add_argument("output", metavar="OUTPUT", help="file to write, .safetensors or .pth")
    parser.add_argument("--config-file", metavar="FILE", help="config (YAML) of the model to be filled")
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides, such as MODEL.ROI_HEADS.NUM_CLASSES 3"
    )
    return parser.parse_intermixed_args()


def translated(path: str) -> dict[str, Any]:
    """The weights under our names, and how to load them where they have no place in a model yet."""
    checkpoint = read_checkpoint(path)
    try:
        weights, notes = translate(checkpoint["model"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for note in notes:
        logger.info(note)
    content: dict[str, Any] = {"model": weights}
    if checkpoint.get("matching_heuristics") is True or not any(
        key.startswith("backbone.") for key in weights
    ):
        content["matching_heuristics"] = True
    return content | {
        key: checkpoint[key] for key in ("thing_classes", "keypoints", "stuff") if key in checkpoint
    }


def fitted(path: str, config_file: str, opts: list[str]) -> dict[str, Any]:
    """The weights that fit the model of a config, under its names."""
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu", *opts])
    model = build_model(cfg)
    checkpoint = read_checkpoint(path)
    by_suffix = checkpoint.get("matching_heuristics") is True
    own = model.state_dict()
    fronts = getattr(model, "networks", ())
    weights, notes = fit_names_of_networks(path, checkpoint["model"], own, fronts, by_suffix=by_suffix)
    refuse_other_model(path, model, weights)
    keys = match_state_dict(model, weights)
    fitting = {key: weights[key] for key in own if key in weights and weights[key].shape == own[key].shape}
    for text in (*notes, f"What fits {config_file}:\n{describe_match(len(fitting), keys)}"):
        logger.info(text)
    return {"model": fitting}


def main() -> None:
    args = parse_args()
    if args.opts and not args.config_file:
        raise InputError(f"{' '.join(args.opts[:2])}: settings are of a config; name it by --config-file")
    setup_logger()
    path = local_path(args.input)
    content = fitted(path, args.config_file, args.opts) if args.config_file else translated(path)
    write_weights(args.output, content)
    size = Path(args.output).stat().st_size / 1e6
    logger.info(f"{len(content['model'])} weights, {size:.1f} MB: {args.output}")


if __name__ == "__main__":
    run_tool(main)
