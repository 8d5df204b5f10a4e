"""Random generators, and a short description of the machine for the log."""

import importlib
import logging
import os
import platform
import random
import resource
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from panomask import distributed

logger = logging.getLogger(__name__)

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
"""(major, minor)."""


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of Python, numpy and torch (CPU and GPU).

    Args:
        seed: None lets the system choose one, and logs it.
    """
    if seed is None:
        seed = secrets.randbelow(2**31)
        logger.info(f"No seed is set: the random numbers start from {seed}")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_random_state() -> dict[str, Any]:
    """The states of all generators of this process, as plain values that a checkpoint can hold."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `get_random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """What is drawn inside leaves no trace: evaluation must not change the training that goes on after it."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)


class RandomStates:
    """The generators of all processes as one entry of a checkpoint."""

    def __init__(self) -> None:
        self._of_others: dict[int, dict[str, Any]] = {}
        self._loaded: list[dict[str, Any] | None] = []

    def before_save(self) -> None:
        """Bring the states to the main process. Collective: called on all processes before saving."""
        states = distributed.gather(get_random_state())
        self._of_others = {rank: state for rank, state in enumerate(states) if rank > 0}

    def state_dict(self) -> dict[str, Any]:
        """The main process's state as it is now, the others' as of the last `before_save`."""
        world_size = distributed.get_world_size()
        others = [self._of_others.get(rank) for rank in range(1, world_size)]
        return {"ranks": [get_random_state(), *others]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep the states for `restore`; nothing changes yet, since building a loader may draw numbers."""
        self._loaded = list(state_dict["ranks"])

    def restore(self) -> None:
        """Set this process's generators as loaded; call it right before the first resumed iteration."""
        if not self._loaded:
            return
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        state = self._loaded[rank] if rank < len(self._loaded) else None
        if len(self._loaded) != world_size:
            logger.warning(
                f"the checkpoint was written by {len(self._loaded)} processes, now there are {world_size}: "
                "training goes on, but not with the same random numbers and batches"
            )
        if state is not None:
            set_random_state(state)
        self._loaded = []


def peak_memory_mib() -> float:
    """MiB, the most memory that this process has held so far: of its GPU, or of the machine without one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def summarize_environment() -> str:
    """Versions and device in one line."""
    device = f"{torch.get_num_threads()} CPU threads"
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    python = sys.version.split()[0]
    return f"panomask {_version('panomask')}, Python {python}, torch {torch.__version__}, {device}"


def collect_env_info() -> str:
    """A table of versions and hardware, to make a log reproducible."""
    rows = [
        ("Python", sys.version.split()[0]),
        ("platform", platform.platform()),
        ("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()}"),
    ]
    for name in ("panomask", "torch", "torchvision", "numpy", "cv2", "PIL", "pycocotools", "fvcore"):
        rows.append((name, _version(name)))
    if torch.cuda.is_available():
        rows.append(("CUDA", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"))
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            rows.append((f"GPU {i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    else:
        rows.append(("CUDA", "not available"))
    return tabulate(rows, tablefmt="plain")


def _version(name: str) -> str:
    try:
        return str(getattr(importlib.import_module(name), "__version__", "installed"))
    except ImportError:
        return "not installed"
