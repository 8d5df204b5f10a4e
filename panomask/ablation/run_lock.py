"""Who works in a folder: one sweep, and the processes that its command has started."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
_VARIABLE = "PANOMASK_RUN"


class RunLock:
    """The right to work in a run's folder.

    The sweep holds the lock, and its command inherits it: one that outlives a killed sweep keeps it. What
    the command has started does not inherit it, as Python closes files for its processes; a variable of their
    environment tells them (`environment`). So no second command starts while one of them lives.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self.descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)

    def acquire(self) -> bool:
        """Whether the folder was free; it is this process's then."""
        return _lock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) and not self._has_processes()

    def environment(self) -> dict[str, str]:
        """What marks the command's processes as the run's."""
        return {_VARIABLE: str(self._folder)}

    def close(self) -> None:
        """Let go; a command that inherited the lock goes on holding it."""
        os.close(self.descriptor)

    def _has_processes(self) -> bool:
        """Whether a process of this machine is marked as the run's. Linux alone tells the environment."""
        mark = f"{_VARIABLE}={self._folder}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if path.parent.name != str(os.getpid()) and mark in path.read_bytes().split(b"\0"):
                    return True
            except OSError:  # ended meanwhile, or another user's
                continue
        return False


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """One process at a time inside the block, which writes what all sweeps in a folder share."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        logger.warning("This file system has no locks: start one sweep at a time in its folder")
    return True
