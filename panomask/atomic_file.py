"""Write a file so that whoever looks, whenever the process is killed, sees the old or the new one, whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def write_atomically(
    path: str | os.PathLike[str], mode: str = "wb", *, flush_to_disk: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    The temporary name is fixed (`.NAME.partial`), so what a killed process leaves is overwritten by the next
    attempt. When the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to write; its folder exists.
        mode: "wb" or "w" (UTF-8).
        flush_to_disk: wait until the file would survive a power cut; not worth it for one picture of many.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(partial, mode, encoding=encoding) as file:
            yield file
            if flush_to_disk:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if flush_to_disk:
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
