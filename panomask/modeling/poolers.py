"""Pool each box's features from the pyramid level that fits its size (FPN, arXiv:1612.03144, eq. 1).

Shapes: N images, L levels, R boxes of all images, C channels, level i is (N, C, Hi, Wi).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import ROIAlign, ROIPool, ROIWarp, cat
from panomask.structures import Boxes

_POOLERS: dict[str, Callable[..., nn.Module]] = {
    "ROIAlign": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=False),
    "ROIAlignMax": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=False, aggregation="max"),
    "ROIAlignV2": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=True),
    "ROIAlignV2Max": lambda size, scale, ratio: ROIAlign(size, scale, ratio, aligned=True, aggregation="max"),
    "ROIPool": lambda size, scale, ratio: ROIPool(size, scale),
    "ROIWarp": lambda size, scale, ratio: ROIWarp(size, scale, ratio),
    "ROIWarpMax": lambda size, scale, ratio: ROIWarp(size, scale, ratio, aggregation="max"),
}


def assign_boxes_to_levels(
    box_lists: Sequence[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: float,
    canonical_level: int,
) -> torch.Tensor:
    """Index of the level, 0 for `min_level`, that each box is pooled from.

    A box of `canonical_box_size` squared belongs to `canonical_level`, one of twice that side to the next.

    Returns:
        (R,) int64, the images' boxes one after the other.
    """
    sizes = torch.sqrt(cat([boxes.area() for boxes in box_lists]))
    # 1e-8 keeps the logarithm of an empty box finite.
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    return levels.clamp(min=min_level, max=max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: Sequence[Boxes]) -> torch.Tensor:
    """Boxes of N images -> (R, 5): index of the image, then xyxy."""
    boxes = cat([boxes.tensor for boxes in box_lists])
    image_idx = [boxes.new_full((len(of_image), 1), idx) for idx, of_image in enumerate(box_lists)]
    return torch.cat([cat(image_idx), boxes], dim=1)


class ROIPooler(nn.Module):
    """RoI pooling over a pyramid.

    Args:
        output_size: (height, width) of the output, or one int for both.
        scales: 1 / stride of each level, finest first, halving from one to the next.
        sampling_ratio: of RoIAlign and RoIWarp; 0 for as many samples as the box has cells.
        pooler_type: "ROIAlignV2" (half-pixel aligned), "ROIAlign", "ROIPool" or "ROIWarp"; with "Max" behind
            it the largest of RoIAlign's or RoIWarp's samples in place of their mean.
        canonical_box_size, canonical_level: see `assign_boxes_to_levels`.

    Raises:
        InputError: an unknown `pooler_type`, or scales that do not halve.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        if pooler_type not in _POOLERS:
            raise InputError(f"POOLER_TYPE: {pooler_type!r}: allowed are {sorted(_POOLERS)}")
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        assert len(size) == 2, size
        assert canonical_box_size > 0, canonical_box_size
        levels = [-math.log2(scale) for scale in scales]
        if any(level != levels[0] + idx or level != int(level) for idx, level in enumerate(levels)):
            raise InputError(
                f"features of strides {[1 / scale for scale in scales]}: a pooler needs powers of 2, doubling"
            )
        self.output_size = size
        self.level_poolers = nn.ModuleList(
            _POOLERS[pooler_type](size, scale, sampling_ratio) for scale in scales
        )
        self.min_level, self.max_level = int(levels[0]), int(levels[-1])
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def forward(self, x: Sequence[torch.Tensor], box_lists: Sequence[Boxes]) -> torch.Tensor:
        """Pool.

        Args:
            x: L feature maps (N, C, Hi, Wi).
            box_lists: N `Boxes`, in image pixels.

        Returns:
            (R, C, output height, output width) in the order of the boxes, on the graph for R = 0 too.
        """
        assert len(x) == len(self.level_poolers), (
            f"{len(x)} feature maps for {len(self.level_poolers)} levels"
        )
        assert len(box_lists) == x[0].shape[0], f"{len(box_lists)} box lists for {x[0].shape[0]} images"
        if len(box_lists) == 0:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        rois = convert_boxes_to_pooler_format(box_lists)  # (R, 5)
        if len(self.level_poolers) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )  # (R,)
        # Sorted by level, the boxes of each level are one slice; only the slices' sizes come to the host.
        order = torch.argsort(levels, stable=True)
        counts = (levels == torch.arange(len(x), device=levels.device)[:, None]).sum(dim=1).tolist()
        rois_of_levels = rois[order].split(counts)
        pooled = [
            pooler(feature, of_level)
            for pooler, feature, of_level in zip(self.level_poolers, x, rois_of_levels, strict=True)
        ]
        if torch.jit.is_tracing():  # a graph holds no Python
            return torch.cat(pooled)[torch.argsort(order)]
        return _PutInPlace.apply(order, *pooled)  # (R, C, height, width)


class _PutInPlace(torch.autograd.Function):
    """Parts (Ri, C, H, W), whose rows belong at the places `order` (R,), as one (R, C, H, W).

    As `cat` and an index, which would copy everything twice: half of what RoIAlign itself takes on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, order: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        largest = max(parts, key=len)
        ctx.save_for_backward(order)
        ctx.counts = [len(part) for part in parts]
        is_usual = largest.is_contiguous()
        memory_format = torch.contiguous_format if is_usual else torch.channels_last
        shape = (len(order), *largest.shape[1:])
        out = torch.empty(shape, dtype=largest.dtype, device=largest.device, memory_format=memory_format)
        for places, part in zip(order.split(ctx.counts), parts, strict=True):
            out[places] = part
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (order,) = ctx.saved_tensors
        return (None, *(grads[0][places] for places in order.split(ctx.counts)))
