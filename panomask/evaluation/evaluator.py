"""One loop over a data loader, whatever is measured: a model gives outputs, evaluators consume them."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from panomask.distributed import get_world_size, is_main_process
from panomask.evaluation.results import results_table

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
WARM_UP_BATCHES = 5
"""The first batches (allocation, autotuning, starting workers) are left out of the reported speed."""


class DatasetEvaluator:
    """Base of all evaluators: `reset()`, then `process()` for every batch, then `evaluate()` once."""

    def reset(self) -> None:
        """Forget everything that was processed so far."""

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take in one batch; keep what is small, never dense masks.

        Args:
            inputs: the batch as the model got it.
            outputs: what the model returned, one entry an input.
        """

    def evaluate(self) -> Mapping[str, Any] | None:
        """Measure what was processed, over all processes.

        Returns:
            task -> metric -> number on the main process; None or an empty dict on the others.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators in one pass; no two may report the same task."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = list(evaluators)

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> Mapping[str, Any]:
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            found = evaluator.evaluate()
            if not is_main_process() or found is None:
                continue
            for task, metrics in found.items():
                if task in results:
                    raise ValueError(f"two evaluators report the task {task!r}; give one of them other tasks")
                results[task] = metrics
        return results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; on leaving, every submodule gets back the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Stopwatch:
    """Seconds spent waiting for data, in the model and in the evaluators, with a progress line now and then.

    Nothing waits for the GPU on the clock's account: kernels still running when the model returns are counted
    where their result is first needed, and the whole is right.
    """

    def __init__(self, num_batches: int | None) -> None:
        self.num_batches = num_batches
        self.seconds = {"data": 0.0, "inference": 0.0, "eval": 0.0}
        self.batches = self.images = 0
        self._start = self._last_line = self._lap = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._lap
        self._lap = now

    def end_batch(self, num_images: int, seen: int) -> None:
        """Count a batch, the `seen`-th of all, or start afresh while warming up."""
        if seen <= self._warm_up():
            self._start = time.perf_counter()
            self.seconds = dict.fromkeys(self.seconds, 0.0)
        else:
            self.batches += 1
            self.images += num_images
        now = time.perf_counter()
        if self.batches and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info(self._line(seen, now))

    def _warm_up(self) -> int:
        return WARM_UP_BATCHES if self.num_batches is None else min(WARM_UP_BATCHES, self.num_batches - 1)

    def _line(self, seen: int, now: float) -> str:
        parts = " ".join(f"{part} {value / self.images:.4f}" for part, value in self.seconds.items())
        if self.num_batches is None:
            return f"batch {seen}  seconds an image: {parts}"
        left = (now - self._start) / self.batches * (self.num_batches - seen)
        return (
            f"eta: {timedelta(seconds=int(left))}  batch {seen}/{self.num_batches}  seconds an image: {parts}"
        )

    def summary(self) -> str:
        seconds = time.perf_counter() - self._start
        images = max(self.images, 1)
        share = " of each process" if get_world_size() > 1 else ""
        return (
            f"Inference took {seconds / images:.4f} s an image, {self.seconds['inference'] / images:.4f} in "
            f"the model (over {self.images} images{share} after the warm-up)"
        )


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], Any]] | None = None,
) -> Mapping[str, Any]:
    """Run the model over a loader without gradients, let the evaluators measure, log a table of the results.

    Args:
        model: called with each batch. A module is put in evaluation mode and its modes are restored after.
        data_loader: yields batches, `list[dict]`; progress shows an ETA where it has a length.
        evaluator: one evaluator, several, or None to run the model alone.
        callbacks: functions to be called at "on_start", "before_inference", "after_inference", "on_end".

    Returns:
        What the evaluator's `evaluate` returned, an empty dict for None.
    """
    evaluators = _as_one(evaluator)
    callbacks = callbacks or {}
    num_batches = len(data_loader) if isinstance(data_loader, Sized) else None
    evaluators.reset()
    watch = _Stopwatch(num_batches)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        _call(callbacks, "on_start")
        for seen, inputs in enumerate(data_loader, start=1):
            watch.lap("data")
            _call(callbacks, "before_inference")
            outputs = model(inputs)
            _call(callbacks, "after_inference")
            watch.lap("inference")
            evaluators.process(inputs, outputs)
            watch.lap("eval")
            watch.end_batch(len(inputs), seen)
        _call(callbacks, "on_end")
    logger.info(watch.summary())
    results = evaluators.evaluate()
    if results and isinstance(results, Mapping) and is_main_process():
        logger.info("Results:\n%s", results_table(results))
    return {} if results is None else results


def _as_one(evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None) -> DatasetEvaluator:
    if evaluator is None:
        return DatasetEvaluators([])
    return evaluator if isinstance(evaluator, DatasetEvaluator) else DatasetEvaluators(evaluator)


def _call(callbacks: Mapping[str, Callable[[], Any]], name: str) -> None:
    if name in callbacks:
        callbacks[name]()
