"""What an evaluation returned, as text, as flat scalars, and against expected values.

Results are `{task: {metric: number}}`, or `{dataset: {task: {metric: number}}}` for several data sets. A
metric `AP-name` is the AP of one class, `IoU-name` its IoU. Numbers are percentages; NaN says that there is
nothing to measure.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tabulate import tabulate

logger = logging.getLogger(__name__)

Results = Mapping[str, Any]


def mean_measured(values: np.ndarray) -> float:
    """Mean of the numbers that are not NaN; NaN where there are none."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else float("nan")


def flatten_results_dict(results: Results) -> dict[str, Any]:
    """`{"bbox": {"AP": 1.0}}` as `{"bbox/AP": 1.0}`, to any depth: names for a storage of scalars."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": number for inner, number in flatten_results_dict(value).items()}
        else:
            flat[name] = value
    return flat


def print_csv_format(results: Results) -> None:
    """Log each task's main metrics as lines of names and of numbers that paste into a spreadsheet."""
    for task, metrics in results.items():
        metrics = metrics if isinstance(metrics, Mapping) else {task: metrics}
        main = {name: value for name, value in metrics.items() if "-" not in name}
        numbers = (f"{value:.4f}" if isinstance(value, float) else str(value) for value in main.values())
        logger.info("%s\n%s\n%s", task, ",".join(main), ",".join(numbers))


def results_table(results: Results) -> str:
    """The results as Markdown, readable on a console too: the tasks' metrics, then those of each class.

    Tasks that share metrics share a table.

    Args:
        results: `{task: {metric: number}}`, or the same under a data set's name.
    """
    if _depth(results) < 3:
        return _tables_of_one_data_set(results)
    return "\n\n".join(f"{name}\n\n{_tables_of_one_data_set(tasks)}" for name, tasks in results.items())


def _depth(results: Any) -> int:
    if not isinstance(results, Mapping):
        return 0
    return 1 + max((_depth(value) for value in results.values()), default=0)


def _tables_of_one_data_set(tasks: Results) -> str:
    bare = {name: {"value": value} for name, value in tasks.items() if not isinstance(value, Mapping)}
    tasks = {task: metrics for task, metrics in tasks.items() if isinstance(metrics, Mapping) and metrics}
    if not tasks:
        return _table("metric", bare) if bare else "(no results)"
    overall = {
        task: {key: value for key, value in metrics.items() if _split_name(key)[1] is None}
        for task, metrics in tasks.items()
    }
    tables = [_table("task", group) for group in _sharing_columns(overall)]
    if bare:
        tables.append(_table("metric", bare))
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, None] = {}
    for task, metrics in tasks.items():
        for key, value in metrics.items():
            metric, name = _split_name(key)
            if name is not None:
                columns[f"{task} {metric}"] = None
                rows.setdefault(name, {})[f"{task} {metric}"] = value
    rows = {name: {column: row.get(column) for column in columns} for name, row in rows.items()}
    if rows:
        tables.append(_table("class", rows))
    return "\n\n".join(tables)


def _split_name(key: str) -> tuple[str, str | None]:
    """Metric and class of "AP-traffic-light"; what is in parentheses, "min(IoU, B-Iou)-x", stays whole."""
    found = _CLASS_METRIC.fullmatch(key)
    return (found[1], found[2]) if found else (key, None)


_CLASS_METRIC = re.compile(r"((?:[^-(]|\([^)]*\))*)-(.*)", re.DOTALL)


def _sharing_columns(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """The rows in groups, each row with the first group that has a column of it."""
    groups: list[dict[str, Mapping[str, Any]]] = []
    for name, row in rows.items():
        group = next((g for g in groups if any(row.keys() & other.keys() for other in g.values())), None)
        if group is None:
            groups.append(group := {})
        group[name] = row
    return groups


def _table(corner: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = _union(rows.values())
    body = [
        [" ".join(name.split()).replace("|", "/"), *(_cell(row.get(column)) for column in columns)]
        for name, row in rows.items()
    ]
    alignment = ("left", *("right" for _ in columns))
    return tabulate(body, [corner, *columns], tablefmt="pipe", colalign=alignment, disable_numparse=True)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _union(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def unmet_expectations(expected: Iterable[tuple[str, str, float, float]], results: Results) -> list[str]:
    """One line for each (task, metric, value, tolerance) missed; a NaN or absent metric is a miss."""
    misses = []
    for task, metric, value, tolerance in expected:
        actual = results.get(task, {}).get(metric)
        if actual is None:
            misses.append(f"{task}/{metric}: expected {value} +- {tolerance}, not among the results")
        elif not math.isfinite(actual) or abs(actual - value) > tolerance:
            misses.append(f"{task}/{metric}: expected {value} +- {tolerance}, got {actual}")
    return misses
