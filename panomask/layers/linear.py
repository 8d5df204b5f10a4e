"""A fully connected layer that is as quick on the CPU as convolutions are.

torch computes float32 convolutions with oneDNN and matrix products with MKL, which uses half of what some
processors can do. Seen as pixels in channels_last, the rows of a matrix go through a 1 x 1 convolution
without being copied.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_PRODUCTS = 2**28
"""Multiplications below which the choice of the library does not matter."""

MIN_ROWS_BACKWARD = 512
"""With fewer, gradients gain less than it costs to lay out the weights' transpose for them."""


class Linear(nn.Linear):
    """`torch.nn.Linear`, its keys and its numbers but for the rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # which holds plain operations
        if not is_graph and self._is_product_slow(x):
            return _PixelLinear.apply(x, self.weight, self.bias)
        return super().forward(x)

    def _is_product_slow(self, x: Tensor) -> bool:
        is_plain = x.dim() == 2 and x.dtype == self.weight.dtype == torch.float32
        is_large = is_plain and x.shape[0] * self.weight.numel() >= MIN_PRODUCTS
        is_on_cpu = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
        return is_large and is_on_cpu and not torch.is_autocast_enabled("cpu")


class _PixelLinear(torch.autograd.Function):
    """x W' + b and its gradients, three products; left to autograd, convolution's backward would be slow."""

    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        return _multiply(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        multiply = _multiply if len(x) >= MIN_ROWS_BACKWARD else _matmul
        return (
            multiply(grad, weight.T) if needs_x else None,
            multiply(grad.T, x.T) if needs_weight else None,
            grad.sum(dim=0) if needs_bias else None,
        )


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a (M, K) times the transpose of b (N, K), plus bias (N,): (M, N)."""
    pixels = a.contiguous()[None, :, None].permute(0, 3, 1, 2)  # (1, K, M, 1), channels_last
    return F.conv2d(pixels, b[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(len(a), len(b))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T
