"""Operations, activations and unused parameters of a model, on inputs in the model's own format.

fvcore counts what `torch.jit.trace` sees, which knows tensors alone. Here the inputs are any nest of lists
and dicts, as models take them, and whatever tensors the output holds are what is traced to.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import fvcore.nn
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from panomask.structures import Boxes, Instances

FREE_OPERATIONS = (
    *("aten::add", "aten::add_", "aten::all", "aten::argmax", "aten::argsort", "aten::clone"),
    *("aten::constant_pad_nd", "aten::div", "aten::div_", "aten::exp", "aten::isfinite", "aten::log2"),
    *("aten::max_pool2d", "aten::meshgrid", "aten::mul", "aten::mul_", "aten::neg", "aten::pad"),
    *("aten::nonzero_numpy", "aten::resolve_conj", "aten::resolve_neg"),
    *("aten::reciprocal", "aten::repeat_interleave", "aten::rsqrt", "aten::rsub", "aten::sigmoid"),
    *("aten::sigmoid_", "aten::softmax", "aten::sort", "aten::sqrt", "aten::sub", "aten::topk"),
    *("aten::unflatten", "torchvision::nms"),
)
"""What counts nothing, in Detectron2 as here; naming it keeps fvcore from warning of it."""


class _Traceable(nn.Module):
    """`model(inputs)` as a function of the tensors in `inputs` that returns the tensors of the output."""

    def __init__(self, model: nn.Module, inputs: Any):
        super().__init__()
        self.model = model
        self._inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = _replace_tensors(self._inputs, iter(tensors))
        output = self.model(*inputs) if isinstance(inputs, tuple) else self.model(inputs)
        return tuple(_tensors_of(output))


class FlopCountAnalysis(fvcore.nn.FlopCountAnalysis):
    """fvcore's count of multiply-adds for a model and an input such as `[{"image": tensor}]`.

    Args:
        model: in evaluation mode, for the cost of inference.
        inputs: what the model is called with; a tuple is its positional arguments.
    """

    def __init__(self, model: nn.Module, inputs: Any):
        super().__init__(*_traceable(model, inputs))
        self.set_op_handle(**dict.fromkeys(FREE_OPERATIONS))


def flop_count_operators(model: nn.Module, inputs: list[Any]) -> defaultdict[str, float]:
    """Giga-flops of one inference, by kind of operation. The model's mode is as before afterwards."""
    return _in_evaluation_mode(
        model, lambda: {op: n / 1e9 for op, n in FlopCountAnalysis(model, inputs).by_operator().items()}
    )


def activation_count_operators(
    model: nn.Module, inputs: list[Any], *, supported_ops: dict[str, Any] | None = None
) -> defaultdict[str, float]:
    """Millions of output elements of the convolutions and matrix products of one inference, by operation.

    `supported_ops` are fvcore's handles of further operations. The model's mode is as before afterwards.
    """
    counts = fvcore.nn.ActivationCountAnalysis(*_traceable(model, inputs))
    counts.set_op_handle(**(supported_ops or {})).unsupported_ops_warnings(False)  # most count nothing
    return _in_evaluation_mode(model, lambda: {op: n / 1e6 for op, n in counts.by_operator().items()})


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Names of the parameters that get no gradient from a training step on `inputs`.

    Gradients are lost. A tuple is the model's positional arguments.
    """
    assert model.training, "losses are what training returns"
    model.zero_grad(set_to_none=True)
    losses = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    total: Any = sum(losses.values()) if isinstance(losses, dict) else losses
    total.backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return unused


def _traceable(model: nn.Module, inputs: Any) -> tuple[_Traceable, tuple[torch.Tensor, ...]]:
    if isinstance(model, DistributedDataParallel | DataParallel):
        model = model.module
    return _Traceable(model, inputs), tuple(_tensors_of(inputs))


def _in_evaluation_mode(model: nn.Module, count: Any) -> defaultdict[str, float]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return defaultdict(float, count())
    finally:
        model.train(was_training)


def _tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nest of lists, tuples, dicts and structures, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_of(item)
    elif isinstance(value, Instances):
        yield from _tensors_of(value.get_fields())
    elif isinstance(value, Boxes):
        yield value.tensor


def _replace_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """A copy of the nest with `tensors` in the place of its own, in the order of `_tensors_of`."""
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {key: _replace_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_replace_tensors(item, tensors) for item in value])
    if isinstance(value, Instances):
        return Instances(value.image_size, **_replace_tensors(value.get_fields(), tensors))
    return Boxes(next(tensors)) if isinstance(value, Boxes) else value
