"""A device that is none: tensors that say they are elsewhere, compute on the CPU, and tell who waits.

On a GPU a call queues work and returns, until one needs a number or a size from there: that one waits until
the queue is empty. Within `StandInDevice` the device "meta" computes, and each call that would wait on a GPU
is noted with the place in panomask that it comes from: code is tested as a GPU runs it where there is none.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

import panomask

DEVICE = torch.device("meta")
_PACKAGE = Path(panomask.__file__).parent
_RESULT_FOR_THE_HOST = """
    _local_scalar_dense _unique2 bincount equal histc is_nonzero masked_select multinomial nms nonzero
    repeat_interleave unique_consecutive unique_dim
""".split()
"""Operations that give the host a number, or a tensor of a size that depends on values."""
_INDEXING = ("_index_put_impl_", "_unsafe_index", "index", "index_put", "index_put_")


class StandInTensor(torch.Tensor):
    """A tensor on the stand-in; `held` are its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "StandInTensor":
        out = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        out.held = held
        return out

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, lambda what: None)

    def tolist(self) -> Any:
        return self.cpu().tolist()


class StandInDevice(TorchDispatchMode):
    """Within, `DEVICE` computes. `waits` holds (what, "file.py:function") of the calls that waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[str, str]] = []
        self._constants = _Constants()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, lambda what: self.waits.append((what, _place())))

    def __enter__(self) -> "StandInDevice":
        self._constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._constants.__exit__(*error)


class _Constants(TorchFunctionMode):
    """Numbers of Python as tensors of the device: made on the host and copied, as on a GPU.

    For the device "meta" torch throws their values away before a dispatch mode sees them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_new = func is torch.Tensor.new_tensor
        device = kwargs.get("device", args[0].device if is_new else None)
        if device is None or torch.device(device) != DEVICE:
            return func(*args, **kwargs)
        if not is_new and func not in (torch.tensor, torch.as_tensor):
            return func(*args, **kwargs)
        dtype = kwargs.get("dtype", args[0].dtype if is_new else None)
        return torch.as_tensor(args[-1], dtype=dtype).to(DEVICE)


def move_to_stand_in(model: torch.nn.Module) -> torch.nn.Module:
    """The model on the device, in place. `model.to` cannot exchange tensors for ones of another class."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                moved = StandInTensor(value.detach())
                module._parameters[name] = torch.nn.Parameter(moved, value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = StandInTensor(value)
    return model


def _place() -> str:
    """The innermost line of panomask among the callers."""
    frames = [x for x in traceback.extract_stack() if Path(x.filename).is_relative_to(_PACKAGE)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""


def _run(func: Any, args: Any, kwargs: dict[str, Any], note: Callable[[str], None]) -> Any:
    """Call an operation of torch with what the tensors hold, and put its results where they belong."""
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    target = kwargs.get("device")
    is_result_there = any(map(_is_there, tensors)) if target is None else torch.device(target) == DEVICE
    if is_result_there or any(map(_is_there, tensors)):
        why = _why_it_waits(func.overloadpacket.__name__, args, kwargs, is_result_there)
        if why is not None:
            note(why)
    if is_result_there and target is not None:
        kwargs = {**kwargs, "device": "cpu"}
    originals = {id(_held(x)): x for x in tensors}
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))

    def put(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or id(x) in originals:  # an operation in place
            return originals.get(id(x), x)
        return StandInTensor(x) if is_result_there else x

    return tree_map(put, out)


def _is_there(x: Any) -> bool:
    return isinstance(x, StandInTensor)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, StandInTensor) else x


def _why_it_waits(name: str, args: Any, kwargs: dict[str, Any], is_result_there: bool) -> str | None:
    """What an operation would wait for on a GPU; None for nothing.

    Raises RuntimeError, as a GPU would, when tensors of the host and of the device are mixed.
    """
    if name in _RESULT_FOR_THE_HOST:
        return name
    if name in ("_to_copy", "copy_"):
        is_source_there = _is_there(args[0] if name == "_to_copy" else args[1])
        target_there = is_result_there if name == "_to_copy" else _is_there(args[0])
        if is_source_there == target_there:
            return None
        is_free = not is_source_there and (kwargs.get("non_blocking") or args[2:] == (True,))
        return None if is_free else f"copy to the {'host' if is_source_there else 'device'}"
    if name in _INDEXING:
        return _why_indexing_waits(name, args)
    on_host = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor) and not _is_there(x)]
    if any(x.dim() > 0 for x in on_host):  # a single number of the host may take part in anything
        raise RuntimeError(f"{name}: tensors on the host and on the device, {[x.shape for x in on_host]}")
    return None


def _why_indexing_waits(name: str, args: Any) -> str | None:
    indices = [x for x in args[1] if x is not None]
    if not all(map(_is_there, indices)):
        return "index from the host"
    if not any(x.dtype in (torch.bool, torch.uint8) for x in indices):
        return None
    # torch turns `x[mask] = number` into `masked_fill_`.
    is_fill = name.startswith("index_put") and len(indices) == 1 and args[2].numel() == 1
    return None if is_fill else "index by a mask"
