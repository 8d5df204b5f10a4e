"""From a device's name in a config to a device that exists."""

import functools
import logging

import torch

from panomask.errors import InputError

logger = logging.getLogger(__name__)


def resolve_device(name: str | torch.device) -> torch.device:
    """The device to use for MODEL.DEVICE.

    "cuda" (also "cuda:1", ...) means the CPU on a machine where torch finds no GPU; the log says so once.

    Raises:
        InputError: torch does not know the device, or the machine has fewer GPUs than the index asks for.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"MODEL.DEVICE {name!r} is not a device; allowed: cpu, cuda, cuda:0, cuda:1, ..."
        ) from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        _warn_about_cpu(str(name))
        return torch.device("cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(
            f"MODEL.DEVICE {name!r}: this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0"
        )
    return device


@functools.cache
def _warn_about_cpu(name: str) -> None:
    logger.warning("MODEL.DEVICE is %s, but torch finds no GPU on this machine: running on the CPU", name)
