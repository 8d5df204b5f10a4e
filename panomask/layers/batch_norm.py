"""Norm layers, and `get_norm` that finds them by the names used in configs.

Shapes: N images, C channels, H x W cells.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from panomask.errors import InputError, nearest_names

GROUP_NORM_GROUPS = 32


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and terms: y = (x - mean) / sqrt(var + eps) * weight + bias.

    All four vectors are buffers: nothing here is trained or updated. A fresh layer is the identity. A layer
    made from a trainable norm keeps that norm's `num_batches_tracked`, as Detectron2's state dicts do.
    """

    _version = 3

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), same dtype."""
        if not x.requires_grad:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        # Unlike F.batch_norm this keeps no activation for backward. torch.addcmul would be faster still, but
        # rounds once instead of twice: enough to turn a near tie among the proposals of a golden run.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return (x * scale.to(x.dtype)[:, None, None]).add_(shift.to(x.dtype)[:, None, None])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """Also read nn.BatchNorm2d entries, and old files with statistics folded into weight and bias.

        `num_batches_tracked` may be in the file or here or in both: nothing is computed from it.
        """
        if self.num_batches_tracked is None:
            state_dict.pop(prefix + "num_batches_tracked", None)
        else:
            state_dict.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)
        version = local_metadata.get("version")
        if version is None or version < 2:
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm2d and SyncBatchNorm inside `module` by a frozen copy.

        Children are replaced in place; the return value differs from `module` only if that is a norm itself.
        """
        return _replace_modules(module, (nn.BatchNorm2d, nn.SyncBatchNorm), cls)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """The reverse of `convert_frozen_batchnorm`: trainable BatchNorm2d copies."""
        return _replace_modules(module, (cls,), nn.BatchNorm2d)


def _replace_modules(
    module: nn.Module, old_types: tuple[type[nn.Module], ...], new_type: Callable[..., nn.Module]
) -> nn.Module:
    if not isinstance(module, old_types):
        for name, child in module.named_children():
            new_child = _replace_modules(child, old_types, new_type)
            if new_child is not child:
                setattr(module, name, new_child)
        return module
    new = new_type(module.num_features, eps=module.eps)
    assert isinstance(module.running_mean, Tensor)
    new.to(module.running_mean)
    if module.num_batches_tracked is not None:
        assert isinstance(module.num_batches_tracked, Tensor)
        new.num_batches_tracked = module.num_batches_tracked.clone()
    own = new.state_dict()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key in own:  # a norm without affine terms has no weight and bias: ones and zeros stay
                own[key].copy_(value)
    return new.train(module.training)


class LayerNorm(nn.Module):
    """Layer norm over the channels of (N, C, H, W), each cell on its own (ConvNeXt, arXiv:2201.03545)."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        channels_last = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        out = F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps)
        return out.permute(0, 3, 1, 2)


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes; the gradient of a sum is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        grad = grad_outputs[0].clone()
        dist.all_reduce(grad)
        return grad


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _synchronized_batch_norm(x: Tensor, norm: nn.modules.batchnorm._BatchNorm, by_samples: bool) -> Tensor:
    """Training-mode batch norm over the batches of all processes; updates the running statistics of `norm`.

    Every process counts once, or, `by_samples`, as often as it has images (possibly none).
    """
    channels = x.shape[1]
    stats_input = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.shape[0] == 0:  # zeros; the sum of nothing attaches them to the graph
        vector = stats_input.new_zeros(2 * channels + 1) + stats_input.sum()
    else:
        mean = stats_input.mean(dim=(0, 2, 3))
        square = (stats_input * stats_input).mean(dim=(0, 2, 3))
        vector = torch.cat([mean, square, mean.new_ones(1)])
    vector = _AllReduceSum.apply(vector * (x.shape[0] if by_samples else 1))
    count = vector[-1].detach()
    mean, square = (vector[:-1] / count.clamp(min=1)).split(channels)
    var = square - mean * mean

    scale = (var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
        shift = norm.bias - mean * scale
    else:
        shift = -mean * scale
    if norm.track_running_stats:
        momentum = count.clamp(max=1) * norm.momentum  # 0 where no process had an image
        with torch.no_grad():
            norm.running_mean += momentum * (mean - norm.running_mean)
            norm.running_var += momentum * (var - norm.running_var)
    return (stats_input * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, in plain differentiable tensor calls.

    Differs from `nn.SyncBatchNorm` in two ways: it runs on any device, and it keeps the biased variance.

    Args:
        stats_mode: "" counts every process once, whatever its batch holds (then no batch may be empty);
            "N" weights each process by its number of images.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert stats_mode in ("", "N"), stats_mode
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training or _num_processes() == 1:
            return super().forward(input)
        assert self._stats_mode == "N" or input.shape[0] > 0, "an empty batch needs stats_mode='N'"
        return _synchronized_batch_norm(input, self, by_samples=self._stats_mode == "N")


class SyncBatchNorm(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` that also synchronises on the CPU, where torch's own refuses to run."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if input.is_cuda or not self.training or _num_processes() == 1:
            return super().forward(input)
        return _synchronized_batch_norm(input, self, by_samples=True)


class CycleBatchNormList(nn.ModuleList):
    """Batch norms that take turns, one for each level of a pyramid, with one common scale and shift.

    A head that all levels share sees another distribution on each: every level gets statistics of its own.
    The first call goes through the first norm, the second through the second, and so on, round and round.

    Args:
        length: how many.
        bn_class: the class of the norms.
        kwargs: of `bn_class`, `num_features` at least; without `affine` False there is a scale and a shift.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, length: int, bn_class: Callable[..., nn.Module] = nn.BatchNorm2d, **kwargs: Any):
        self._affine = kwargs.pop("affine", True)
        super().__init__([bn_class(**kwargs, affine=False) for _ in range(length)])
        if self._affine:
            self.weight = nn.Parameter(torch.ones(kwargs["num_features"]))
            self.bias = nn.Parameter(torch.zeros(kwargs["num_features"]))
        self._pos = 0

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        normed = self[self._pos](x)
        self._pos = (self._pos + 1) % len(self)
        if not self._affine:
            return normed
        return normed * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"affine={self._affine}"


def _group_norm(channels: int) -> nn.GroupNorm:
    if channels % GROUP_NORM_GROUPS:
        raise InputError(
            f"norm 'GN' splits the channels into {GROUP_NORM_GROUPS} groups, but this layer has {channels};"
            f" make the channel count a multiple of {GROUP_NORM_GROUPS} or choose another norm"
        )
    return nn.GroupNorm(GROUP_NORM_GROUPS, channels)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": _group_norm,
    "LN": LayerNorm,
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """The norm layer that a config names.

    Args:
        norm: "" or None for no norm, one of the names above, or a callable given the channel count.

    Raises:
        InputError: an unknown name, or a channel count that the norm cannot have.
    """
    if norm is None or norm == "":
        return None
    if not isinstance(norm, str):
        return norm(out_channels)
    if norm not in _NORMS:
        near = nearest_names(norm, _NORMS)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"unknown norm {norm!r}.{hint} Known: {', '.join(_NORMS)}, or '' for none.")
    return _NORMS[norm](out_channels)
