"""Where the numbers of the event storage go: console, metrics.json, TensorBoard."""

import datetime
import json
import logging
import math
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from panomask.atomic_file import write_atomically
from panomask.event_storage import EventStorage, get_event_storage

logger = logging.getLogger(__name__)


class EventWriter:
    """Reads the event storage whenever `write` is called, and puts it somewhere."""

    def write(self) -> None:
        """Write what is new in `get_event_storage()`."""
        raise NotImplementedError

    def close(self) -> None:
        """Called once at the end."""


class CommonMetricPrinter(EventWriter):
    """One console line: time left, iteration, losses, seconds, learning rate, GPU memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """
        Args:
            max_iter: number of iterations of the run, for the time left.
            window_size: losses and times are medians over so many iterations.
        """
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if self._max_iter is not None and iteration >= self._max_iter:
            return  # after training: nothing about iterations is new
        if self._max_iter is None:
            parts = [f"iter: {iteration}"]
        else:
            parts = [f"eta: {self._eta(storage)}", f"iter: {iteration}/{self._max_iter}"]
        parts += [f"{name}: {value:.4g}" for name, value in self._losses(storage).items()]
        for name in ("time", "data_time"):
            if name in storage.histories():
                median = storage.history(name).median(storage.count_samples(name, self._window_size))
                parts.append(f"{name}: {median:.4f}")
        if "lr" in storage.latest():
            parts.append(f"lr: {storage.latest()['lr'][0]:.5g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(parts))

    def _losses(self, storage: EventStorage) -> dict[str, float]:
        return {
            name: float(history.median(storage.count_samples(name, self._window_size)))
            for name, history in storage.histories().items()
            if "loss" in name
        }

    def _eta(self, storage: EventStorage) -> str:
        """Time left, from the iteration time once there is one, else from the time between two calls."""
        assert self._max_iter is not None
        left = self._max_iter - storage.iter - 1
        now = time.perf_counter()
        seconds = None
        if "time" in storage.histories():
            seconds = float(storage.history("time").median(1000)) * left
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        elif self._last_write is not None and storage.iter > self._last_write[0]:
            iteration, then = self._last_write
            seconds = (now - then) / (storage.iter - iteration) * left
        self._last_write = (storage.iter, now)
        return "N/A" if seconds is None else str(datetime.timedelta(seconds=int(seconds)))


class JSONWriter(EventWriter):
    """Appends scalars to a file, one JSON object a line, an iteration each. NaN and infinity become null."""

    def __init__(self, json_file: str | os.PathLike[str], window_size: int = 20) -> None:
        """
        Args:
            json_file: made when first written to, else appended to.
            window_size: scalars that may be smoothed are medians over so many iterations.
        """
        self._path = Path(json_file)
        self._file: Any = None
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        lines: dict[int, dict[str, float | None]] = defaultdict(dict)
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(self._window_size).items()
        ):
            if iteration > self._last_write:
                lines[iteration][name] = float(value) if math.isfinite(value) else None
        if not lines:
            return
        self._last_write = max(lines)
        if self._file is None:
            self._file = open(self._path, "a", encoding="utf-8")
        for iteration in sorted(lines):
            self._file.write(json.dumps({"iteration": iteration, **lines[iteration]}, sort_keys=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def rewind_metrics(json_file: str | os.PathLike[str], start_iter: int) -> None:
    """Take out of metrics.json what a killed run wrote after its last checkpoint.

    Lines of iterations from `start_iter` on, which will be run again, and a last line that was cut short go;
    the rest stays as it is. Nothing happens if there is no file.
    """
    path = Path(json_file)
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] < start_iter:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            logger.warning(
                f"{path}: dropped a line that is not a JSON object with an iteration: {line[:60]!r}"
            )
    with write_atomically(path, "w") as file:
        file.writelines(kept)


class TensorboardXWriter(EventWriter):
    """Scalars, images and histograms as TensorBoard's event files."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """
        Args:
            log_dir: folder of the event files.
            window_size: scalars that may be smoothed are medians over so many iterations.
            kwargs: for `torch.utils.tensorboard.SummaryWriter`.
        """
        self._log_dir = log_dir
        self._window_size = window_size
        self._kwargs = kwargs
        self._writer: Any = None
        self._last_write = -1

    def write(self) -> None:
        storage = get_event_storage()
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Hides what an earlier, killed process wrote about the iterations that are run again.
            self._writer = SummaryWriter(self._log_dir, **{"purge_step": storage.start_iter, **self._kwargs})
        newest = self._last_write
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest
        for name, image, iteration in storage.vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage.histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


TensorboardWriter = TensorboardXWriter


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Console, `output_dir/metrics.json` and TensorBoard files in `output_dir`."""
    os.makedirs(output_dir, exist_ok=True)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
