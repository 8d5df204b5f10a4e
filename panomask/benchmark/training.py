"""One step of training Mask R-CNN (forward, backward, optimizer), beside torchvision's with the same weights.

Both sample as many regions: as many foreground as there are objects, which are proposals too, and the rest
of 512 an image background.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from panomask.benchmark.comparison import Comparison
from panomask.benchmark.models import mask_rcnn_like, plain_eager, smooth_image, torchvision_mask_rcnn
from panomask.benchmark.operations import draw_boxes
from panomask.config import CfgNode
from panomask.engine.train_loop import build_step_trainer
from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.solver import build_optimizer
from panomask.structures import Boxes, Instances, PolygonMasks

REGIONS, PROPOSALS = 512, 1000
"""Regions sampled an image, and proposals that they are sampled from."""

LEARNING_RATE = 1e-8
"""So low that the losses of a benchmark stay about where they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=320, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument("--objects", type=int, default=32, metavar="N", help="an image; default: %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of both; default: %(default)s",
    )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    if args.objects > REGIONS // 2:
        raise InputError(f"--objects is {args.objects}; give {REGIONS // 2} or fewer, of {REGIONS} regions")
    name = f"training step, {args.images} images of {args.size} x {args.size}, {args.precision}"
    scenes = [_draw_scene(args.size, args.objects, seed) for seed in range(args.images)]
    fraction = args.objects / REGIONS
    reference = torchvision_mask_rcnn(
        args.device,
        **{"min_size": args.size, "max_size": args.size, "box_positive_fraction": fraction},
        **{"rpn_post_nms_top_n_train": PROPOSALS},
    )
    overrides = ["MODEL.ROI_HEADS.POSITIVE_FRACTION", fraction, "SOLVER.BASE_LR", LEARNING_RATE]
    if args.precision == "bfloat16":
        overrides += ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"]
    cfg, ours = mask_rcnn_like(reference, args.device, *overrides)
    plain_cfg, plain = mask_rcnn_like(reference, args.device, *overrides, "MODEL.CHANNELS_LAST", False)
    step = _step(cfg, ours, scenes)
    yield Comparison(
        name,
        step,
        _torchvision_step(reference, scenes, args),
        "torchvision maskrcnn_resnet50_fpn",
        _losses_are_alike,
        target=1.4 if args.device == "cpu" and args.precision == "float32" else None,
    )
    reference.cpu()
    yield Comparison(
        name,
        step,
        _step(plain_cfg, plain_eager(plain), scenes),
        "the same in plain modules",
        _losses_are_alike,
    )


Scene = tuple[Tensor, Tensor, Tensor]
"""An image (3, H, W) uint8, boxes (M, 4) xyxy pixels that objects fill, and their classes (M,) of 80."""


def _draw_scene(side: int, num_objects: int, seed: int) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    boxes = draw_boxes(num_objects, (side, side), generator)
    return smooth_image((side, side), seed), boxes, torch.randint(80, (num_objects,), generator=generator)


def _step(cfg: CfgNode, model: nn.Module, scenes: list[Scene]) -> Callable[[], float]:
    """As the trainer steps, from images in memory; gives the sum of the losses."""
    batch = [{"image": scene[0], "instances": _instances(scene)} for scene in scenes]
    trainer = build_step_trainer(cfg, model, itertools.repeat(batch), build_optimizer(cfg, model))

    def step() -> float:
        with EventStorage() as storage:
            trainer.run_step()
            return storage.latest()["total_loss"][0]

    return step


def _instances(scene: Scene) -> Instances:
    image, boxes, classes = scene
    x0, y0, x1, y1 = boxes.double().T
    corners = torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], dim=1)  # (M, 8)
    masks = PolygonMasks([[polygon] for polygon in corners.numpy()])
    size = (image.shape[1], image.shape[2])
    return Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes, gt_masks=masks)


def _torchvision_step(model: nn.Module, scenes: list[Scene], args: argparse.Namespace) -> Callable[[], float]:
    """As torchvision's references train, images and truth in memory."""
    images = [scene[0] / 255 for scene in scenes]
    targets = [
        {"boxes": boxes, "labels": classes + 1, "masks": _dense_masks(boxes, image.shape[1:])}
        for image, boxes, classes in scenes
    ]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    is_reduced = args.precision == "bfloat16"

    def step() -> float:
        model.train()
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=is_reduced):
            losses = model(
                [image.to(args.device) for image in images],
                [{name: value.to(args.device) for name, value in target.items()} for target in targets],
            )
            total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item()

    return step


def _dense_masks(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(M, H, W) uint8: pixels whose centre lies in the box."""
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)  # (M, 1)
    is_row, is_column = (rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1)
    return (is_row[:, :, None] & is_column[:, None]).to(torch.uint8)


def _losses_are_alike(ours: float, reference: float) -> str:
    """Regions are sampled at random and classes differ by what torchvision has beside COCO's 80."""
    assert 0.5 < ours / reference < 2, f"losses are {ours:.3g} and {reference:.3g}"
    return f"losses {ours:.3g} and {reference:.3g}"
