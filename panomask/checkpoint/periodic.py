"""Save every so many iterations and at the end; keep the newest few."""

import os
import re
from typing import Any

from panomask.checkpoint.checkpointer import Checkpointer


class PeriodicCheckpointer:
    """Calls `checkpointer.save` when an iteration is due.

    Files are `{file_prefix}_{iteration:07d}.pth` and, after the last iteration, `{file_prefix}_final.pth`.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
    ) -> None:
        """
        Args:
            checkpointer: what saves.
            period: iterations between two files.
            max_iter: number of iterations of the run; `_final` is saved after the last one.
            max_to_keep: number of periodic files to keep, those of an earlier, resumed process included;
                all by default. `_final` is always kept.
            file_prefix: beginning of the file names.
        """
        if max_to_keep is not None and max_to_keep <= 0:
            raise ValueError(f"max_to_keep is {max_to_keep}; at least one checkpoint must be kept")
        self.checkpointer = checkpointer
        self.period = int(period)
        self.max_iter = max_iter
        self.max_to_keep = max_to_keep
        self.file_prefix = file_prefix
        self.path_manager = checkpointer.path_manager

    def is_due(self, iteration: int) -> bool:
        """Whether `step(iteration)` saves something."""
        return self._is_periodic(iteration) or self._is_last(iteration)

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save if `iteration` is due, then delete periodic files beyond `max_to_keep`.

        Args:
            iteration: the iteration just finished, from 0.
            kwargs: more entries for the checkpoint.
        """
        iteration = int(iteration)
        entries = {"iteration": iteration, **kwargs}
        if self._is_periodic(iteration):
            self.checkpointer.save(f"{self.file_prefix}_{iteration:07d}", **entries)
            self._delete_old(iteration)
        if self._is_last(iteration):
            self.checkpointer.save(f"{self.file_prefix}_final", **entries)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save now, under `name`."""
        self.checkpointer.save(name, **kwargs)

    def _is_periodic(self, iteration: int) -> bool:
        return self.period > 0 and (iteration + 1) % self.period == 0

    def _is_last(self, iteration: int) -> bool:
        return self.max_iter is not None and iteration >= self.max_iter - 1

    def _delete_old(self, iteration: int) -> None:
        if self.max_to_keep is None or not self.checkpointer.save_to_disk:
            return
        pattern = re.compile(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth")
        found = []
        for path in self.checkpointer.get_all_checkpoint_files():
            match = pattern.fullmatch(os.path.basename(path))
            if match and int(match[1]) <= iteration:
                found.append((int(match[1]), path))
        for _, path in sorted(found)[: -self.max_to_keep]:
            os.remove(path)
