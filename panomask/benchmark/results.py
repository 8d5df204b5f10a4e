"""From the heads' last layers to results: masks of the image's size as RLE, keypoints from heatmaps."""

import argparse
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints as torchvision_keypoints

from panomask.benchmark.comparison import Comparison, largest_difference
from panomask.benchmark.operations import draw_boxes
from panomask.evaluation import encode_masks
from panomask.layers import paste_masks_in_image
from panomask.structures import heatmaps_to_keypoints

MASK_SIDE, HEATMAP_SIDE, NUM_KEYPOINTS = 28, 56, 17
MAX_DIFFERING_PIXELS = 1e-6
"""Of all pixels of the image, in each mask: those whose value is the threshold but for rounding."""
POSITIONS_EQUAL = 1e-3
"""To which keypoints agree, in pixels."""

Rle = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detections", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--output-size",
        type=int,
        nargs=2,
        default=[800, 1216],
        metavar=("HEIGHT", "WIDTH"),
        help="of the image that the detections are in (default: 800 1216)",
    )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    generator = torch.Generator().manual_seed(0)
    size = tuple(args.output_size)
    boxes = draw_boxes(args.detections, size, generator)
    yield _masks_as_rle(_soft_masks(len(boxes), generator), boxes, size)
    yield _keypoints("with a peak", _heatmaps(len(boxes), generator), boxes)
    noise = torch.randn(len(boxes), NUM_KEYPOINTS, HEATMAP_SIDE, HEATMAP_SIDE, generator=generator)
    yield _keypoints("of pure noise", noise, boxes, target=None)


def _soft_masks(num: int, generator: torch.Generator) -> Tensor:
    """Scores (N, 28, 28) of smooth blobs."""
    logits = 6 * torch.randn(num, 1, 6, 6, generator=generator)
    return F.interpolate(logits, (MASK_SIDE, MASK_SIDE), mode="bicubic")[:, 0].sigmoid()


def _heatmaps(num: int, generator: torch.Generator) -> Tensor:
    """Logits (N, 17, 56, 56): a peak three cells wide for each keypoint, on uneven ground."""
    shape = (num, NUM_KEYPOINTS, HEATMAP_SIDE, HEATMAP_SIDE)
    ground = F.avg_pool2d(3 * torch.randn(shape, generator=generator), 5, stride=1, padding=2)
    cells = torch.arange(HEATMAP_SIDE)
    at = HEATMAP_SIDE * torch.rand(2, num, NUM_KEYPOINTS, 1, 1, generator=generator)
    peaks = torch.exp(-((cells[:, None] - at[0]) ** 2 + (cells - at[1]) ** 2) / (2 * 3**2))
    return ground + 12 * peaks - 4


def _masks_as_rle(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Comparison:
    return Comparison(
        f"{len(masks)} masks 28 x 28 pasted into {size[0]} x {size[1]} and encoded as RLE",
        lambda: encode_masks(paste_masks_in_image(masks, boxes, size)),
        lambda: usual_masks_as_rle(masks, boxes, size),
        "grid_sample in each box, pycocotools encode",
        masks_agree,
        target=4.0,
    )


def usual_masks_as_rle(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[Rle]:
    """Masks (N, 28, 28) sampled where their boxes (N, 4) are, set into images, these encoded one by one."""
    height, width = size
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for mask, box, place in zip(masks, boxes.tolist(), pasted, strict=True):
        x0, y0 = (max(0, math.floor(side) - 1) for side in box[:2])
        x1, y1 = (min(math.ceil(side) + 1, end) for side, end in zip(box[2:], (width, height), strict=True))
        xs = (torch.arange(x0, x1) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        ys = (torch.arange(y0, y1) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=2)  # (h, w, 2)
        place[y0:y1, x0:x1] = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= 0.5
    rles = [mask_util.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in pasted.numpy()]
    return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]


def masks_agree(ours: list[Rle], reference: list[Rle]) -> str:
    """How many pixels differ, in words; AssertionError where they are more than rounding explains."""
    assert len(ours) == len(reference), (len(ours), len(reference))
    different = [(a, b) for a, b in zip(ours, reference, strict=True) if a != b]
    pixels = sum(int((mask_util.decode(a) != mask_util.decode(b)).sum()) for a, b in different)
    allowed = max(1, MAX_DIFFERING_PIXELS * sum(math.prod(rle["size"]) for rle in reference))
    assert pixels <= allowed, f"{pixels} pixels of the masks differ"
    return f"{pixels} pixels differ" if different else "equal bytes"


def _keypoints(kind: str, maps: Tensor, boxes: Tensor, target: float | None = 3.0) -> Comparison:
    return Comparison(
        f"keypoints of {len(maps)} objects ({NUM_KEYPOINTS}) from 56 x 56 heatmaps {kind}",
        lambda: heatmaps_to_keypoints(maps, boxes),
        lambda: torchvision_keypoints(maps, boxes),
        "torchvision heatmaps_to_keypoints",
        keypoints_agree,
        target,
    )


def keypoints_agree(ours: Tensor, reference: tuple[Tensor, Tensor]) -> str:
    """Places, and the logits there; ours has a column more, of scores."""
    places, logits = reference
    largest_difference(ours[..., 2], logits, POSITIONS_EQUAL)
    return f"places {largest_difference(ours[..., :2], places[..., :2], POSITIONS_EQUAL)} pixels"
