"""RoIAlign and RoIWarp as modules (He et al., Mask R-CNN, arXiv:1703.06870, section 3 and table 2c).

Shapes: N images, C channels, R regions, Ho x Wo output cells, g x g samples in each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panomask.layers.roi_sampling import roi_align


class ROIAlign(nn.Module):
    """Average bilinear samples of a feature map on a grid inside each region, or take the largest of them.

    Args:
        output_size: (height, width) of the output, or one int for both.
        spatial_scale: feature cells per image pixel (1 / stride).
        sampling_ratio: samples per output cell along each axis; 0 for as many as the cell has feature cells.
        aligned: shift by half a cell, so that a feature value lies at the centre of its cell. False is the
            rule of the first implementations.
        aggregation: "average" or "max" of the samples of a cell. "max" holds all samples at once: g * g times
            the memory of the output.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
        aggregation: str = "average",
    ) -> None:
        super().__init__()
        assert aggregation in ("average", "max"), aggregation
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.aggregation = aggregation

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool R regions.

        Args:
            input: (N, C, H, W).
            rois: (R, 5): index of the image, then the box (x0, y0, x1, y1) in image pixels.

        Returns:
            (R, C, output height, output width) in the dtype of `input`.
        """
        assert rois.dim() == 2, rois.shape
        assert rois.size(1) == 5, rois.shape
        # Half precision would round box corners to whole pixels and more: pool in float32.
        dtype = torch.promote_types(input.dtype, torch.float32)
        rois, spatial_scale = self._regions(rois.to(dtype))
        pool = roi_align if self.aggregation == "average" else _roi_align_max
        out = pool(
            input.to(dtype),
            rois,
            self.output_size,
            spatial_scale=spatial_scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )
        return out.to(input.dtype)

    def _regions(self, rois: Tensor) -> tuple[Tensor, float]:
        """The regions to sample, (R, 5), and the feature cells in one of their units."""
        return rois, self.spatial_scale

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale},"
            f" sampling_ratio={self.sampling_ratio}, aligned={self.aligned}, aggregation={self.aggregation}"
        )


class ROIWarp(ROIAlign):
    """Bilinear samples, as RoIAlign takes them, of the whole cells that RoIPool would pool.

    What the paper compares RoIAlign with ("RoIWarp" of Dai et al., arXiv:1512.04412, in table 2c): the
    corners of a box are rounded to cells, and the region is all cells from the first to the last, both
    included. Only the cells of the output are not rounded, and their values are interpolated.

    Args:
        output_size, spatial_scale, sampling_ratio, aggregation: of `ROIAlign`; aligned by half a cell always,
            as a region of whole cells has no other sense.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aggregation: str = "average",
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned=True, aggregation=aggregation)

    def _regions(self, rois: Tensor) -> tuple[Tensor, float]:
        # Halves go up, as RoIPool rounds them; torch.round would take the even neighbour.
        first, last = (rois[:, 1:] * self.spatial_scale + 0.5).floor().split(2, dim=1)
        return torch.cat([rois[:, :1], first, torch.maximum(last, first) + 1], dim=1), 1.0


def _roi_align_max(
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    *,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """`roi_align` with the largest of a cell's samples in place of their mean.

    A grid that is g times as fine, with one sample in each cell, holds all samples; a cell is a block of it.
    """
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size

    def pool(of: Tensor, rows: int, columns: int) -> Tensor:
        fine = roi_align(input, of, (height * rows, width * columns), spatial_scale, 1, aligned)
        return F.max_pool2d(fine, (rows, columns))  # (R, C, Ho, Wo)

    if sampling_ratio > 0 or len(rois) == 0:
        return pool(rois, max(sampling_ratio, 1), max(sampling_ratio, 1))
    # As many samples as a cell of the output has feature cells, which differs from region to region: those
    # with the same numbers are pooled together.
    extents = rois[:, 3:] * spatial_scale - rois[:, 1:3] * spatial_scale
    extents = extents if aligned else extents.clamp(min=1)
    samples = (extents / extents.new_tensor([width, height])).ceil().clamp(min=1).long()  # (R, 2)
    kinds, kind_of_roi = samples.unique(dim=0, return_inverse=True)
    members = [(kind_of_roi == kind).nonzero().flatten() for kind in range(len(kinds))]
    pooled = [
        pool(rois[idx], rows, columns) for idx, (columns, rows) in zip(members, kinds.tolist(), strict=True)
    ]
    return torch.cat(pooled)[torch.argsort(torch.cat(members))]  # (R, C, Ho, Wo)
