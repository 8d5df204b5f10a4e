"""Ranks and collectives that also work without a process group (one process, rank 0).

Python objects travel over gloo even when tensors travel over NCCL, so that they need no GPU memory.
"""

import os
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP: Any = None
"""The processes of this machine; made by `create_local_process_group`."""

_OBJECT_GROUP: tuple[Any, Any] | None = None
"""(world group it was made for, gloo group over the same ranks); made by `create_object_group`."""


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if _is_initialized() else 1


def get_rank() -> int:
    """This process's number over all machines, from 0; 0 without a process group."""
    return dist.get_rank() if _is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process writes logs and files: rank 0."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make the group of the processes on each machine. Every rank must call this, once per process group.

    Args:
        num_workers_per_machine: processes on each machine, the same on all of them. Ranks
            `m * num_workers_per_machine ...` live on machine m.
    """
    global _LOCAL_PROCESS_GROUP
    world_size = get_world_size()
    if world_size % num_workers_per_machine:
        raise ValueError(f"{world_size} processes do not divide into machines of {num_workers_per_machine}")
    for machine in range(world_size // num_workers_per_machine):
        first = machine * num_workers_per_machine
        ranks = list(range(first, first + num_workers_per_machine))
        group = dist.new_group(ranks)
        if get_rank() in ranks:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> Any:
    """The group of this machine's processes; `launch` (or `create_local_process_group`) makes it."""
    if _LOCAL_PROCESS_GROUP is None:
        raise RuntimeError("no local process group: start the processes with panomask.engine.launch")
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """This process's number within its machine, from 0."""
    if not _is_initialized():
        return 0
    if _LOCAL_PROCESS_GROUP is None:
        return int(os.environ.get("LOCAL_RANK", get_rank()))
    return dist.get_rank(group=_LOCAL_PROCESS_GROUP)


def get_local_size() -> int:
    """Number of processes on this machine."""
    if not _is_initialized():
        return 1
    if _LOCAL_PROCESS_GROUP is None:
        return int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size()))
    return dist.get_world_size(group=_LOCAL_PROCESS_GROUP)


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() > 1:
        dist.barrier(group=_object_group())


def create_object_group(timeout: timedelta | None = None) -> None:
    """Make the gloo group over all ranks that objects travel over, unless all is gloo. Collective.

    Args:
        timeout: how long its collectives wait; gloo's default without one.
    """
    global _OBJECT_GROUP
    world = dist.group.WORLD
    is_gloo = dist.get_backend() == dist.Backend.GLOO
    _OBJECT_GROUP = (world, world if is_gloo else dist.new_group(backend="gloo", timeout=timeout))


def destroy_process_group() -> None:
    """End the process group, and forget the group of objects with it.

    A gloo group that is still held at the interpreter's exit may abort the process: its threads run on.
    """
    global _OBJECT_GROUP
    _OBJECT_GROUP = None
    dist.destroy_process_group()


def _object_group() -> Any:
    """The group of `create_object_group`, made now if nobody has made it for this world group."""
    if _OBJECT_GROUP is None or _OBJECT_GROUP[0] is not dist.group.WORLD:
        create_object_group()
    assert _OBJECT_GROUP is not None
    return _OBJECT_GROUP[1]


def all_gather(data: Any, group: Any = None) -> list[Any]:
    """Give every process the picklable `data` of all processes.

    Args:
        data: any picklable object.
        group: a process group; all ranks, over gloo, by default.

    Returns:
        One object per rank, in rank order.
    """
    if get_world_size() == 1:
        return [data]
    group = group if group is not None else _object_group()
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    output: list[Any] = [None] * size
    dist.all_gather_object(output, data, group=group)
    return output


def gather(data: Any, dst: int = 0, group: Any = None) -> list[Any]:
    """Collect the picklable `data` of all processes on rank `dst`.

    Returns:
        One object per rank, in rank order, on `dst`; an empty list elsewhere.
    """
    if get_world_size() == 1:
        return [data]
    group = group if group is not None else _object_group()
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    output: list[Any] | None = [None] * size if get_rank() == dst else None
    dist.gather_object(data, output, dst=dst, group=group)
    return output if output is not None else []


def shared_random_seed() -> int:
    """A seed in [0, 2**31) that all processes agree on: drawn from rank 0's numpy generator. Collective."""
    return all_gather(int(np.random.randint(2**31)))[0]


def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum or average scalar tensors over processes; the result is right on rank 0 only. Collective.

    Args:
        input_dict: name -> scalar tensor, the same names on every rank.
        average: divide the sums by the number of processes.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if is_main_process() and average:
            values /= world_size
        return dict(zip(names, values.unbind(), strict=True))
