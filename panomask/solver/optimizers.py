"""Optimizers, their parameter groups, and gradient clipping."""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import clip_grad_value_

from panomask.config import CfgNode
from panomask.errors import InputError

NORM_TYPES = (
    nn.modules.batchnorm._BatchNorm,  # 1d, 2d, 3d and SyncBatchNorm
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
"""Layers whose parameters decay by WEIGHT_DECAY_NORM."""

_Optimizer = TypeVar("_Optimizer", torch.optim.Optimizer, type[torch.optim.Optimizer])


class GradientClipType(Enum):
    """How SOLVER.CLIP_GRADIENTS clips the gradient of each parameter."""

    VALUE = "value"  # every element to [-CLIP_VALUE, CLIP_VALUE]
    NORM = "norm"  # the whole to a NORM_TYPE-norm of at most CLIP_VALUE


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of SOLVER.OPTIMIZER over the parameters of `model` that require a gradient.

    It is one of torch's fused ones where the parameters allow it: one pass over memory instead of five to
    ten, the same numbers within float32's rounding. `load_state_dict` takes states of any implementation.

    Raises InputError for an unknown optimizer or clipping type, for settings that torch refuses, and for a
    model without anything to train.
    """
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    if not groups:
        raise InputError(f"nothing to train: no parameter of {type(model).__name__} requires a gradient")
    try:
        optimizer = _build_plain_optimizer(cfg, groups)
    except ValueError as error:
        raise InputError(f"SOLVER: {error}") from error
    optimizer.register_load_state_dict_pre_hook(_keep_implementation)
    if optimizer.defaults["fused"]:
        optimizer.register_step_pre_hook(_align_layouts)
    return maybe_add_gradient_clipping(cfg, optimizer)


def _build_plain_optimizer(cfg: CfgNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    shared = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, "fused": _may_be_fused(groups)}
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(groups, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **shared)
    if solver.OPTIMIZER == "ADAMW":
        return torch.optim.AdamW(groups, betas=tuple(solver.ADAMW_BETAS), **shared)
    raise ValueError(f"OPTIMIZER is {solver.OPTIMIZER!r}; allowed are 'SGD', 'ADAMW'")


def _may_be_fused(groups: list[dict[str, Any]]) -> bool | None:
    """Whether torch has a fused step for all parameters; None, torch's own choice, where it has not."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    is_plain = all(
        type(x) is nn.Parameter
        and x.is_floating_point()
        and x.device.type in ("cpu", "cuda")
        and _fills_its_memory(x)
        for x in parameters
    )
    return is_plain or None


def _fills_its_memory(value: torch.Tensor) -> bool:
    """Whether no memory lies between its elements, nor one element in two places."""
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return value.numel() in (0, last + 1)


def _keep_implementation(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """What is loaded, without how the step was computed where it was saved.

    A state dict of torch holds `fused` and `foreach` beside the learning rate. Those of an older panomask or
    of Detectron2 would bring the slow step back, or mix both ways of keeping AdamW's step count.
    """
    own = ({name: group[name] for name in ("fused", "foreach")} for group in optimizer.param_groups)
    groups = [{**saved, **ours} for saved, ours in zip(state_dict["param_groups"], own, strict=False)]
    groups += state_dict["param_groups"][len(groups) :]  # too many groups: torch says so
    return {**state_dict, "param_groups": groups}


@torch.no_grad()
def _align_layouts(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Lay gradients and states out in memory as their parameters are.

    torch's fused steps go through memory in order. On the CPU (2.14) they take wrong numbers, without an
    error, where an element has another place in one of them: a state that was saved before the model became
    channels_last, a gradient that the user assigned.
    """
    for parameter in _with_gradient(optimizer):
        assert parameter.grad is not None
        if not _is_laid_out_as(parameter, parameter.grad):
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            is_like = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if is_like and not _is_laid_out_as(parameter, value):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _is_laid_out_as(parameter: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the elements of both follow each other in the same order; a dimension of one has no order."""
    if parameter.stride() == value.stride():
        return True
    strides = zip(parameter.shape, parameter.stride(), value.stride(), strict=True)
    return all(size == 1 or ours == theirs for size, ours, theirs in strides)


def _with_gradient(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [x for group in optimizer.param_groups for x in group["params"] if x.grad is not None]


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer: every parameter that requires a gradient, once.

    Args:
        base_lr, weight_decay: of parameters that nothing below concerns; None: the optimizer's own.
        weight_decay_norm: weight decay of the parameters of normalisation layers; None: as for others.
        bias_lr_factor: learning rate of parameters named "bias", as a multiple of `base_lr`.
        weight_decay_bias: weight decay of parameters named "bias", in normalisation layers too; None: as for
            others.
        lr_factor_func: a parameter's full name -> the factor on its learning rate.
        overrides: a parameter's last name, such as "embedding" -> {hyperparameter: value}; these come last.

    Returns:
        Groups `{"params": [...], hyperparameter: value, ...}`, one for each set of hyperparameters, in the
        order in which the model first has them.

    Raises ValueError when a factor is given without `base_lr`, or when `overrides` has "bias" beside
    arguments above that concern biases.
    """
    overrides = dict(overrides or {})
    bias: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        if base_lr is None:
            raise ValueError("bias_lr_factor needs base_lr")
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if bias and "bias" in overrides:
        raise ValueError("overrides for 'bias' conflict with bias_lr_factor or weight_decay_bias")
    if bias:
        overrides["bias"] = bias
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func needs base_lr")

    params: list[dict[str, Any]] = []
    for full_name, module, name, parameter in _trainable_parameters(model):
        hyperparameters: dict[str, Any] = {}
        if base_lr is not None:
            hyperparameters["lr"] = base_lr * (lr_factor_func(full_name) if lr_factor_func else 1.0)
        if weight_decay is not None:
            hyperparameters["weight_decay"] = weight_decay
        if weight_decay_norm is not None and isinstance(module, NORM_TYPES):
            hyperparameters["weight_decay"] = weight_decay_norm
        hyperparameters.update(overrides.get(name, {}))
        params.append({"params": [parameter], **hyperparameters})
    return reduce_param_groups(params)


def _trainable_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """(full name, module, last name, parameter) of all that learn; a shared one at its first place."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield f"{module_name}.{name}".lstrip("."), module, name, parameter


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins groups with equal hyperparameters: few large groups let torch update many parameters at once."""
    joined: dict[frozenset[tuple[str, Any]], dict[str, Any]] = {}
    for group in params:
        hyperparameters = {name: value for name, value in group.items() if name != "params"}
        target = joined.setdefault(frozenset(hyperparameters.items()), {"params": [], **hyperparameters})
        members = group["params"]
        target["params"].extend([members] if isinstance(members, torch.Tensor) else members)
    return list(joined.values())


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: _Optimizer) -> _Optimizer:
    """`optimizer`, an instance or a class, clipping gradients before each step as SOLVER.CLIP_GRADIENTS says.

    An instance is changed in place and returned; of a class a subclass is returned. Gradients are clipped for
    each parameter by itself. Raises InputError for an unknown CLIP_TYPE.
    """
    clip = _build_clipper(cfg)
    if clip is None:
        return optimizer

    def clip_all(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = _with_gradient(optimizer)
        if parameters:
            _take_scale_off(optimizer, parameters)
            clip(parameters)

    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer.register_step_pre_hook(clip_all)
        return optimizer

    class WithGradientClipping(optimizer):  # type: ignore[valid-type,misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.register_step_pre_hook(clip_all)

    WithGradientClipping.__name__ = f"{optimizer.__name__}WithGradientClipping"
    return WithGradientClipping


@torch.no_grad()
def _take_scale_off(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Divide the gradients by the scale of a GradScaler that left this to the optimizer.

    It does so to fused optimizers, which divide in their step: too late for limits on gradients.
    """
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        torch._foreach_mul_(_gradients(parameters), scale.double().reciprocal().float())
        optimizer.grad_scale = None  # type: ignore[attr-defined]


def _build_clipper(cfg: CfgNode) -> Callable[[list[nn.Parameter]], Any] | None:
    """What clips the gradients of parameters in place, each by itself; None if nothing is to be clipped."""
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if not clipping.ENABLED:
        return None
    limit, norm_type = float(clipping.CLIP_VALUE), float(clipping.NORM_TYPE)
    if clipping.CLIP_TYPE == GradientClipType.VALUE.value:
        return lambda parameters: clip_grad_value_(parameters, limit)
    if clipping.CLIP_TYPE == GradientClipType.NORM.value:
        return lambda parameters: _clip_each_norm(parameters, limit, norm_type)
    raise InputError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clipping.CLIP_TYPE!r}; allowed are 'value', 'norm'"
    )


@torch.no_grad()
def _clip_each_norm(parameters: list[nn.Parameter], limit: float, norm_type: float) -> None:
    """`torch.nn.utils.clip_grad_norm_` on each parameter by itself, in a few calls for all of them.

    On a GPU a call costs as much time as a small parameter; a loop makes hundreds of them a step.
    """
    grads = _gradients(parameters)
    factors = list(torch._foreach_norm(grads, norm_type))
    torch._foreach_add_(factors, 1e-6)  # as in torch's function
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, limit)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(grads, factors)


def _gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [x.grad for x in parameters if x.grad is not None]
