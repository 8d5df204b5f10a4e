"""Start the processes of a training run: one for each GPU, or several on the CPU; or join torchrun's."""

import datetime
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panomask import distributed
from panomask.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others in a collective before it gives up."""

_FORWARD_SYNC = "forward_sync_buffers"
"""What newer versions of torch call the `broadcast_buffers` of DistributedDataParallel."""


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: datetime.timedelta = DEFAULT_TIMEOUT,
) -> Any:
    """Run `main_func(*args)` in every process of the run.

    With one process it is called here. With several, new processes are spawned: tensors on GPUs travel over
    NCCL, those on the CPU over gloo. Under `torchrun` the processes exist already and join the group that the
    environment describes; the numbers given here do not count then.

    Args:
        main_func: a function at module level.
        num_gpus_per_machine: processes on each machine, also without a GPU.
        num_machines: number of machines.
        machine_rank: which of them this is, from 0.
        dist_url: where the processes find each other, such as "tcp://host:port", the same on all machines;
            None or "auto" on a single machine.
        args: arguments of `main_func`.
        timeout: for collectives.

    Returns:
        What `main_func` returned, if it ran in this process; None otherwise.

    Raises:
        InputError: raised by one of the processes, or the arguments make no sense. Any other exception of a
            process is raised here with the traceback from there.
    """
    if _is_under_torchrun():
        return _run_under_torchrun(main_func, args, timeout)
    world_size = num_machines * num_gpus_per_machine
    _check_counts(num_gpus_per_machine, num_machines, machine_rank, dist_url)
    if world_size == 1:
        return main_func(*args)
    folder = tempfile.mkdtemp(prefix="panomask-launch-")
    if dist_url in (None, "auto"):
        # A file, unlike a free port, cannot be taken by another program before it is used.
        dist_url = f"file://{folder}/rendezvous"
    try:
        first_rank = machine_rank * num_gpus_per_machine
        common = (main_func, world_size, num_gpus_per_machine, first_rank, dist_url, args, timeout, folder)
        _spawn(num_gpus_per_machine, common, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _check_counts(
    num_gpus_per_machine: int, num_machines: int, machine_rank: int, dist_url: str | None
) -> None:
    if num_gpus_per_machine < 1 or num_machines < 1:
        raise InputError(
            f"--num-gpus {num_gpus_per_machine} --num-machines {num_machines}: both must be at least 1"
        )
    if not 0 <= machine_rank < num_machines:
        raise InputError(
            f"--machine-rank {machine_rank}: must be one of 0 .. {num_machines - 1} (--num-machines)"
        )
    if num_machines > 1 and dist_url in (None, "auto"):
        raise InputError("--dist-url auto works on one machine; with several give tcp://host-of-rank-0:port")


def _spawn(num_processes: int, common: tuple[Any, ...], folder: str) -> None:
    # torch would announce each process that it ends after one has failed; the error itself is enough.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    context = mp.start_processes(  # type: ignore[attr-defined]
        _run_process, common, nprocs=num_processes, join=False, start_method="spawn"
    )
    try:
        while not context.join():
            pass
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        message = _read_input_error(folder)
        if message is not None:
            raise InputError(message) from None
        if isinstance(error, mp.ProcessExitedException) and error.signal_name is None:
            raise SystemExit(error.exit_code) from None
        raise
    finally:
        for process in context.processes:
            if process.is_alive():
                process.terminate()
            process.join()


def _run_process(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    local_size: int,
    first_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: datetime.timedelta,
    folder: str,
) -> None:
    """The life of one spawned process."""
    try:
        _join_group(dist_url, first_rank + local_rank, world_size, local_rank, local_size, timeout)
        main_func(*args)
        distributed.synchronize()
    except InputError as error:
        _leave_input_error(folder, str(error))
        raise SystemExit(1) from None
    distributed.destroy_process_group()


def _leave_input_error(folder: str, message: str) -> None:
    """Hand the message to the parent; when several processes fail alike, the first one is told."""
    with suppress(FileExistsError), open(os.path.join(folder, "error"), "x", encoding="utf-8") as file:
        file.write(message)


def _read_input_error(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, "error"), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _is_under_torchrun() -> bool:
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def _run_under_torchrun(
    main_func: Callable[..., Any], args: tuple[Any, ...], timeout: datetime.timedelta
) -> Any:
    world_size = int(os.environ["WORLD_SIZE"])
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    _join_group(
        "env://", int(os.environ["RANK"]), world_size, int(os.environ["LOCAL_RANK"]), local_size, timeout
    )
    result = main_func(*args)
    distributed.synchronize()
    distributed.destroy_process_group()
    return result


def _join_group(
    dist_url: str, rank: int, world_size: int, local_rank: int, local_size: int, timeout: datetime.timedelta
) -> None:
    """Make this process number `rank` of the group, with its own GPU or its share of the CPU's cores."""
    has_gpu = torch.cuda.is_available()
    if has_gpu and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    if not has_gpu:
        torch.set_num_threads(max(1, _num_cores() // local_size))
    _use_loopback_when_alone(world_size == local_size)
    # Both backends, because MODEL.DEVICE may be the CPU on a machine with GPUs.
    backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
    dist.init_process_group(backend, dist_url, timeout=timeout, world_size=world_size, rank=rank)
    distributed.create_object_group(timeout)
    distributed.create_local_process_group(local_size)


def _use_loopback_when_alone(is_one_machine: bool) -> None:
    """gloo looks up the host's name, which fails on machines that do not know their own."""
    if not is_one_machine or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    try:
        socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        names = [name for _, name in socket.if_nameindex()]
        loopback = next((name for name in ("lo", "lo0") if name in names), None)
        if loopback:
            os.environ["GLOO_SOCKET_IFNAME"] = loopback


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _DataParallel(DistributedDataParallel):
    """Admits layers that derive from torch's SyncBatchNorm and, other than it, run on the CPU."""

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        is_torch = any(type(layer) is nn.SyncBatchNorm for layer in module.modules())
        if is_torch or self.device_type != "cpu":
            super()._passing_sync_batchnorm_handle(module)


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any) -> nn.Module:
    """Wrap `model` so that gradients are averaged over processes; with one process it is returned as it is.

    Args:
        model: on its device.
        fp16_compression: send gradients as float16.
        kwargs: for `torch.nn.parallel.DistributedDataParallel`.
    """
    if distributed.get_world_size() == 1:
        return model
    parameter = next(model.parameters())
    if "device_ids" not in kwargs and parameter.device.type == "cuda":
        kwargs["device_ids"] = [parameter.device.index]
    if "broadcast_buffers" in kwargs and _FORWARD_SYNC in signature(DistributedDataParallel).parameters:
        kwargs[_FORWARD_SYNC] = kwargs.pop("broadcast_buffers")
    wrapped = _DataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return wrapped
