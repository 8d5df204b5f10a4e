"""Torch layers and functions with the few additions that detection code needs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panomask.layers.norm_folding import fixed_scale_and_shift


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` followed by an optional norm and an optional activation.

    State-dict keys: `weight`, `bias` (unless `bias=False`), `norm.*`.

    A batch norm whose statistics are fixed scales the weights instead of the output, where those are fewer
    numbers. That is done anew in each forward: nothing is kept that could be out of date.

    Args:
        norm: a module applied to the output, or None.
        activation: a callable applied last, or None.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W')."""
        terms = None if self.norm is None else fixed_scale_and_shift(self.norm)
        if terms is not None and self._has_fewer_weights_than_outputs(x):
            scale, shift = terms
            weight = (self.weight * scale[:, None, None, None]).to(self.weight.dtype)
            bias = shift if self.bias is None else torch.addcmul(shift, self.bias, scale)
            x = self._conv_forward(x, weight, bias.to(weight.dtype))
        else:
            x = super().forward(x)
            x = x if self.norm is None else self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    def _has_fewer_weights_than_outputs(self, x: Tensor) -> bool:
        """Of a graph that is compiled for all sizes, this is said to hold for all."""
        if torch.compiler.is_compiling():
            return True
        cells = x.shape[0] * x.shape[2] * x.shape[3] // (self.stride[0] * self.stride[1])
        return self.weight.numel() <= self.out_channels * cells


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, wider types as they are: of what leaves a network, to be computed with.

    Half precision cannot hold pixel coordinates above a few hundred exactly enough, to begin with.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat` that hands a single tensor through without copying it."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Index tensors of the nonzero entries, one a dimension; a 0-d tensor counts as one entry."""
    return (x.unsqueeze(0) if x.dim() == 0 else x).nonzero(as_tuple=True)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """`src` on the device of `dst`."""
    return src.to(dst.device)


def shapes_to_tensor(x: Sequence[int], device: torch.device | None = None) -> Tensor:
    """A list of ints as an int64 tensor (L,)."""
    return torch.as_tensor(x, dtype=torch.int64, device=device)


def empty_input_loss_func_wrapper(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make the "mean" of a loss over nothing zero, attached to the graph, instead of NaN."""

    @functools.wraps(loss_func)
    def wrapped(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any) -> Tensor:
        if target.numel() == 0 and reduction == "mean":
            return 0.0 * input.sum()
        return loss_func(input, target, reduction=reduction, **kwargs)

    return wrapped


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)
"""`torch.nn.functional.cross_entropy` whose mean over nothing is zero, attached to the graph."""
