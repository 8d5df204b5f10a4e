"""Entries of a training checkpoint besides model, optimizer, schedule and generators."""

import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panomask import distributed
from panomask.data.batching import ResumableLoader
from panomask.errors import InputError

logger = logging.getLogger(__name__)


class DataPosition:
    """How far a trainer has come in the stream of its training data."""

    def __init__(self, trainer: Any) -> None:
        """
        Args:
            trainer: with `data_loader`, `iter` and `max_iter`; only a weak reference is kept.
        """
        self._trainer = weakref.proxy(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The loader's state after the trainer's current iteration; empty for a loader that cannot say."""
        trainer = self._trainer
        if not isinstance(trainer.data_loader, ResumableLoader):
            return {}
        # After the last iteration, `iter` counts the finished ones already.
        return trainer.data_loader.state_dict(min(trainer.iter + 1, trainer.max_iter))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the loader begin there."""
        loader = self._trainer.data_loader
        if state_dict and isinstance(loader, ResumableLoader):
            loader.load_state_dict(dict(state_dict))
        else:
            logger.warning("The position in the training data is not known: the loader begins anew.")


class HookStates:
    """The states of a trainer's hooks; the schedule, which has an entry of its own, is left out."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = weakref.proxy(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Class name of the hook -> its state."""
        return {name: state for name, state in self._trainer.hook_states().items() if name != "LRScheduler"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Give the states back."""
        self._trainer.load_hook_states(state_dict)


class RecentScalars:
    """The last values of every scalar, for the medians in the log."""

    def __init__(self, trainer: Any) -> None:
        """
        Args:
            trainer: with `storage` while it trains; only a weak reference is kept.
        """
        self._trainer = weakref.proxy(trainer)
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The values in the trainer's storage; empty before training."""
        storage = getattr(self._trainer, "storage", None)
        return {} if storage is None else storage.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep the values for `restore`: the storage is made when training starts."""
        self._loaded = dict(state_dict)

    def restore(self) -> None:
        """Put the loaded values into the trainer's storage."""
        if self._loaded:
            self._trainer.storage.load_state_dict(self._loaded)
        self._loaded = {}


class TrainingBuffers:
    """Buffers that training changes and the model's state dict leaves out, of all processes.

    A module names its own in `training_buffers`.
    """

    def __init__(self, model: nn.Module) -> None:
        model = model.module if isinstance(model, DistributedDataParallel) else model
        self._modules = {
            name: module for name, module in model.named_modules() if getattr(module, "training_buffers", ())
        }
        self._of_others: list[dict[str, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self._modules)

    def _of_this_process(self) -> dict[str, torch.Tensor]:
        return {
            f"{name}.{buffer}": getattr(module, buffer).cpu().clone()
            for name, module in self._modules.items()
            for buffer in module.training_buffers  # type: ignore[union-attr]
        }

    def before_save(self) -> None:
        """Bring the buffers to the main process. Collective: called on all processes before saving."""
        self._of_others = distributed.gather(self._of_this_process())[1:]

    def state_dict(self) -> dict[str, Any]:
        """The main process's buffers as they are now, the others' as of the last `before_save`."""
        return {"ranks": [self._of_this_process(), *self._of_others]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set this process's buffers; a process that the checkpoint does not know takes the main one's."""
        ranks, rank = state_dict["ranks"], distributed.get_rank()
        values = ranks[rank if rank < len(ranks) else 0]
        for name, module in self._modules.items():
            for buffer in module.training_buffers:  # type: ignore[union-attr]
                getattr(module, buffer).copy_(values[f"{name}.{buffer}"])


class TrainedNames:
    """Names that a model is trained on, with what else the metadata of its data say of them.

    In a checkpoint, so that it can be used by itself, and a resumed run is known to have the same data.
    """

    def __init__(self, what: str, key: str, fields: dict[str, Any]) -> None:
        """
        Args:
            what: what has the names, for messages.
            key: the field that holds them.
            fields: of a data set's metadata.
        """
        self._what, self._key, self._fields = what, key, fields

    def state_dict(self) -> dict[str, Any]:
        """Fields of a data set's metadata."""
        return self._fields

    def load_state_dict(self, fields: Mapping[str, Any]) -> None:
        """Check that a resumed run has the names of the checkpoint; InputError if not."""
        old, new = list(fields[self._key]), self._fields[self._key]
        if old != new:
            raise InputError(
                f"was trained on the {self._what} {', '.join(old)}, but DATASETS.TRAIN has {', '.join(new)};"
                " resume with the same data"
            )


class ThingClasses:
    """The names of the classes that a model is trained on, so that a checkpoint can be used by itself."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def state_dict(self) -> list[str]:
        """The names, in the order of the model's classes."""
        return self._names

    def load_state_dict(self, names: Sequence[str]) -> None:
        """Check that a resumed run has the classes of the checkpoint; InputError if not."""
        if list(names) != self._names:
            raise InputError(
                f"was trained on the classes {', '.join(names)}, but DATASETS.TRAIN has "
                f"{', '.join(self._names)}; resume with the same data"
            )
