"""RoIAlign as a module (He et al., Mask R-CNN, arXiv:1703.06870, section 3)."""

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align


class ROIAlign(nn.Module):
    """Average bilinear samples of a feature map on a grid inside each region.

    Args:
        output_size: (height, width) of the output, or one int for both.
        spatial_scale: feature cells per image pixel (1 / stride).
        sampling_ratio: samples per output cell along each axis; 0 for as many as the cell has feature cells.
        aligned: shift by half a cell, so that a feature value lies at the centre of its cell. False is the
            rule of the first implementations.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

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
        out = roi_align(
            input.to(dtype),
            rois.to(dtype),
            self.output_size,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )
        return out.to(input.dtype)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale},"
            f" sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
