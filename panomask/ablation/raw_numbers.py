"""The numbers behind tables and plots as CSV, in full precision, for a spreadsheet or pandas.

UTF-8, one heading line, an empty field where there is no number.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome
from panomask.ablation.statistics import difference_to_baseline, scores_by_seed, summarize

_STATISTICS = ("mean", "std", "n", "difference", "difference low", "difference high", "difference n")


def scores_csv(outcome: SweepOutcome) -> str:
    """One line a variant: its choice on each axis, whether it is the baseline, how many runs are done.

    Then for each metric "METRIC mean", "METRIC std" (sample standard deviation), "METRIC n" (runs) and,
    against the baseline, "METRIC difference", "METRIC difference low", "METRIC difference high" (95 %
    confidence interval), "METRIC difference n" (pairs).

    Raises:
        InputError: scipy is missing.
    """
    fixed = ["baseline", "runs done", "runs"]
    headings = [*fixed, *(f"{metric} {name}" for metric in outcome.metrics for name in _STATISTICS)]
    rows = []
    for variant in outcome.variants:
        num_done = sum(run.status == "done" for run in variant.runs)
        row = [*variant.choices, variant.choices == outcome.baseline, num_done, len(variant.runs)]
        for metric in outcome.metrics:
            row += _statistics(outcome, variant, metric)
        rows.append(row)
    return _csv([*_axis_headings(outcome, headings), *headings], rows)


def runs_csv(outcome: SweepOutcome) -> str:
    """One line a run: choices, seed, status, every metric and cost that some run has, folder, error.

    The table's metrics come first. Units are those of RunOutcome.
    """
    runs = [(variant, run) for variant in outcome.variants for run in variant.runs]
    metrics = _union([outcome.metrics, *(run.scores for _, run in runs)])
    costs = _union(run.cost for _, run in runs)
    headings = ["seed", "status", *metrics, *costs, "folder", "error"]
    rows = [[*variant.choices, *_run_fields(run, metrics, costs)] for variant, run in runs]
    return _csv([*_axis_headings(outcome, headings), *headings], rows)


def _statistics(outcome: SweepOutcome, variant: VariantOutcome, metric: str) -> list[object]:
    summary = summarize(list(scores_by_seed(variant, metric).values()))
    fields: list[object] = [None, None, 0] if summary is None else [summary.mean, summary.std, summary.count]
    difference = difference_to_baseline(variant, outcome.baseline_variant(), metric)
    if difference is None:
        return [*fields, None, None, None, None]
    return [*fields, difference.mean, difference.low, difference.high, difference.count]


def _run_fields(run: RunOutcome, metrics: Sequence[str], costs: Sequence[str]) -> list[object]:
    scores, cost = [run.scores.get(name) for name in metrics], [run.cost.get(name) for name in costs]
    return [run.seed, run.status, *scores, *cost, run.folder.as_posix(), run.error]


def _axis_headings(outcome: SweepOutcome, others: Sequence[str]) -> list[str]:
    """The axes' names; one that is another column's name says that it is an axis."""
    return [f"{axis} (axis)" if axis in others else axis for axis in outcome.axes]


def _union(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return file.getvalue()
