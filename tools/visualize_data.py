#!/usr/bin/env python
"""Draw a config's training data.

--source dataloader draws what the model is fed: the images after augmentation, with the boxes, masks,
keypoints and semantic labels that went through it. --source annotation draws the files as they are, every
image once, crowds and panoptic segments too.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panomask.config import CfgNode
from panomask.data import (
    DatasetCatalog,
    Metadata,
    MetadataCatalog,
    build_detection_train_loader,
)
from panomask.data.image_io import check_image_size, convert_image_to_rgb, read_image
from panomask.engine import load_config, register_datasets, run_tool, setup_logger
from panomask.errors import InputError
from panomask.visualization import ColorMode, draw_truth, write_image

EXAMPLES = """
examples:
  %(prog)s --config-file configs/quickstart/mask_rcnn_shapes.yaml --output output/pictures
  %(prog)s --config-file configs/quickstart/mask_rcnn_shapes.yaml --source annotation --num 50 \\
    DATASETS.REGISTER.mine.ANNOTATIONS mine/train.json DATASETS.REGISTER.mine.IMAGES mine/images \\
    DATASETS.TRAIN mine
"""
SHORT_SIDE = 480
"""Smaller images are enlarged to so many pixels, so that labels leave room for the objects."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config file (YAML)")
    parser.add_argument(
        "--source",
        choices=["dataloader", "annotation"],
        default="dataloader",
        help="what to draw: the model's input (default), or the annotation files",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the pictures (default: OUTPUT_DIR/visualized_SOURCE)"
    )
    parser.add_argument(
        "--num", type=int, default=16, metavar="N", help="pictures to draw (default: %(default)s)"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides, such as INPUT.RANDOM_FLIP none"
    )
    return parser.parse_intermixed_args()


def setup(args: argparse.Namespace) -> CfgNode:
    """The config of the command line, its data sets registered."""
    if args.num < 1:
        raise InputError(f"--num is {args.num}; give the number of pictures, 1 or more")
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    if not cfg.DATASETS.TRAIN:
        raise InputError(f"{args.config_file}: DATASETS.TRAIN is empty; name the data set to draw")
    register_datasets(cfg)
    return cfg


def draw_inputs(cfg: CfgNode, num: int) -> Iterator[tuple[str, np.ndarray]]:
    """(file name, picture) of the first `num` samples of the training loader."""
    loader = build_detection_train_loader(cfg)
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    samples = (sample for batch in loader for sample in batch)
    for sample in islice(samples, num):
        image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), cfg.INPUT.FORMAT)
        truth = {key: sample[key] for key in ("instances", "sem_seg") if key in sample}
        yield sample["file_name"], draw(image, truth, metadata)


def draw_annotations(cfg: CfgNode, num: int) -> Iterator[tuple[str, np.ndarray]]:
    """(file name, picture) of the first `num` images of DATASETS.TRAIN."""
    records = ((name, record) for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name))
    for name, record in islice(records, num):
        image = read_image(record["file_name"], "RGB")
        check_image_size(record, image)
        yield record["file_name"], draw(image, record, MetadataCatalog.get(name))


def draw(image: np.ndarray, truth: Any, metadata: Metadata) -> np.ndarray:
    """The picture, every object in a colour of its own."""
    scale = max(1.0, SHORT_SIDE / min(image.shape[:2]))
    return draw_truth(image, truth, metadata, scale=scale, instance_mode=ColorMode.IMAGE)


def main() -> None:
    args = parse_args()
    setup_logger()
    torch.set_num_threads(1)
    cfg = setup(args)
    folder = Path(args.output or Path(cfg.OUTPUT_DIR) / f"visualized_{args.source}")
    pictures = draw_inputs(cfg, args.num) if args.source == "dataloader" else draw_annotations(cfg, args.num)
    count = 0
    for count, (file_name, picture) in enumerate(pictures, start=1):
        # Numbered: a loader gives an image more than once.
        write_image(folder / f"{count:04d}_{Path(file_name).stem}.jpg", picture)
    print(f"{count} pictures written to {folder}")


if __name__ == "__main__":
    run_tool(main)
