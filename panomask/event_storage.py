"""Where a running model and trainer put their scalars, images and histograms; writers read it.

A model calls `get_event_storage().put_scalar("roi_head/num_fg_samples", n)` wherever it runs. Outside a
trainer the call reaches a throw-away storage and goes nowhere.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

_MAX_PENDING = 2000
"""Scalars on an accelerator that may wait to be read; bounds memory where nobody reads."""

_STORAGE_STACK: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost running `with EventStorage(...)`, else a new one that nobody reads."""
    return _STORAGE_STACK[-1] if _STORAGE_STACK else EventStorage(0)


def has_event_storage() -> bool:
    """Whether somebody may read what is put into `get_event_storage()`."""
    return bool(_STORAGE_STACK)


class EventStorage:
    """Scalars (with their history), images and histograms of one training run.

    Scalars may be tensors on an accelerator: they are kept as they are and copied to the host, all together,
    when somebody reads, so that putting a scalar never waits for the device.
    """

    def __init__(self, start_iter: int = 0) -> None:
        """
        Args:
            start_iter: the iteration to begin with.
        """
        self._histories: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._latest: dict[str, tuple[float, int]] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._pending: list[tuple[str, torch.Tensor, int]] = []
        self._images: list[tuple[str, Any, int]] = []
        self._raw_histograms: list[dict[str, Any]] = []
        self._prefix = ""
        self._iter = start_iter
        self.start_iter = start_iter

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Record one number.

        Args:
            name: what it is; `name_scope` puts its prefix before it.
            value: a number or a tensor of one element.
            smoothing_hint: whether writers may show the median over a window. Fixed per name.
            cur_iter: the iteration it belongs to; the storage's own by default.
        """
        name = self._prefix + name
        if self._smoothing_hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise ValueError(f"scalar {name!r} was put with smoothing_hint={not smoothing_hint} before")
        iteration = self._iter if cur_iter is None else cur_iter
        if isinstance(value, torch.Tensor) and value.device.type != "cpu":
            self._pending.append((name, value.detach().clone(), iteration))
            if len(self._pending) > _MAX_PENDING:
                self._flush()
            return
        if self._pending:
            # Keeps the order of values under one name; on the host already, so it costs no transfer.
            self._pending.append((name, torch.as_tensor(float(value), dtype=torch.float64), iteration))
            return
        self._record(name, float(value), iteration)

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any) -> None:
        """`put_scalar` for each keyword."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an image for the writers.

        Args:
            img_name: where it appears in TensorBoard.
            img_tensor: (3, H, W) RGB, uint8 0-255 or float 0-1; tensor or array.
        """
        self._images.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep a histogram of the values of `hist_tensor` (any shape) in `bins` equal bins."""
        values = hist_tensor.detach().float()
        low, high = values.min().item(), values.max().item()
        counts = torch.histc(values, bins=bins)
        edges = torch.linspace(low, high, steps=bins + 1)
        self._raw_histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": float(values.sum()),
                "sum_squares": float((values**2).sum()),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def history(self, name: str) -> HistoryBuffer:
        """All values recorded under `name`. Raises KeyError for a name never put."""
        self._flush()
        if name not in self._histories:
            raise KeyError(f"no scalar {name!r} was recorded; known: {', '.join(sorted(self._histories))}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """name -> all values recorded under it."""
        self._flush()
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """name -> (last value, its iteration)."""
        self._flush()
        return self._latest

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As `latest`, with the median over the last `window_size` iterations where smoothing is allowed."""
        result = {}
        for name, (value, iteration) in self.latest().items():
            if self._smoothing_hints[name]:
                value = self._histories[name].median(self.count_samples(name, window_size))
            result[name] = (value, iteration)
        return result

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """How many values of `name` lie in the `window_size` iterations up to its last one (at least 1)."""
        count = 0
        values = self.history(name).values()
        newest = values[-1][1]
        for _, iteration in reversed(values):
            if newest - iteration >= window_size:
                break
            count += 1
        return count

    def smoothing_hints(self) -> dict[str, bool]:
        """name -> whether writers may smooth it."""
        return self._smoothing_hints

    def step(self) -> None:
        """Go to the next iteration. The storage does not do so by itself."""
        self._iter += 1

    @property
    def iter(self) -> int:
        """The iteration that values put now belong to."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """The same as `iter`."""
        return self._iter

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Within, `name/` stands before the name of every scalar put."""
        before = self._prefix
        self._prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._prefix = before

    @property
    def vis_data(self) -> list[tuple[str, Any, int]]:
        """(name, image, iteration) of the images kept and not yet cleared."""
        return self._images

    @property
    def histograms(self) -> list[dict[str, Any]]:
        """Keywords for `SummaryWriter.add_histogram_raw` of the histograms kept and not yet cleared."""
        return self._raw_histograms

    def state_dict(self, num_values: int = 20) -> dict[str, Any]:
        """The last `num_values` values of every scalar, so that medians go on where a run is resumed."""
        self._flush()
        histories = {name: history.values()[-num_values:] for name, history in self._histories.items()}
        return {"histories": histories, "smoothing_hints": dict(self._smoothing_hints)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the values into the histories. They are not `latest`: whoever saved them has written them."""
        self._smoothing_hints.update(state_dict["smoothing_hints"])
        for name, values in state_dict["histories"].items():
            for value, iteration in values:
                self._histories[name].update(value, iteration)

    def clear_images(self) -> None:
        """Forget the images: a writer calls this after it has written them."""
        self._images = []

    def clear_histograms(self) -> None:
        """Forget the histograms: a writer calls this after it has written them."""
        self._raw_histograms = []

    def __enter__(self) -> "EventStorage":
        _STORAGE_STACK.append(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        popped = _STORAGE_STACK.pop()
        assert popped is self

    def _record(self, name: str, value: float, iteration: int) -> None:
        self._histories[name].update(value, iteration)
        self._latest[name] = (value, iteration)

    def _flush(self) -> None:
        """Copy the waiting scalars to the host: one transfer for each device."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        positions: dict[torch.device, list[int]] = defaultdict(list)
        for i, (_, tensor, _) in enumerate(pending):
            positions[tensor.device].append(i)
        values: dict[int, float] = {}
        for where in positions.values():
            stacked = torch.stack([pending[i][1].reshape(()).double() for i in where])
            values.update(zip(where, stacked.tolist(), strict=True))
        for i, (name, _, iteration) in enumerate(pending):
            self._record(name, values[i], iteration)
