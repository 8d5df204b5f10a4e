"""What converters of annotations share: outputs that replace nothing silently, and several processes."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from panomask.atomic_file import write_atomically
from panomask.errors import InputError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LINES = 10
_TASKS_AT_ONCE = 16  # a worker gets so many at a time


def claim_file(path: str | Path, *, inputs: Sequence[str | Path], overwrite: bool) -> Path:
    """The path of a file that may be written; its folder is made.

    Raises:
        InputError: it is one of the `inputs`, a folder, or it exists and `overwrite` is False.
    """
    path = Path(path)
    _refuse_inputs(path, inputs)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of the file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; give another name, or allow it by --overwrite")
    _make_folder(path.parent)
    return path


def claim_folder(path: str | Path, *, inputs: Sequence[str | Path], overwrite: bool) -> Path:
    """The path of a folder that files may be written to; it is made.

    Raises:
        InputError: it is one of the `inputs`, a file, or it holds something and `overwrite` is False.
    """
    path = Path(path)
    _refuse_inputs(path, inputs)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; give the name of the folder to write to")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(
            f"{path}: the folder is not empty; give another name, or replace files there by --overwrite"
        )
    _make_folder(path)
    return path


def _refuse_inputs(path: Path, inputs: Sequence[str | Path]) -> None:
    if any(path.resolve() == Path(other).resolve() for other in inputs):
        raise InputError(f"{path}: is read by this conversion; write to another place")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be made ({error.strerror}); name another") from None


@contextmanager
def write_coco_json(
    path: Path, images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write a COCO file one annotation at a time, whole or not at all; gives the function that adds one.

    "categories" come last: there the reader finds them without parsing the file.
    """
    with write_atomically(path, "w") as file:
        file.write('{"images": [' + ",\n".join(map(json.dumps, images)) + '],\n"annotations": [')
        separator = ""

        def add(annotation: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(annotation))
            separator = ",\n"

        yield add
        file.write('],\n"categories": ' + json.dumps(list(categories)) + "}\n")


def convert_all(
    convert: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int
) -> Iterator[Result]:
    """The results of all tasks, in their order; a line in the log says every few seconds how far it is.

    Args:
        convert: a function of a module, or `functools.partial` of one: it is sent to the processes.
        num_workers: processes beside this one; 0 or 1 works here.

    Raises:
        InputError: what `convert` raises; a process was killed; `num_workers` is negative.
    """
    if num_workers < 0:
        raise InputError(f"--num-workers is {num_workers}; allowed are whole numbers from 0")
    start = last = perf_counter()
    results = map(convert, tasks) if num_workers < 2 else _in_processes(convert, tasks, num_workers)
    for count, result in enumerate(results, 1):
        yield result
        if perf_counter() - last > _SECONDS_BETWEEN_LINES:
            last = perf_counter()
            logger.info("%d of %d images, %.0f a second", count, len(tasks), count / (last - start))


def _in_processes(
    convert: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int
) -> Iterator[Result]:
    context = _process_context(convert)
    pool = ProcessPoolExecutor(min(num_workers, len(tasks) or 1), mp_context=context)
    try:
        yield from pool.map(convert, tasks, chunksize=_TASKS_AT_ONCE)
    except BrokenProcessPool:
        raise InputError(
            "a process of the conversion was killed, mostly for want of memory; lower --num-workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _process_context(convert: Callable[..., Any]) -> BaseContext:
    """How processes start: on Linux and macOS, one imports torch and the others are copies of it."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", getattr(convert, "func", convert).__module__])
    return context


def png_names(names: Sequence[str], source: str | Path) -> list[str]:
    """The names of the PNG files that belong to images: theirs, with the ending .png.

    An image outside of the image folder (an absolute name, or one with "..") gives its last part alone.

    Raises:
        InputError: two images would share a PNG.
    """
    found: dict[str, str] = {}
    for name in names:
        path = Path(name).with_suffix(".png")
        png = path.name if path.is_absolute() or ".." in path.parts else path.as_posix()
        if png in found:
            raise InputError(
                f"{source}: images {found[png]!r} and {name!r} would share the file {png!r}; rename one"
            )
        found[png] = name
    return list(found)
