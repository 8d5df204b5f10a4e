"""What a sweep came to: the facts that tables, plots and pages are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunOutcome:
    """One training of one variant.

    Args:
        seed: SEED of the run.
        status: "done", "failed" (it ended with an error), "interrupted" (it has not ended) or "missing" (it
            has not begun).
        scores: metric ("segm/AP") -> number; without what the run did not measure, or measured as NaN.
        cost: "seconds" of training, "seconds_per_iteration", "memory_mib" (peak, of the GPU where there was
            one, else of the process), "parameters", "flops" (of one inference); without what is not known.
        folder: where the run's files are, relative to the sweep's.
        error: the last line of a failed run.
    """

    seed: int
    status: str
    folder: Path
    scores: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class VariantOutcome:
    """A row of the table: one choice on each axis, and its runs in the order of the sweep's seeds.

    Args:
        choices: the name of the choice on each axis, in the axes' order.
        overrides: KEY -> VALUE, what the choices set, as text.
        runs: one for each seed.
    """

    choices: tuple[str, ...]
    overrides: Mapping[str, str]
    runs: tuple[RunOutcome, ...]

    @property
    def name(self) -> str:
        return ", ".join(self.choices)


@dataclass(frozen=True)
class SweepOutcome:
    """All of a sweep.

    Args:
        title: one line.
        notes: a paragraph, or "".
        axes: their names.
        metrics: the columns, such as "segm/AP75", in their order.
        seeds: of every variant.
        variants: the rows, in the sweep's order.
        baseline: the choices of the row that the others are compared with.
        command: what rebuilt or ran the sweep, for the reader to repeat.
        commit: of the code that ran, or several, comma-separated; "" where it is not known.
        overrides: KEY -> VALUE of all runs.
    """

    title: str
    notes: str
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    variants: tuple[VariantOutcome, ...]
    baseline: tuple[str, ...]
    command: str
    commit: str
    overrides: Mapping[str, str] = field(default_factory=dict)

    def baseline_variant(self) -> VariantOutcome:
        return next(variant for variant in self.variants if variant.choices == self.baseline)
