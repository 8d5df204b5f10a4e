"""Log lines on the console and in OUTPUT_DIR/log.txt, beside a progress bar if there is one."""

import logging
import os
import sys
import time
from collections import Counter
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

_LEVEL_COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
_GREEN = "32"
_TIME_FORMAT = "%m/%d %H:%M:%S"

_seen: Counter[Any] = Counter()
_last_time: dict[Any, float] = {}


class _ConsoleHandler(logging.StreamHandler):
    """Writes through tqdm, which moves a progress bar out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=self.stream)
            self.flush()
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """`[time name]: message`, with the level where it is a warning or worse, in colour on a terminal."""

    def __init__(self, name: str, abbrev_name: str, color: bool) -> None:
        super().__init__(datefmt=_TIME_FORMAT)
        self._name = name
        self._abbrev_name = abbrev_name
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        name = record.name
        if self._abbrev_name != self._name and name.startswith(self._name):
            name = self._abbrev_name + name[len(self._name) :]
        head = f"[{self.formatTime(record, self.datefmt)} {name}]:"
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        if self._color:
            head = f"\033[{_GREEN}m{head}\033[0m"
            code = _LEVEL_COLORS.get(record.levelno)
            level = f"\033[{code}m{level}\033[0m" if code and level else level
        text = f"{head} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "panomask",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Let the logger `name` write to the console (rank 0) and to a file (every rank). Calling again is fine.

    Args:
        output: a folder, for `log.txt` in it, or a file ending in .txt or .log. Lines are appended. Ranks
            other than 0 append `.rankN` to the name. A new file replaces the one of an earlier call.
        distributed_rank: this process's rank.
        color: colours, if the console is a terminal.
        name: the logger.
        abbrev_name: what stands in the lines for `name`.
        enable_propagation: hand the records to the root logger too.
        configure_stdout: whether to write to the console.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    abbrev_name = name if abbrev_name is None else abbrev_name
    has_console = any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers)
    if configure_stdout and distributed_rank == 0 and not has_console:
        console = _ConsoleHandler(sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(_Formatter(name, abbrev_name, color and sys.stdout.isatty()))
        logger.addHandler(console)
    if distributed_rank > 0 and not logger.handlers:
        logger.addHandler(logging.NullHandler())  # else Python prints the warnings of every rank
    if output is not None:
        _log_to_file(logger, _log_file(output, distributed_rank), _Formatter(name, abbrev_name, False))
    return logger


def _log_file(output: str, rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return os.path.abspath(path if rank == 0 else f"{path}.rank{rank}")


def _log_to_file(logger: logging.Logger, path: str, formatter: logging.Formatter) -> None:
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        if handler.baseFilename == path:
            return
        logger.removeHandler(handler)
        handler.close()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def _caller() -> tuple[str, str, int]:
    """(module, file, line) of whoever called the public function that asks."""
    frame = sys._getframe(2)
    return frame.f_globals.get("__name__", ""), frame.f_code.co_filename, frame.f_lineno


def log_first_n(
    lvl: int, msg: str, n: int = 1, *, name: str | None = None, key: str | tuple[str, ...] = "caller"
) -> None:
    """Log only the first n times.

    Args:
        lvl: logging level.
        msg: the line.
        n: how many times.
        name: the logger; the caller's module by default.
        key: what counts as the same: "caller" (the line of code), "message", or both.
    """
    module, file, line = _caller()
    keys = (key,) if isinstance(key, str) else key
    identity: tuple[Any, ...] = ("first",)
    if "caller" in keys:
        identity += (file, line)
    if "message" in keys:
        identity += (msg,)
    _seen[identity] += 1
    if _seen[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first call from this line of code, and then every n-th."""
    module, file, line = _caller()
    identity = ("every", file, line)
    if _seen[identity] % n == 0:
        logging.getLogger(name or module).log(lvl, msg)
    _seen[identity] += 1


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log from this line of code at most once in n seconds."""
    module, file, line = _caller()
    now = time.monotonic()
    last = _last_time.get((file, line))
    if last is None or now - last >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_time[(file, line)] = now


def create_small_table(small_dict: dict[str, Any]) -> str:
    """A table with the keys of `small_dict` as header over one row of its values."""
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


def _log_api_usage(identifier: str) -> None:
    """Tell torch's own usage log, which is silent unless someone listens, that a part was used once."""
    torch._C._log_api_usage_once(f"panomask.{identifier}")
