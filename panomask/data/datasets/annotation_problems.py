"""What happens to bad annotations: the first one stops the reader, or all are left out and counted."""

import logging
from collections import Counter
from pathlib import Path

from panomask.data.datasets.coco_annotations import BadAnnotation
from panomask.data.log_once import log_once
from panomask.errors import InputError

logger = logging.getLogger(__name__)


class AnnotationProblems:
    """Collects the faults of one annotation file.

    Args:
        on_bad: "refuse" raises at the first fault; "drop" counts them.
        total: number of annotations in the file.
        noun: what an annotation is called in the messages.

    Raises:
        InputError: another `on_bad`.
    """

    def __init__(
        self, json_file: str | Path, on_bad: str, total: int = 0, *, noun: str = "annotation"
    ) -> None:
        if on_bad not in ("refuse", "drop"):
            raise InputError(
                f'on_bad (DATASETS.ON_BAD_ANNOTATION) is {on_bad!r}; allowed are "refuse" and "drop"'
            )
        self.json_file = json_file
        self.on_bad = on_bad
        self.total = total
        self.noun = noun
        self.counts: Counter[str] = Counter()
        self.first = ""

    def add(self, where: str, bad: BadAnnotation) -> None:
        """Raise InputError, or note the fault in "drop" mode."""
        if self.on_bad == "refuse":
            raise InputError(
                f"{self.json_file}: {where}: {bad}; correct or remove the {self.noun}, or leave out all bad"
                " ones by DATASETS.ON_BAD_ANNOTATION drop (convert_panoptic.py: --drop-bad)"
            )
        self.first = self.first or f"{where}: {bad}"
        self.counts[bad.kind if not bad.rest else f"{bad.kind} (object kept with its other polygons)"] += 1

    def log_summary(self, *, nothing_left: bool = False) -> None:
        """One line about all that was left out, if anything was; InputError when nothing is left."""
        if self.counts and (nothing_left or self.counts.total() >= self.total):
            what = f"all {self.total} {self.noun}s are bad" if self.total else f"there is no {self.noun}"
            raise InputError(f"{self.json_file}: {what}. The first: {self.first}")
        if self.counts:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in self.counts.most_common())
            log_once(
                logger,
                ("bad", str(self.json_file), kinds, self.first),
                "%s: %d of %d %ss are bad and left out: %s. The first: %s",
                *(self.json_file, self.counts.total(), self.total, self.noun, kinds, self.first),
                level=logging.WARNING,
            )
