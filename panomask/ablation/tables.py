"""What the tables of a sweep say, before it is Markdown, LaTeX or HTML.

`score_table` depends on scores and on which runs ended, never on times: the same scores give the same table.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass

from panomask.ablation.metric_names import metric_headings, only_data_set
from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome
from panomask.ablation.statistics import Difference, difference_to_baseline, scores_by_seed, summarize

NOTHING = "\N{EN DASH}"
"""What a cell says that has no number."""
_TERMINAL_COLOR = re.compile("\x1b\\[[0-9;]*m")


@dataclass(frozen=True)
class Cell:
    """A number as text, and as it is to sort by; `is_strong` where an interval excludes 0."""

    text: str
    value: float | None = None
    is_strong: bool = False


@dataclass(frozen=True)
class Row:
    """A variant: its choices, one for each axis of the table, and its cells, one for each heading."""

    choices: tuple[str, ...]
    cells: tuple[Cell, ...]
    is_baseline: bool


@dataclass(frozen=True)
class Table:
    """A table of variants.

    Args:
        axes: headings of the choices; at least one.
        headings: of the cells.
        rows: in the sweep's order.
        notes: sentences on how to read it.
        gaps: one line for each run that is not done.
    """

    axes: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    gaps: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """Text without line breaks, control characters and a terminal's colours, which an error may hold."""
    text = _TERMINAL_COLOR.sub("", text)
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def score_table(outcome: SweepOutcome) -> Table:
    """For each metric mean ± sample standard deviation over seeds, beside it the difference to the baseline.

    A last column counts the finished runs where some variant lacks one.

    Raises:
        InputError: scipy is missing.
    """
    has_differences = len(outcome.variants) > 1
    has_gaps = any(run.status != "done" for variant in outcome.variants for run in variant.runs)
    headings: list[str] = []
    for heading in metric_headings(outcome.metrics):
        headings += [heading, f"Δ {heading}"] if has_differences else [heading]
    rows = []
    for variant in outcome.variants:
        cells: list[Cell] = []
        for metric in outcome.metrics:
            cells.append(_mean_cell(variant, metric))
            if has_differences:
                cells.append(_difference_cell(outcome, variant, metric))
        if has_gaps:
            cells.append(_runs_cell(variant))
        rows.append(_row(outcome, variant, cells))
    return Table(
        axes=_axes(outcome),
        headings=(*headings, "runs") if has_gaps else tuple(headings),
        rows=tuple(rows),
        notes=_score_notes(outcome, has_differences),
        gaps=_gaps(outcome),
    )


def _axes(outcome: SweepOutcome) -> tuple[str, ...]:
    return tuple(one_line(axis) for axis in outcome.axes) or ("variant",)


def _row(outcome: SweepOutcome, variant: VariantOutcome, cells: list[Cell]) -> Row:
    choices = tuple(one_line(choice) for choice in variant.choices) or ("as configured",)
    return Row(choices, tuple(cells), variant.choices == outcome.baseline)


def _mean_cell(variant: VariantOutcome, metric: str) -> Cell:
    summary = summarize(list(scores_by_seed(variant, metric).values()))
    if summary is None:
        return Cell(NOTHING)
    text = f"{summary.mean:.1f}" + ("" if summary.std is None else f" ± {summary.std:.1f}")
    num_done = sum(run.status == "done" for run in variant.runs)
    if summary.count < num_done:
        text += f" ({summary.count} of {num_done})"
    return Cell(text, summary.mean)


def _difference_cell(outcome: SweepOutcome, variant: VariantOutcome, metric: str) -> Cell:
    if variant.choices == outcome.baseline:
        return Cell("", 0.0)
    difference = difference_to_baseline(variant, outcome.baseline_variant(), metric)
    if difference is None:
        return Cell(NOTHING)
    return Cell(difference_text(difference), difference.mean, difference.excludes_zero)


def difference_text(difference: Difference) -> str:
    """As in "+3.4 [1.2, 5.6]", or "+3.4" without an interval. "-0.0" says on which side of 0 an end lies."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.1f}"
    return f"{difference.mean:+.1f} [{difference.low:.1f}, {difference.high:.1f}]"


def _runs_cell(variant: VariantOutcome) -> Cell:
    counts = Counter(run.status for run in variant.runs)
    num_done, num_runs = counts.pop("done", 0), len(variant.runs)
    why = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Cell(f"{num_done} of {num_runs} runs" + (f" ({why})" if why else ""), num_done)


def _score_notes(outcome: SweepOutcome, has_differences: bool) -> tuple[str, ...]:
    seeds = ", ".join(map(str, outcome.seeds))
    where = f" on {only_data_set(outcome.metrics)}" if only_data_set(outcome.metrics) else ""
    if len(outcome.seeds) == 1:
        notes = [f"Scores in percent{where}, of one run each (seed {seeds})."]
    else:
        notes = [
            f"Scores in percent{where}: mean ± sample standard deviation over the runs of seeds {seeds}."
        ]
    if has_differences and len(outcome.seeds) == 1:
        notes.append("Δ: difference to the baseline; one seed gives no interval.")
    elif has_differences:
        notes.append(
            "Δ: difference to the baseline over the seeds that both finished, paired by seed, with its 95 %"
            " confidence interval (Student's t), bold where it excludes 0; not corrected for the number of"
            " comparisons."
        )
    return tuple(notes)


def _gaps(outcome: SweepOutcome) -> tuple[str, ...]:
    return tuple(
        f"{one_line(variant.name) or 'as configured'}, seed {run.seed}: {gap_text(run)}"
        for variant in outcome.variants
        for run in variant.runs
        if run.status != "done"
    )


def gap_text(run: RunOutcome) -> str:
    """Why a run is not done: its status, and its error if there is one."""
    return f"{run.status} ({one_line(run.error)})" if run.error else run.status


def cost_table(outcome: SweepOutcome) -> Table:
    """Training time, seconds an iteration, peak memory, parameters and GFLOPs: means over finished runs.

    What no run knows has no column. A column's numbers share unit and decimals: three digits of the largest.
    """
    means = {
        key: [_mean_cost(variant, key) for variant in outcome.variants]
        for key in ("seconds", "seconds_per_iteration", "memory_mib", "parameters", "flops")
    }
    headings, columns = [], []
    for key, numbers in means.items():
        known = [number for number in numbers if number is not None]
        if known:
            heading, unit = _unit(key, max(known))
            headings.append(heading)
            columns.append(_cost_cells(numbers, unit))
    rows = [
        _row(outcome, variant, [column[idx] for column in columns])
        for idx, variant in enumerate(outcome.variants)
    ]
    notes = ["Means over the finished runs."] if headings else ["No run has told its cost."]
    if means["memory_mib"] != [None] * len(rows):
        notes.append("Peak memory is the GPU's where there was one, else the process's.")
    if means["flops"] != [None] * len(rows):
        notes.append("GFLOPs are of one inference.")
    return Table(_axes(outcome), tuple(headings), tuple(rows), tuple(notes))


def _mean_cost(variant: VariantOutcome, key: str) -> float | None:
    known = [run.cost[key] for run in variant.runs if run.status == "done" and key in run.cost]
    summary = summarize([number for number in known if math.isfinite(number)])
    return None if summary is None else summary.mean


def _unit(key: str, largest: float) -> tuple[str, float]:
    """Heading of a column whose largest number is `largest`, and what its numbers are divided by."""
    if key == "seconds":
        for name, unit in (("h", 3600), ("min", 60)):
            if largest >= 2 * unit:
                return f"training ({name})", unit
        return "training (s)", 1
    if key == "memory_mib":
        return ("memory (GiB)", 1024) if largest >= 10 * 1024 else ("memory (MiB)", 1)
    if key == "parameters":
        return "parameters (M)", 1e6
    return ("GFLOPs", 1e9) if key == "flops" else ("s/iteration", 1)


def _cost_cells(numbers: list[float | None], unit: float) -> list[Cell]:
    largest = max(number / unit for number in numbers if number is not None)
    decimals = min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
    return [
        Cell(NOTHING) if number is None else Cell(f"{number / unit:.{decimals}f}", number)
        for number in numbers
    ]
