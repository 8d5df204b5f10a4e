"""Save and load a model together with whatever else has a `state_dict`."""

import logging
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from panomask import distributed
from panomask.addresses import MATCH_BY_SUFFIX, PathManager, local_path
from panomask.atomic_file import write_atomically
from panomask.checkpoint.files import as_tensors, read_checkpoint, to_plain
from panomask.checkpoint.foreign import fit_names_of_networks
from panomask.checkpoint.matching import (
    IncompatibleKeys,
    describe_class_counts,
    describe_match,
    match_state_dict,
    refuse_other_model,
    require_match,
)
from panomask.errors import InputError

MATCH_MODES = ("overlap", "parameters", "exact")


class Checkpointer:
    """Saves `{"model": ..., name: checkpointable.state_dict(), ...}` and loads it again.

    A file appears whole or not at all, and `last_checkpoint` is written after the file that it names: a kill
    at any moment leaves the previous checkpoint usable.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, save_to_disk: bool = True, **checkpointables: Any
    ) -> None:
        """
        Args:
            model: the model, wrapped for data parallelism or not.
            save_dir: folder of the checkpoints; "" to load only.
            save_to_disk: False makes `save` do nothing (all processes but one).
            checkpointables: objects with `state_dict()` and `load_state_dict()`, saved under their keyword.
        """
        self.model = model.module if isinstance(model, (DataParallel, DistributedDataParallel)) else model
        self.save_dir = save_dir
        self.save_to_disk = save_to_disk
        self.checkpointables: dict[str, Any] = {}
        self.logger = logging.getLogger(__name__)
        self.path_manager = PathManager
        for key, checkpointable in checkpointables.items():
            self.add_checkpointable(key, checkpointable)

    def add_checkpointable(self, key: str, checkpointable: Any) -> None:
        """Save and load `checkpointable` too, under `key`."""
        if key == "model" or key in self.checkpointables:
            raise KeyError(f"the checkpoint has an entry {key!r} already")
        if not hasattr(checkpointable, "state_dict"):
            raise TypeError(f"{key!r}: {type(checkpointable).__name__} has no state_dict()")
        self.checkpointables[key] = checkpointable

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir/name.pth` and make it the last checkpoint.

        Args:
            name: file name without `.pth`.
            kwargs: more entries; tensors, numbers, strings and containers of them.

        Raises:
            FloatingPointError: a parameter is NaN or infinite; nothing is written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        self._refuse_non_finite()
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data.update((key, item.state_dict()) for key, item in self.checkpointables.items())
        data.update(kwargs)
        os.makedirs(self.save_dir, exist_ok=True)
        file_name = f"{name}.pth"
        path = os.path.join(self.save_dir, file_name)
        plain = to_plain(data)
        with write_atomically(path) as file:
            torch.save(plain, file)
        self.tag_last_checkpoint(file_name)
        self.logger.info(f"Checkpoint saved: {path}")

    def _refuse_non_finite(self) -> None:
        named = [(name, p) for name, p in self.model.named_parameters() if p.is_floating_point()]
        with torch.no_grad():
            finite = [torch.isfinite(p).all() for _, p in named]
        bad = [name for (name, _), is_finite in zip(named, finite, strict=True) if not bool(is_finite)]
        if bad:
            raise FloatingPointError(
                f"{len(bad)} parameters are NaN or infinite (first {bad[0]}); the checkpoint is not written"
            )

    def load(
        self, path: str, checkpointables: list[str] | None = None, *, match: str = "overlap"
    ) -> dict[str, Any]:
        """Fill the model, and the checkpointables that the file has, from a file.

        Args:
            path: a file (`.pth`, `.pkl`, `.safetensors`) or address (`https://`, `detectron2://`), of
                Detectron2, Detectron1, Caffe2, torchvision or ours; "" loads nothing.
            checkpointables: names of the checkpointables to load; all by default.
            match: "overlap" loads what fits and keeps the rest as initialised (fine-tuning, say with another
                number of classes), with a table of what was left; "parameters" demands every parameter
                (evaluation); "exact" demands the same names and shapes, and every checkpointable (resuming).

        Returns:
            The entries of the file that were not loaded into anything, such as `iteration`.

        Raises:
            InputError: the file is missing, damaged, or does not fit; the model is untouched then.
        """
        if match not in MATCH_MODES:
            raise ValueError(f"match is {match!r}; allowed: {', '.join(MATCH_MODES)}")
        if not path:
            self.logger.info("No checkpoint is given: the model keeps the weights it was built with")
            return {}
        by_suffix = path.endswith(MATCH_BY_SUFFIX)
        path = local_path(path)
        checkpoint = self._load_file(path)
        by_suffix |= checkpoint.pop("matching_heuristics", False) is True
        checkpoint["model"] = as_tensors(path, checkpoint["model"])
        own = self.model.state_dict(keep_vars=True)
        # A model of several networks says what stands before the names of each, such as "detector.".
        fronts = getattr(self.model, "networks", ())
        checkpoint["model"], notes = fit_names_of_networks(
            path, checkpoint["model"], own, fronts, by_suffix=by_suffix
        )
        refuse_other_model(path, self.model, checkpoint["model"])
        wanted = list(self.checkpointables if checkpointables is None else checkpointables)
        if match == "exact" and (absent := [key for key in wanted if key not in checkpoint]):
            raise InputError(
                f"{path}: holds no {', '.join(absent)}, so that a run cannot be resumed from it; "
                "set MODEL.WEIGHTS to it and leave out --resume"
            )
        if match != "overlap":
            keys = match_state_dict(self.model, checkpoint["model"])
            require_match(path, self.model, keys, exact=match == "exact")
        self.logger.info("; ".join([f"Weights are loaded from {path}", *notes]))
        self._log_incompatible_keys(self._load_model(checkpoint))
        self._load_checkpointables(path, checkpoint, wanted)
        return checkpoint

    def _load_checkpointables(self, path: str, checkpoint: dict[str, Any], wanted: Iterable[str]) -> None:
        for key in wanted:
            if key not in checkpoint:
                continue
            item, state = self.checkpointables[key], checkpoint.pop(key)
            try:
                if isinstance(item, torch.optim.Optimizer):
                    _load_optimizer(item, state)
                else:
                    item.load_state_dict(state)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: its {key!r} state does not fit this run ({error}); "
                    "resume with the config of that run"
                ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a local file into `{"model": state dict, ...}`. Subclasses add formats; arrays will do."""
        return read_checkpoint(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> IncompatibleKeys:
        """Take "model" out of `checkpoint` and load what fits into the model."""
        state = checkpoint.pop("model")
        keys = match_state_dict(self.model, state)
        wrong = {key for key, _, _ in keys.incorrect_shapes}
        fitting = {key: value for key, value in state.items() if key not in wrong}
        self.model.load_state_dict(fitting, strict=False)
        return keys

    def _log_incompatible_keys(self, incompatible: IncompatibleKeys | None) -> None:
        """Tell in one table what was loaded; as a warning if anything was left out."""
        if incompatible is None:
            return
        num_left = len(incompatible.missing_keys) + len(incompatible.incorrect_shapes)
        table = describe_match(len(self.model.state_dict()) - num_left, incompatible)
        counts = describe_class_counts(incompatible)
        if not any(incompatible):
            self.logger.info(f"The checkpoint fits the model:\n{table}")
            return
        if counts:
            counts = f": {counts}, so that the layers of another shape start as initialised"
        self.logger.warning(f"The checkpoint and the model differ{counts}:\n{table}")

    def has_checkpoint(self) -> bool:
        """Whether `save_dir` names a last checkpoint."""
        return self.path_manager.exists(os.path.join(self.save_dir, "last_checkpoint"))

    def get_checkpoint_file(self) -> str:
        """Path of the last checkpoint, "" if there is none.

        Raises:
            InputError: the file `last_checkpoint` is there but names nothing.
        """
        named_by = os.path.join(self.save_dir, "last_checkpoint")
        try:
            with self.path_manager.open(named_by, "rb") as file:
                name = file.read().decode(errors="replace").strip()
        except OSError:
            return ""
        if not name or not name.isprintable():
            found = "holds no file name" if name else "is empty"
            raise InputError(
                f"{named_by}: {found}; write the name of a checkpoint of that folder into it"
                f"{self._newest_checkpoint()}, or remove it to start from the beginning"
            )
        return os.path.join(self.save_dir, name)

    def _newest_checkpoint(self) -> str:
        """The checkpoint in `save_dir` that was written last, as the example in a message; "" for none."""
        files = self.get_all_checkpoint_files()
        return f", such as {os.path.basename(max(files, key=os.path.getmtime))}" if files else ""

    def get_all_checkpoint_files(self) -> list[str]:
        """Paths of all `.pth` files in `save_dir`, sorted by name."""
        if not os.path.isdir(self.save_dir):
            return []
        names = sorted(name for name in os.listdir(self.save_dir) if name.endswith(".pth"))
        return [os.path.join(self.save_dir, name) for name in names if not name.startswith(".")]

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the last checkpoint if `resume` and there is one; else load the model from `path`.

        On resuming, the file must match the model exactly and all checkpointables are loaded.
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        path = self.get_checkpoint_file()
        try:
            return self.load(path, match="exact")
        except InputError as error:
            named_by = os.path.join(self.save_dir, "last_checkpoint")
            raise InputError(f"{error} ({named_by} names the file to resume from)") from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make a file in `save_dir` the last checkpoint."""
        with write_atomically(os.path.join(self.save_dir, "last_checkpoint"), "w") as file:
            file.write(last_filename_basename)


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` that raises InputError for the state of another optimizer.

    Torch raises some KeyError for that, or (AdamW's state in SGD) nothing until the first step.
    """
    options = [set(group) for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        fits = all(own <= set(group) for own, group in zip(options, optimizer.param_groups, strict=True))
        cause = None
    except (ValueError, KeyError, TypeError) as error:
        fits, cause = False, error
    if not fits:
        raise InputError(
            "its 'optimizer' state is of another optimizer, or of other parameter groups, than this run's "
            f"{type(optimizer).__name__}; resume with the config of that run"
        ) from cause


class DetectionCheckpointer(Checkpointer):
    """A `Checkpointer` that writes in the main process only."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """As `Checkpointer`; `save_to_disk` defaults to whether this is the main process."""
        if save_to_disk is None:
            save_to_disk = distributed.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See `Checkpointer.load`."""
        return super().load(path, *args, **kwargs)
