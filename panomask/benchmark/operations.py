"""The operations of the second stage, beside torchvision's and torch's own."""

import argparse
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, RoIAlign

from panomask.benchmark.comparison import Comparison, largest_difference
from panomask.layers import Linear, ROIAlign
from panomask.modeling.poolers import ROIPooler
from panomask.structures import Boxes

CHANNELS, STRIDES = 256, (4, 8, 16, 32)
C4_CHANNELS, C4_STRIDE = 1024, 16
EQUAL = 1e-5
"""To which RoIAlign's numbers must agree. Gradients are sums of many: to this part of the largest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--boxes", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--height", type=int, default=800, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--width", type=int, default=1216, metavar="PIXELS", help="default: %(default)s")


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    size = (args.height, args.width)
    generator = torch.Generator().manual_seed(0)
    boxes = draw_boxes(args.boxes, size, generator)
    maps = [_feature_map(size, stride, CHANNELS, generator) for stride in STRIDES]
    few = boxes[: max(1, args.boxes // 10)]
    for region, side, target in ((boxes, 7, 4.0), (few, 14, None)):
        name = f"RoIAlign {side} x {side}, {len(region)} boxes, 4 levels"
        yield _pooling(f"{name}, forward", maps, region, side, size, target)
        yield _pooling_with_backward(f"{name}, forward and backward", maps, region, side, size)
    yield _single_level(boxes, _feature_map(size, C4_STRIDE, C4_CHANNELS, generator))
    yield from _fully_connected(args.boxes, CHANNELS * 7 * 7, 1024, generator)


def draw_boxes(num_boxes: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(R, 4) xyxy inside an image (height, width), their sides from 16 pixels to the image's, log-uniform."""
    low, high = math.log(16), math.log(min(size))
    scales = (low + (high - low) * torch.rand(num_boxes, 1, generator=generator)).exp()
    shapes = (torch.rand(num_boxes, 1, generator=generator) - 0.5).exp()
    sides = torch.cat([scales * shapes, scales / shapes], dim=1)  # (R, 2): width, height
    sides = sides.minimum(torch.tensor([size[1], size[0]]))
    corners = torch.rand(num_boxes, 2, generator=generator) * (torch.tensor([size[1], size[0]]) - sides)
    return torch.cat([corners, corners + sides], dim=1)


def _feature_map(size: tuple[int, int], stride: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.randn(1, channels, -(-size[0] // stride), -(-size[1] // stride), generator=generator)


def _pooling(
    name: str, maps: list[Tensor], boxes: Tensor, side: int, size: tuple[int, int], target: float | None
) -> Comparison:
    """Each from maps in the memory format that its models make."""
    ours, reference = _poolers(side, size)
    ready = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    return Comparison(
        name,
        lambda: ours(ready, boxes),
        lambda: reference(maps, boxes),
        "torchvision MultiScaleRoIAlign",
        lambda a, b: largest_difference(a, b, EQUAL),
        target,
    )


def _pooling_with_backward(
    name: str, maps: list[Tensor], boxes: Tensor, side: int, size: tuple[int, int]
) -> Comparison:
    ours, reference = _poolers(side, size)
    ready = [x.to(memory_format=torch.channels_last, copy=True).requires_grad_() for x in maps]
    plain = [x.clone().requires_grad_() for x in maps]
    gradient = torch.randn(len(boxes), CHANNELS, side, side, generator=torch.Generator().manual_seed(1))
    gradient_ready = gradient.contiguous(memory_format=torch.channels_last)
    return Comparison(
        name,
        lambda: torch.autograd.grad(ours(ready, boxes), ready, gradient_ready),
        lambda: torch.autograd.grad(reference(plain, boxes), plain, gradient),
        "torchvision MultiScaleRoIAlign",
        _gradients_agree,
    )


def _poolers(side: int, size: tuple[int, int]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Both take feature maps of one image and its boxes."""
    ours = ROIPooler(side, [1 / stride for stride in STRIDES], sampling_ratio=0, pooler_type="ROIAlign")
    names = [str(level) for level in range(len(STRIDES))]
    reference = MultiScaleRoIAlign(names, side, sampling_ratio=0)
    return (
        lambda maps, boxes: ours(maps, [Boxes(boxes)]),
        lambda maps, boxes: reference(OrderedDict(zip(names, maps, strict=True)), [boxes], [size]),
    )


def _gradients_agree(ours: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> str:
    largest = max(float(x.abs().max()) for x in reference)
    pairs = zip(ours, reference, strict=True)
    worst = max(float((a - b).abs().max()) for a, b in pairs) / largest
    assert worst <= EQUAL, f"gradients differ by {worst:.3g} of the largest"
    return f"within {worst:.1e}"


def _single_level(boxes: Tensor, feature_map: Tensor) -> Comparison:
    """As the C4 models pool: one map of many channels."""
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)
    ours = ROIAlign(14, 1 / C4_STRIDE, 0, aligned=True)
    reference = RoIAlign(14, 1 / C4_STRIDE, 0, aligned=True)
    ready = feature_map.contiguous(memory_format=torch.channels_last)
    return Comparison(
        f"RoIAlign 14 x 14, {len(boxes)} boxes, one level of {C4_CHANNELS} channels, forward",
        lambda: ours(ready, rois),
        lambda: reference(feature_map, rois),
        "torchvision RoIAlign",
        lambda a, b: largest_difference(a, b, EQUAL),
    )


def _fully_connected(
    rows: int, inputs: int, outputs: int, generator: torch.Generator
) -> Iterator[Comparison]:
    ours = Linear(inputs, outputs)
    reference = nn.Linear(inputs, outputs)
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(rows, inputs, generator=generator, requires_grad=True)
    gradient = torch.randn(rows, outputs, generator=generator)
    name = f"fully connected, {rows} x {inputs} to {outputs}"

    def forward(layer: nn.Module) -> Any:
        with torch.no_grad():
            return layer(x)

    def backward(layer: nn.Module) -> Any:
        return torch.autograd.grad(layer(x), [x, *layer.parameters()], gradient)

    agree = _gradients_agree
    yield Comparison(
        f"{name}, forward",
        lambda: (forward(ours),),
        lambda: (forward(reference),),
        "torch.nn.Linear",
        agree,
    )
    yield Comparison(
        f"{name}, forward and backward",
        lambda: backward(ours),
        lambda: backward(reference),
        "torch.nn.Linear",
        agree,
    )
