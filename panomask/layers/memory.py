"""Second chances for calls that fill the GPU."""

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger(__name__)


def retry_if_cuda_oom(func: Callable[P, R]) -> Callable[P, R]:
    """Make `func` survive a full GPU: try again with torch's cache emptied, then on the CPU.

    `func` must be safe to call more than once. On the last try everything among its arguments that has a CUDA
    `device` and a `to` (tensors, `Boxes`, ...) is moved, not what is nested deeper; so the result is there.
    """

    @functools.wraps(func)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            logger.warning("GPU memory is full: %s goes on with its arguments on the CPU", func)
        return func(
            *(_to_cpu(value) for value in args),  # type: ignore[arg-type]
            **{name: _to_cpu(value) for name, value in kwargs.items()},  # type: ignore[arg-type]
        )

    return wrapped


def _to_cpu(value: Any) -> Any:
    device = getattr(value, "device", None)
    is_on_gpu = isinstance(device, torch.device) and device.type == "cuda" and hasattr(value, "to")
    return value.to(device="cpu") if is_on_gpu else value
