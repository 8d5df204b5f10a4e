"""The training loop: hooks around a step, and the step itself."""

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from panomask.config import CfgNode
from panomask.engine.losses import average_over_processes, put_losses, raise_not_finite
from panomask.errors import InputError
from panomask.event_storage import EventStorage, get_event_storage

logger = logging.getLogger(__name__)


class HookBase:
    """Something to be done before, during or after training. `self.trainer` is set when it is registered.

    Order of calls: `before_train`, then for each iteration `before_step`, `after_backward` (in the middle of
    the step), `after_step`; at the end, also after an error, `after_train`.
    """

    trainer: "TrainerBase"

    def before_train(self) -> None:
        """Called once before the first iteration."""

    def after_train(self) -> None:
        """Called once after the last iteration, also when training ends by an error."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called within each iteration, between the backward pass and the optimizer's step."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for this hook to continue; a hook with a state has
        `load_state_dict(state)` too."""
        return {}


class TrainerBase:
    """An iteration counter with hooks; a subclass says what one step is (`run_step`)."""

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0
        self.max_iter = 0
        self.storage: EventStorage

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks, called in this order; None is skipped."""
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise TypeError(f"{hook!r} is no HookBase")
            # A proxy, because a cycle of trainer and hooks would keep the model in memory.
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations `start_iter .. max_iter - 1`.

        `self.iter == max_iter` in `after_train` tells that all of them succeeded.
        """
        logger.info(f"Training goes from iteration {start_iter} up to {max_iter}")
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception as error:
                # Bad input is told by the tool in one line; the log file alone keeps the iteration.
                level = logging.DEBUG if isinstance(error, InputError) else logging.ERROR
                logger.log(level, f"Training stopped at iteration {self.iter}: {error!r}")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration; `self.iter` is its number, from 0."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the states of the hooks that have one, by class name."""
        state: dict[str, Any] = {"iteration": self.iter}
        hooks = self.hook_states()
        if hooks:
            state["hooks"] = hooks
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iter = state_dict["iteration"]
        self.load_hook_states(state_dict.get("hooks", {}))

    def hook_states(self) -> dict[str, Any]:
        """Class name -> state, for hooks that have one."""
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        return {name: state for name, state in states.items() if state}

    def load_hook_states(self, states: Mapping[str, Any]) -> None:
        """Give each hook its state; a state without a hook is reported."""
        by_name = {type(hook).__qualname__: hook for hook in self._hooks}
        for name, state in states.items():
            if hasattr(by_name.get(name), "load_state_dict"):
                by_name[name].load_state_dict(state)  # type: ignore[attr-defined]
            else:
                logger.warning(f"the checkpoint holds a state of hook {name}, which is not registered")


class SimpleTrainer(TrainerBase):
    """One model, one loader, one optimizer: forward, backward, step.

    The model returns a dict of losses (or one loss). Their sum is minimised; averages over the processes go
    to the event storage without waiting for the device.

    A loss that is NaN or infinite raises DivergedError. On the CPU this happens before the optimizer's
    step. On a GPU, looking at a loss would stall it, so a flag on the device is read every
    `loss_check_period` iterations; until then bad weights may exist in memory, but never in a file:
    `Checkpointer.save` refuses them.
    """

    loss_check_period = 20

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """
        Args:
            model: returns a dict of losses in training mode; it is put in that mode here.
            data_loader: yields batches, without end or at least as many as there are iterations.
            optimizer: updates the model's parameters.
            gather_metric_period: processes average their losses every so many iterations; in between the
                main process reports its own.
            zero_grad_before_forward: clear gradients before the forward pass rather than before the backward.
            async_write_metrics: kept for Detectron2's call; metrics never wait for the device here.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self._first_bad_iter: torch.Tensor | None = None

    def run_step(self) -> None:
        """Fetch a batch, compute losses and gradients, update the weights."""
        if not self.model.training:
            raise RuntimeError("the model was left in evaluation mode; call model.train()")
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with self._autocast():
            loss_dict = self.model(data)
            if isinstance(loss_dict, torch.Tensor):
                loss_dict = {"total_loss": loss_dict}
            losses = sum(loss_dict.values())
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(losses)
        self.after_backward()
        if (self.iter + 1) % self.gather_metric_period == 0:
            loss_dict = average_over_processes(loss_dict)
        put_losses(loss_dict, data_time, self.iter)
        self._check_losses(loss_dict)
        self._update()

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _backward(self, losses: Any) -> None:
        losses.backward()

    def _update(self) -> None:
        self.optimizer.step()

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        """The running iterator over the loader, made when first needed."""
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the loader by what `data_loader_builder()` returns; the old one is freed first."""
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        """For research code that overrides `run_step`: average, record and check the losses."""
        cur_iter = self.iter if iter is None else iter
        self.write_metrics(loss_dict, data_time, cur_iter, prefix)

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Average losses over processes, record them, and raise if their sum is not finite. Collective.

        Args:
            loss_dict: name -> scalar loss.
            data_time: seconds this process waited for the batch.
            cur_iter: the iteration they belong to.
            prefix: put before each name.
        """
        losses = average_over_processes(loss_dict)
        put_losses(losses, data_time, cur_iter, prefix)
        total = sum(float(value) for value in losses.values())
        if not torch.isfinite(torch.tensor(total)):
            raise_not_finite(cur_iter, {name: float(value) for name, value in losses.items()})

    def _check_losses(self, loss_dict: Mapping[str, torch.Tensor]) -> None:
        """Raise when a loss is not finite: at once on the CPU, every `loss_check_period` on a GPU."""
        with torch.no_grad():
            total = torch.stack([value.detach().float().sum() for value in loss_dict.values()]).sum()
            is_bad = ~torch.isfinite(total)
            if total.device.type == "cpu":
                if is_bad:
                    raise_not_finite(self.iter, {name: float(value) for name, value in loss_dict.items()})
                return
            never = torch.iinfo(torch.int64).max
            now = torch.where(is_bad, self.iter, never)
            first = self._first_bad_iter
            self._first_bad_iter = now if first is None else torch.minimum(first, now)
            if (self.iter + 1) % self.loss_check_period == 0 and int(self._first_bad_iter) != never:
                self._raise_for_iteration(int(self._first_bad_iter), list(loss_dict))

    def _raise_for_iteration(self, iteration: int, names: list[str]) -> None:
        """Look up the losses of an earlier iteration and raise."""
        histories = get_event_storage().histories()
        found = {name: value for name in names for value, at in histories[name].values() if at == iteration}
        raise_not_finite(iteration, found)

    def state_dict(self) -> dict[str, Any]:
        """The base's state and the optimizer's."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """`SimpleTrainer` with automatic mixed precision.

    On a GPU: `precision` (float16 with gradient scaling, or bfloat16). On the CPU: bfloat16 in any case,
    since float16 is neither fast nor complete there; bfloat16 has float32's range and needs no scaling.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: Any = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """See `SimpleTrainer`.

        Args:
            grad_scaler: a `torch.amp.GradScaler`; made by default.
            precision: type of the fast operations on a GPU.
            log_grad_scaler: record the scale as a metric.
        """
        if isinstance(model, DistributedDataParallel) and len(model.device_ids or []) > 1:
            raise ValueError("mixed precision needs one process for each GPU")
        if isinstance(model, DataParallel):
            raise ValueError("mixed precision does not work with DataParallel; use one process for each GPU")
        super().__init__(
            model, data_loader, optimizer, gather_metric_period, zero_grad_before_forward, async_write_metrics
        )
        self._device_type = next(model.parameters()).device.type
        self.precision = precision if self._device_type == "cuda" else torch.bfloat16
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(
                self._device_type, enabled=self._device_type == "cuda" and self.precision == torch.float16
            )
        self.grad_scaler = grad_scaler
        self.log_grad_scaler = log_grad_scaler

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device_type, dtype=self.precision)

    def _backward(self, losses: Any) -> None:
        self.grad_scaler.scale(losses).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The base's state and the scaler's."""
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state_dict)
        if state_dict["grad_scaler"]:  # nothing is saved by one that is not needed: in bfloat16
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_step_trainer(
    cfg: CfgNode, model: nn.Module, data_loader: Iterable[Any], optimizer: torch.optim.Optimizer
) -> SimpleTrainer:
    """The trainer that SOLVER.AMP asks for; hooks and iterations are its caller's matter."""
    if not cfg.SOLVER.AMP.ENABLED:
        return SimpleTrainer(model, data_loader, optimizer)
    return AMPTrainer(model, data_loader, optimizer, precision=getattr(torch, cfg.SOLVER.AMP.PRECISION))
