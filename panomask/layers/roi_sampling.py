"""RoIAlign as a function (He et al., Mask R-CNN, arXiv:1703.06870, section 3).

torchvision's kernel on a GPU. On the CPU, where that kernel reads every sample of every channel apart, an
output cell is seen as what it is: a weighted sum of a few cells of the feature map, each a row of C numbers.
torch has a parallel, vectorised operation for such sums, forward and backward: `embedding_bag`.

Shapes: N images, C channels, H x W feature cells, R regions, Ho x Wo output cells, g samples along an axis of
a cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops

MIN_CHANNELS = 32
"""With fewer, rows are too short for `embedding_bag` to gain anything."""

MAX_SAMPLES = 1024
"""Along an axis of a cell. Only a box many times as large as any map has more: not worth the memory."""

MAX_WEIGHTS = 2**23
"""Weights laid out in one go: about 150 MB with what is made of them."""


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool regions: torchvision's function of this name, to 1e-5 of its numbers, sooner on the CPU.

    Args:
        input: (N, C, H, W). On the CPU quickest in channels_last; the result is channels_last then.
        boxes: (R, 5): index of the image, then xyxy; or (Ri, 4) of each image.
        output_size: (Ho, Wo), or one int for both.
        spatial_scale: feature cells per unit of the boxes.
        sampling_ratio: g; 0 or less for as many samples as the output cell has feature cells.
        aligned: shift by half a cell, so that a feature value lies at the centre of its cell.

    Returns:
        (R, C, Ho, Wo).
    """
    size = (output_size, output_size) if isinstance(output_size, int) else output_size
    if isinstance(boxes, Tensor) and _sums_are_quicker(input, boxes, size):
        start, extent = _regions(boxes, spatial_scale, aligned)
        samples = _num_samples(extent, size, sampling_ratio)
        if samples.numel() and samples.max() <= MAX_SAMPLES:  # False for NaN too
            return _sum_cells(input, boxes[:, 0].long(), start, extent, samples, size)
    return ops.roi_align(input, boxes, size, spatial_scale, sampling_ratio, aligned)


def _sums_are_quicker(input: Tensor, rois: Tensor, size: tuple[int, int]) -> bool:
    """Whether `_sum_cells` can do it and gains; a map of another memory format is copied first."""
    if input.device.type != "cpu" or input.dtype not in (torch.float32, torch.float64):
        return False
    if rois.dtype != input.dtype:  # torchvision says that this is wrong
        return False
    if torch.jit.is_tracing():  # the graph is to have RoIAlign in it
        return False
    is_ready = input.is_contiguous(memory_format=torch.channels_last)
    num_cells = input.shape[0] * input.shape[2] * input.shape[3]
    num_outputs = len(rois) * size[0] * size[1]
    return input.shape[1] >= MIN_CHANNELS and num_cells > 0 and (is_ready or 4 * num_outputs >= num_cells)


def _regions(rois: Tensor, spatial_scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """Where regions start, (R, 2), and their extents, (R, 2), in feature cells, y before x."""
    corners = rois.detach()[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start = corners[:, [1, 0]]
    extent = corners[:, [3, 2]] - start
    return start, extent if aligned else extent.clamp(min=1)


def _num_samples(extent: Tensor, size: tuple[int, int], sampling_ratio: int) -> Tensor:
    """g along both axes, (R, 2), whole numbers."""
    if sampling_ratio > 0:
        return torch.full_like(extent, sampling_ratio)
    return (extent / extent.new_tensor(size)).ceil().clamp(min=0)


def _sum_cells(
    input: Tensor, image_idx: Tensor, start: Tensor, extent: Tensor, samples: Tensor, size: tuple[int, int]
) -> Tensor:
    """The output cells as weighted sums of feature cells.

    Bilinear weights are products of one along y and one along x, so that those of a whole region are the
    outer products of two short lists.
    """
    channels, height, width = input.shape[1:]
    cells_a_side = samples.amax(dim=0) + 2  # that a cell of the output reaches, at most
    step = max(1, int(MAX_WEIGHTS / (size[0] * size[1] * cells_a_side.clamp(max=max(height, width)).prod())))
    parts = []
    for first in range(0, len(start), step):
        part = slice(first, first + step)
        axes = zip(start[part].T, extent[part].T, samples[part].T, size, (height, width), strict=True)
        (rows, row_weights), (columns, column_weights) = (_axis_weights(*axis) for axis in axes)
        rows = rows * width + image_idx[part, None, None] * (height * width)  # (R, Ho, Ky)
        cells = rows[:, :, None, :, None] + columns[:, None, :, None, :]  # (R, Ho, Wo, Ky, Kx)
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        is_read = weights != 0
        read = is_read.flatten().nonzero()[:, 0]  # once, and flat: four times as fast as masks of five axes
        counts = is_read.flatten(3).sum(dim=3).flatten()
        parts.append((cells.flatten()[read], weights.flatten()[read], counts))
    cells, weights, counts = (torch.cat(column) for column in zip(*parts, strict=True))
    rows_of_channels = input.permute(0, 2, 3, 1).reshape(-1, channels)  # (N * H * W, C)
    out = F.embedding_bag(
        cells,
        rows_of_channels,
        F.pad(counts.cumsum(0), (1, 0)),
        mode="sum",
        per_sample_weights=weights.to(input.dtype),
        include_last_offset=True,
    )
    out = out.reshape(-1, *size, channels).permute(0, 3, 1, 2)  # (R, C, Ho, Wo)
    # Who gives a map in the usual memory format may rely on it behind RoIAlign too.
    return out if input.is_contiguous(memory_format=torch.channels_last) else out.contiguous()


def _axis_weights(
    start: Tensor, extent: Tensor, samples: Tensor, num_outputs: int, num_cells: int
) -> tuple[Tensor, Tensor]:
    """Which feature cells along one axis an output cell reads, and how much of each.

    Args:
        start, extent, samples: (R,) of the regions along this axis.
        num_outputs: output cells along it, P.
        num_cells: feature cells along it.

    Returns:
        (R, P, K) int64 cells and (R, P, K) weights, whose sum is at most 1. K is the most that one reads.
    """
    # At least one, which boxes without extent do not take: a maximum over no sample would be an error.
    steps = torch.arange(max(1, int(samples.max())), dtype=start.dtype) + 0.5  # (g,)
    outputs = torch.arange(num_outputs, dtype=start.dtype)[:, None]  # (P, 1)
    start, size, samples = (x[:, None, None] for x in (start, extent / num_outputs, samples))
    # In the order of torchvision's kernel: a sample a rounding error across a border is another sample.
    position = start + outputs * size + steps * size / samples.clamp(min=1)  # (R, P, g)
    is_inside = (position >= -1) & (position <= num_cells) & (steps < samples)
    position = position.clamp(min=0, max=num_cells - 1)
    low = position.floor()
    fraction = position - low
    low = low.long()
    high = (low + 1).clamp(max=num_cells - 1)

    first = low.masked_fill(~is_inside, num_cells - 1).amin(dim=2, keepdim=True)  # (R, P, 1)
    last = high.masked_fill(~is_inside, 0).amax(dim=2, keepdim=True)
    reach = max(1, int((last - first).max()) + 1)
    share = is_inside / samples.clamp(min=1)
    weights = start.new_zeros(*first.shape[:2], reach)
    for cell, weight in ((low, share * (1 - fraction)), (high, share * fraction)):
        # Samples outside have no weight and may lie anywhere.
        weights.scatter_add_(2, (cell - first).clamp(min=0, max=reach - 1), weight)
    cells = first + torch.arange(reach)
    return cells.clamp(max=num_cells - 1), weights  # where the clamp matters, the weight is 0
