"""The stems and the blocks of RegNetX and RegNetY (Radosavovic et al. 2020, arXiv:2003.13678;
squeeze-and-excitation: Hu et al. 2017, arXiv:1709.01507).

Shapes: N images, C channels, H x W cells. Module names are those of the published weights (pycls).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from panomask.layers import CNNBlockBase, get_norm

Activation = Callable[[], nn.Module]


def run_chain(x: torch.Tensor, *modules: nn.Module | None) -> torch.Tensor:
    """One module after the other; None is left out."""
    for module in modules:
        if module is not None:
            x = module(x)
    return x


def conv2d(
    w_in: int, w_out: int, k: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A k x k convolution (k odd) with "same" padding."""
    assert k % 2 == 1, f"kernel size {k} is even: no padding keeps the size"
    return nn.Conv2d(w_in, w_out, k, stride=stride, padding=k // 2, groups=groups, bias=bias)


def gap2d() -> nn.AdaptiveAvgPool2d:
    """Global average pooling: (N, C, H, W) -> (N, C, 1, 1)."""
    return nn.AdaptiveAvgPool2d((1, 1))


def pool2d(k: int, *, stride: int = 1) -> nn.MaxPool2d:
    """A k x k max pool (k odd) with "same" padding."""
    assert k % 2 == 1, f"kernel size {k} is even: no padding keeps the size"
    return nn.MaxPool2d(k, stride=stride, padding=k // 2)


def init_weights(m: nn.Module) -> None:
    """Draw the weights of one module as RegNet's authors do (groups do not shrink the fan-out)."""
    if isinstance(m, nn.Conv2d):
        fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
        nn.init.normal_(m.weight, mean=0.0, std=math.sqrt(2.0 / fan_out))
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.ones_(m.weight)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, mean=0.0, std=0.01)
        nn.init.zeros_(m.bias)


class ResStem(CNNBlockBase):
    """ResNet's stem: a 7 x 7 convolution of stride 2 and a 3 x 3 max pool of stride 2."""

    def __init__(self, w_in: int, w_out: int, norm: Any, activation_class: Activation):
        super().__init__(w_in, w_out, 4)
        self.conv = conv2d(w_in, w_out, 7, stride=2)
        self.bn = get_norm(norm, w_out)
        self.af = activation_class()
        self.pool = pool2d(3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, w_out, H / 4, W / 4)."""
        return run_chain(x, self.conv, self.bn, self.af, self.pool)


class SimpleStem(CNNBlockBase):
    """A 3 x 3 convolution of stride 2."""

    def __init__(self, w_in: int, w_out: int, norm: Any, activation_class: Activation):
        super().__init__(w_in, w_out, 2)
        self.conv = conv2d(w_in, w_out, 3, stride=2)
        self.bn = get_norm(norm, w_out)
        self.af = activation_class()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, w_out, H / 2, W / 2)."""
        return run_chain(x, self.conv, self.bn, self.af)


class SE(nn.Module):
    """Squeeze-and-excitation: each channel times a number computed from the averages of all (equation 4)."""

    def __init__(self, w_in: int, w_se: int, activation_class: Activation):
        super().__init__()
        self.avg_pool = gap2d()
        self.f_ex = nn.Sequential(
            conv2d(w_in, w_se, 1, bias=True),
            activation_class(),
            conv2d(w_se, w_in, 1, bias=True),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * self.f_ex(self.avg_pool(x))


class VanillaBlock(CNNBlockBase):
    """Two 3 x 3 convolutions without a shortcut."""

    def __init__(
        self, w_in: int, w_out: int, stride: int, norm: Any, activation_class: Activation, _params: dict
    ):
        super().__init__(w_in, w_out, stride)
        self.a = conv2d(w_in, w_out, 3, stride=stride)
        self.a_bn = get_norm(norm, w_out)
        self.a_af = activation_class()
        self.b = conv2d(w_out, w_out, 3)
        self.b_bn = get_norm(norm, w_out)
        self.b_af = activation_class()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        return run_chain(x, self.a, self.a_bn, self.a_af, self.b, self.b_bn, self.b_af)


class BasicTransform(nn.Module):
    """Two 3 x 3 convolutions: the residual branch of `ResBasicBlock`."""

    def __init__(
        self, w_in: int, w_out: int, stride: int, norm: Any, activation_class: Activation, _params: dict
    ):
        super().__init__()
        self.a = conv2d(w_in, w_out, 3, stride=stride)
        self.a_bn = get_norm(norm, w_out)
        self.a_af = activation_class()
        self.b = conv2d(w_out, w_out, 3)
        self.b_bn = get_norm(norm, w_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        return run_chain(x, self.a, self.a_bn, self.a_af, self.b, self.b_bn)


class BottleneckTransform(nn.Module):
    """1 x 1, grouped 3 x 3 and 1 x 1 convolution: the residual branch of `ResBottleneckBlock`.

    `params`: "bot_mul" (width of the 3 x 3 over `w_out`), "group_w" (channels of a group), "se_r" (width of
    the squeeze-and-excitation behind the 3 x 3 over `w_in`; 0 for none).
    """

    def __init__(
        self,
        w_in: int,
        w_out: int,
        stride: int,
        norm: Any,
        activation_class: Activation,
        params: dict[str, Any],
    ):
        super().__init__()
        w_b = round(w_out * params["bot_mul"])
        w_se = round(w_in * params["se_r"])
        self.a = conv2d(w_in, w_b, 1)
        self.a_bn = get_norm(norm, w_b)
        self.a_af = activation_class()
        self.b = conv2d(w_b, w_b, 3, stride=stride, groups=w_b // params["group_w"])
        self.b_bn = get_norm(norm, w_b)
        self.b_af = activation_class()
        self.se = SE(w_b, w_se, activation_class) if w_se else None
        self.c = conv2d(w_b, w_out, 1)
        self.c_bn = get_norm(norm, w_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        return run_chain(
            x, self.a, self.a_bn, self.a_af, self.b, self.b_bn, self.b_af, self.se, self.c, self.c_bn
        )


class _ResBlock(CNNBlockBase):
    """A residual branch and a shortcut, which is projected where the shape changes."""

    transform_class: Callable[..., nn.Module]

    def __init__(
        self, w_in: int, w_out: int, stride: int, norm: Any, activation_class: Activation, params: dict
    ):
        super().__init__(w_in, w_out, stride)
        self.proj, self.bn = None, None
        if w_in != w_out or stride != 1:
            self.proj = conv2d(w_in, w_out, 1, stride=stride)
            self.bn = get_norm(norm, w_out)
        self.f = self.transform_class(w_in, w_out, stride, norm, activation_class, params)
        self.af = activation_class()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, w_in, H, W) -> (N, w_out, H / stride, W / stride)."""
        return self.af(run_chain(x, self.proj, self.bn) + self.f(x))


class ResBasicBlock(_ResBlock):
    """Residual block of two 3 x 3 convolutions."""

    transform_class = BasicTransform


class ResBottleneckBlock(_ResBlock):
    """Residual block of a bottleneck: RegNetX's, and with squeeze-and-excitation RegNetY's."""

    transform_class = BottleneckTransform
