"""What happens around the steps of training."""

import datetime
import logging
import math
import operator
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from tqdm import tqdm

from panomask import distributed
from panomask.checkpoint import Checkpointer
from panomask.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from panomask.data.batching import ResumableLoader
from panomask.engine.environment import peak_memory_mib, preserve_random_state
from panomask.engine.train_loop import HookBase
from panomask.engine.writers import EventWriter
from panomask.evaluation import flatten_results_dict
from panomask.solver import LRMultiplier

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "ProgressBar",
]

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """Calls functions, each with the trainer."""

    def __init__(
        self,
        *,
        before_train: Callable[[Any], None] | None = None,
        after_train: Callable[[Any], None] | None = None,
        before_step: Callable[[Any], None] | None = None,
        after_step: Callable[[Any], None] | None = None,
    ) -> None:
        self._callbacks = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, name: str) -> None:
        callback = self._callbacks[name]
        if callback is not None:
            callback(self.trainer)

    def before_train(self) -> None:
        self._call("before_train")

    def after_train(self) -> None:
        self._call("after_train")
        self._callbacks = dict.fromkeys(self._callbacks)  # lets go of what the functions hold

    def before_step(self) -> None:
        self._call("before_step")

    def after_step(self) -> None:
        self._call("after_step")


class IterationTimer(HookBase):
    """Records the seconds of each iteration as `time`, and logs a summary at the end.

    The first hook of a trainer, so that `time` is the step alone and the rest counts as hooks.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """
        Args:
            warmup_iter: first iterations that do not count.
        """
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._step_start = time.perf_counter()
        self._total_timer = Timer()
        self._count = 0

    def before_train(self) -> None:
        self._total_timer.reset()
        self._total_timer.pause()
        self._count = 0
        self._step_seconds = 0.0
        self._total_start = 0.0

    def before_step(self) -> None:
        self._step_timer.reset()
        if self._count == self._warmup_iter:
            self._total_timer.reset()

    def after_step(self) -> None:
        seconds = self._step_timer.seconds()
        self._count += 1
        if self._count > self._warmup_iter:
            self._step_seconds += seconds
            self.trainer.storage.put_scalars(time=seconds)

    def after_train(self) -> None:
        counted = self._count - self._warmup_iter
        if counted <= 0:
            return
        in_hooks = max(self._total_timer.seconds() - self._step_seconds, 0)
        steps, rest = (str(datetime.timedelta(seconds=int(part))) for part in (self._step_seconds, in_hooks))
        each = self._step_seconds / counted
        logger.info(
            f"Training took {steps}, {each:.4f} s an iteration (over {counted} after the warm-up);"
            f" the hooks took {rest} more"
        )


class PeriodicWriter(HookBase):
    """Lets writers write every `period` iterations, after the last one, and after training.

    The last hook of a trainer, so that what other hooks record in an iteration is written in it. Records the
    peak of memory so far as `max_mem`, in MiB.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"{writer!r} is no EventWriter")
        self._writers = list(writers)
        self._period = period

    def after_step(self) -> None:
        is_last = self.trainer.iter == self.trainer.max_iter - 1
        if is_last or (self.trainer.iter + 1) % self._period == 0:
            self.trainer.storage.put_scalar("max_mem", peak_memory_mib(), smoothing_hint=False)
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            # Whatever the other hooks recorded after training, such as the final evaluation.
            writer.write()
            writer.close()


class ProgressBar(HookBase):
    """A bar on the terminal (standard error) of the main process; nothing where there is no terminal."""

    _bar: tqdm | None = None

    def before_train(self) -> None:
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            desc="training",
            unit="it",
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
            disable=not (distributed.is_main_process() and sys.stderr.isatty()),
        )

    def after_step(self) -> None:
        assert self._bar is not None
        self._bar.update(1)

    def after_train(self) -> None:
        if self._bar is not None:
            self._bar.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """`panomask.checkpoint.PeriodicCheckpointer` as a hook.

    Every process runs it: what is gathered for a checkpoint (`before_save` of a checkpointable) is gathered
    here, and the checkpointer writes in the main process.
    """

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        if not self.is_due(self.trainer.iter):
            return
        for checkpointable in self.checkpointer.checkpointables.values():
            if hasattr(checkpointable, "before_save"):
                checkpointable.before_save()
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Saves the model whenever a metric is better than ever. Put it after the hook that measures it."""

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        """
        Args:
            eval_period: iterations between two evaluations.
            checkpointer: what saves.
            val_metric: name in the event storage, such as "segm/AP".
            mode: "max" or "min": which is better.
            file_prefix: name of the file, without `.pth`.
        """
        if mode not in ("max", "min"):
            raise ValueError(f"mode is {mode!r}; allowed: 'max', 'min'")
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _check(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            if distributed.is_main_process():
                logger.warning(f"{self._val_metric} was not measured; no best checkpoint is kept")
            return
        metric, iteration = latest
        if not math.isfinite(metric) or iteration == self.best_iter:
            return
        if self.best_metric is None or self._is_better(metric, self.best_metric):
            before = "" if self.best_metric is None else f", before {self.best_metric:.5f}"
            logger.info(f"{self._val_metric} is at its best so far: {metric:.5f}{before}")
            self.best_metric, self.best_iter = metric, iteration
            last_iter = min(iteration, self.trainer.max_iter - 1)
            self._checkpointer.save(self._file_prefix, iteration=last_iter)

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue comparing with the best of the earlier process."""
        self.best_metric, self.best_iter = state_dict["best_metric"], state_dict["best_iter"]


class LRScheduler(HookBase):
    """Steps a schedule after each iteration and records `lr`."""

    def __init__(self, optimizer: torch.optim.Optimizer | None = None, scheduler: Any = None) -> None:
        """
        Args:
            optimizer: the trainer's by default.
            scheduler: a torch scheduler, or a fvcore `ParamScheduler` of factors for the base rates; the
                trainer's by default.
        """
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer  # type: ignore[attr-defined]
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer, self.scheduler, self.trainer.max_iter, last_iter=self.trainer.iter - 1
            )
        self._group = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """Index of the parameter group whose rate stands for all: the largest, else one of the commonest."""
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        assert self._optimizer is not None
        rate = self._optimizer.param_groups[self._group]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self) -> Any:
        """The schedule in use."""
        return self._scheduler or self.trainer.scheduler  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict() if isinstance(self.scheduler, _TORCH_SCHEDULER) else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue the schedule."""
        if isinstance(self.scheduler, _TORCH_SCHEDULER):
            self.scheduler.load_state_dict(dict(state_dict))


_TORCH_SCHEDULER = torch.optim.lr_scheduler.LRScheduler


class EvalHook(HookBase):
    """Runs a function every so many iterations and after training, and records the numbers it returns.

    Random numbers drawn by it do not change the training. Every process runs it.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None:
        """
        Args:
            eval_period: iterations between two calls; 0 for the end only.
            eval_function: returns a (nested) dict of numbers, or nothing.
            eval_after_train: call it after the last iteration.
        """
        self._period = eval_period
        self._func: Callable[[], Any] | None = eval_function
        self._eval_after_train = eval_after_train

    def _do_eval(self) -> None:
        assert self._func is not None
        with preserve_random_state():
            results = self._func()
        if results:
            if not isinstance(results, Mapping):
                raise TypeError(f"the evaluation function returned {results!r}; expected a dict of numbers")
            flat = flatten_results_dict(results)
            for name, value in flat.items():
                try:
                    flat[name] = float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"the evaluation's result {name!r} is {value!r}, no number") from error
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        distributed.synchronize()  # a process that evaluates longer must not look like one that hangs

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if self._period > 0 and next_iter % self._period == 0 and next_iter != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        self._func = None  # lets go of the model


class PreciseBN(HookBase):
    """Replaces batch norm's running statistics by averages over whole batches, before an evaluation.

    Put it before the hooks that save and evaluate. It starts its loader anew each time, so that a resumed run
    computes the same statistics.
    """

    def __init__(self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int) -> None:
        """
        Args:
            period: iterations between two updates; 0 for the end only.
            model: on its device; only its layers in training mode are updated.
            data_loader: gives the model's input.
            num_iter: number of batches for the averages.
        """
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._period = period
        self._disabled = False
        if not get_bn_modules(model):
            logger.info("No batch norm of the model is in training mode: its statistics are not recomputed")
            self._disabled = True

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        is_last = next_iter == self.trainer.max_iter
        if is_last or (self._period > 0 and next_iter % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Update the statistics now."""
        if self._disabled:
            return
        logger.info(f"Updating batch norm statistics over {self._num_iter} batches")
        with preserve_random_state():
            update_bn_stats(self._model, iter(self._data_loader), self._num_iter)

    def state_dict(self) -> dict[str, Any]:
        """Which batches the averages are over, so that a resumed run takes the same."""
        return self._data_loader.state_dict(0) if isinstance(self._data_loader, ResumableLoader) else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the batches of the earlier process."""
        if isinstance(self._data_loader, ResumableLoader):
            self._data_loader.load_state_dict(dict(state_dict))
