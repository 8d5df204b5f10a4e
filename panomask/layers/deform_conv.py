"""Deformable convolution, versions 1 (Dai et al. 2017, arXiv:1703.06211) and 2 (Zhu et al. 2018,
arXiv:1811.11168).

Shapes: N images, C channels, H x W cells in, H' x W' out; G groups of channels that share their offsets;
P = kernel height * kernel width sampling points.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torchvision.ops import deform_conv2d

Size = int | tuple[int, int]


class _DeformableConv(nn.Module):
    """What both versions share: the weights, torchvision's operator, a norm and an activation behind it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size,
        dilation: Size,
        groups: int,
        deformable_groups: int,
        bias: bool,
        norm: nn.Module | None,
        activation: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        assert in_channels % groups == 0, f"{in_channels} input channels are no multiple of {groups} groups"
        assert out_channels % groups == 0, (
            f"{out_channels} output channels are no multiple of {groups} groups"
        )
        assert in_channels % deformable_groups == 0, (
            f"{in_channels} input channels are no multiple of {deformable_groups} deformable groups"
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.norm = norm
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def _convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        num_points = self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]  # G P
        assert offset.shape[1] == 2 * num_points, (offset.shape, num_points)
        assert mask is None or mask.shape[1] == num_points, (mask.shape, num_points)
        # Offsets lose whole cells in half precision, and the CPU operator has no kernel for bfloat16.
        dtype = torch.promote_types(x.dtype, torch.float32)
        out = deform_conv2d(
            x.to(dtype),
            offset.to(dtype),
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=None if mask is None else mask.to(dtype),
        ).to(x.dtype)
        if self.norm is not None:
            out = self.norm(out)
        if self.activation is not None:
            out = self.activation(out)
        return out

    def extra_repr(self) -> str:
        return (
            f"in_channels={self.in_channels}, out_channels={self.out_channels},"
            f" kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding},"
            f" dilation={self.dilation}, groups={self.groups},"
            f" deformable_groups={self.deformable_groups}, bias={self.bias is not None}"
        )


class DeformConv(_DeformableConv):
    """Deformable convolution, version 1: each sampling point is moved by an offset of its own (equation 2).

    State-dict keys: `weight`, `norm.*`. There is no bias: `bias` must be False.

    Args:
        groups: of channels, as in `nn.Conv2d`.
        deformable_groups: G; each has its own offsets. The number of offset channels must be 2 G P.
        norm: a module applied to the output, or None.
        activation: a callable applied last, or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        assert not bias, "DeformConv has no bias"
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups)
        super().__init__(*sizes, bias, norm, activation)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """(N, C, H, W) and offsets (N, 2 G P, H', W') in cells -> (N, out_channels, H', W').

        Offsets are pairs (dy, dx), point by point in the kernel's row-major order, group by group.
        """
        return self._convolve(x, offset, None)


class ModulatedDeformConv(_DeformableConv):
    """Deformable convolution, version 2: each sampling point also has a weight (equation 1).

    State-dict keys: `weight`, `bias` (unless `bias=False`), `norm.*`. Arguments as for `DeformConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups)
        super().__init__(*sizes, bias, norm, activation)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """As `DeformConv.forward`, with the points' weights (N, G P, H', W'), usually in 0 to 1."""
        return self._convolve(x, offset, mask)
