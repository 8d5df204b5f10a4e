"""Batch norms with fixed statistics, as part of the convolution before them."""

from typing import Any

import torch
from torch import Tensor, nn

from panomask.layers.batch_norm import FrozenBatchNorm2d, NaiveSyncBatchNorm, SyncBatchNorm

_BATCH_NORMS = {
    kind.forward for kind in (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm, NaiveSyncBatchNorm)
}
"""By their methods, not their types: a subclass with another one does something else."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fixed_scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """What a batch norm does as long as its statistics stay: y = x * scale + shift, both (C,).

    None for a norm that computes statistics of its input, for one with a `forward` of its own, and for one
    that somebody watches: by hooks, or by tracing the model, whose graph is to have the norm in it.
    """
    is_frozen = type(norm).forward is FrozenBatchNorm2d.forward
    is_fixed = is_frozen or (
        type(norm).forward in _BATCH_NORMS and not norm.training and norm.running_var is not None
    )
    if not is_fixed or "forward" in vars(norm) or _is_watched(norm) or torch.jit.is_tracing():
        return None
    terms: Any = norm  # of any of these classes
    scale = (terms.running_var + terms.eps).rsqrt()
    scale = scale if terms.weight is None else scale * terms.weight
    shift = -terms.running_mean * scale
    return scale, shift if terms.bias is None else shift + terms.bias


def _is_watched(module: nn.Module) -> bool:
    """Whether hooks are to be called with what goes into the module or comes out of it."""
    everywhere = (f"_global{name}" for name in _HOOKS)  # those of register_module_forward_hook and its kin
    return any(getattr(module, name) for name in _HOOKS) or any(
        getattr(torch.nn.modules.module, name) for name in everywhere
    )
