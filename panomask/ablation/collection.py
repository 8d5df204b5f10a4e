"""From the folders of a sweep's runs to what its tables say."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from panomask.ablation.model_cost import measure_model
from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome
from panomask.ablation.run_folder import (
    CONFIG_FILE,
    RUN_FILE,
    attempts_of,
    read_mapping,
    read_record,
    read_results,
)
from panomask.ablation.sweep import Sweep, Variant, load_sweep
from panomask.errors import nearest_names
from panomask.json_file import write_json

logger = logging.getLogger(__name__)

MODEL_COST_FILE = "model_cost.json"
_MAIN_METRICS = ("AP", "PQ", "mIoU", "AR@1000")
"""Of a task that the sweep names no metric of, the first of these that it has."""


def collect(folder: Path) -> SweepOutcome:
    """What has become of the sweep in a folder, from its files alone.

    A broken file of a run is warned of and leaves a gap.

    Raises:
        InputError: no sweep in the folder, or a broken one.
    """
    sweep = load_sweep(folder)
    variants = sweep.variants()
    records = {v.place(seed): read_record(folder / v.place(seed)) for v in variants for seed in sweep.seeds}
    results = {
        place: read_results(folder / place) if record.get("status") == "done" else None
        for place, record in records.items()
    }
    data_sets = {name for found in results.values() for name in found or ()}
    outcomes = []
    for variant in variants:
        runs = []
        for seed in sweep.seeds:
            place = variant.place(seed)
            scores = _scores(results[place], sweep.metrics, is_one=len(data_sets) == 1)
            runs.append(_run_outcome(folder, place, seed, records[place], scores))
        outcomes.append(VariantOutcome(variant.choices, _own_overrides(sweep, variant), tuple(runs)))
    attempts = [attempt for record in records.values() for attempt in attempts_of(record)]
    return SweepOutcome(
        title=sweep.title,
        notes=sweep.notes,
        axes=tuple(axis.name for axis in sweep.axes),
        metrics=_metrics(folder, sweep, outcomes),
        seeds=sweep.seeds,
        variants=tuple(outcomes),
        baseline=sweep.baseline,
        command=sweep.command,
        commit=", ".join(dict.fromkeys(attempt["commit"] for attempt in attempts if attempt.get("commit"))),
        overrides=sweep.overrides,
    )


def _own_overrides(sweep: Sweep, variant: Variant) -> Mapping[str, str]:
    """What tells a variant from the others; its base config too, where it has one of its own."""
    chosen = {key for axis in sweep.axes for choice in axis.choices for key in choice.overrides}
    own = {key: value for key, value in variant.overrides.items() if key in chosen}
    return own if variant.base == sweep.base else {"--config-file": variant.base, **own}


def _run_outcome(
    output: Path, place: Path, seed: int, record: Mapping[str, Any], scores: Mapping[str, float] | None
) -> RunOutcome:
    """`scores` are None where the run is not done."""
    folder = output / place
    if scores is None:
        has_failed = record.get("status") == "failed"
        status = "failed" if has_failed else "interrupted" if (folder / RUN_FILE).is_file() else "missing"
        return RunOutcome(seed, status, place, error=str(record.get("error", "")) if has_failed else "")
    return RunOutcome(seed, "done", place, scores, {**_training_cost(folder), **_model_cost(folder, record)})


def _scores(
    results: Mapping[str, Any] | None, metrics: Sequence[str], *, is_one: bool
) -> dict[str, float] | None:
    """Every finite number of a results.json, as "data set/task/metric".

    Where all runs have one data set, `is_one`, its name is left out, but for `metrics` that have it.
    """
    if results is None:
        return None
    found = {}
    for data_set, tasks in results.items():
        for task, of_task in tasks.items() if isinstance(tasks, dict) else ():
            for metric, value in of_task.items() if isinstance(of_task, dict) else ():
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    continue
                long = f"{data_set}/{task}/{metric}"
                found[f"{task}/{metric}" if is_one else long] = float(value)
                if long in metrics:
                    found[long] = float(value)
    return found


def _metrics(folder: Path, sweep: Sweep, variants: Sequence[VariantOutcome]) -> tuple[str, ...]:
    """The columns: those that the sweep names, or else the main one of each task."""
    measured = list(dict.fromkeys(name for v in variants for run in v.runs for name in run.scores))
    for metric in sweep.metrics if measured else ():
        if metric not in measured:
            near = ", ".join(nearest_names(metric, measured)) or ", ".join(measured[:8])
            logger.warning(f"{folder}: no run has measured the metric {metric!r}; nearest: {near}")
    if sweep.metrics:
        return sweep.metrics
    # Without the data set, where there is only one.
    depth = min((name.count("/") for name in measured), default=0)
    by_task: dict[str, list[str]] = {}
    for name in measured:
        if name.count("/") == depth:
            by_task.setdefault(name.rpartition("/")[0], []).append(name)
    return tuple(
        next((f"{task}/{main}" for main in _MAIN_METRICS if f"{task}/{main}" in names), names[0])
        for task, names in by_task.items()
    )


def _training_cost(folder: Path) -> dict[str, float]:
    """Seconds and memory from metrics.json; of an interrupted run too, as if it had not been."""
    lines = _metric_lines(folder / "metrics.json")
    timed = [line for line in lines if "time" in line]
    cost = {}
    if timed:
        seconds = median(line["time"] for line in timed)
        # The line of the evaluation comes after the last iteration, and has no time.
        iterations = max(line["iteration"] for line in timed) + 1
        cost = {"seconds_per_iteration": seconds, "seconds": seconds * iterations}
    memory = [line["max_mem"] for line in lines if "max_mem" in line]
    return {**cost, "memory_mib": max(memory)} if memory else cost


def _metric_lines(path: Path) -> list[dict[str, float]]:
    """The numbers in each line; what is no JSON, such as a line that a kill cut short, is left out."""
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for words in text.splitlines():
        try:
            line = json.loads(words)
        except json.JSONDecodeError:
            continue
        numbers = line.items() if isinstance(line, dict) else ()
        found = {k: v for k, v in numbers if isinstance(v, int | float) and math.isfinite(v)}
        if "iteration" in found:
            lines.append(found)
    return lines


def _model_cost(folder: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """Parameters and FLOPs of the trained model, measured once and kept in the run's folder."""
    known = read_mapping(folder / MODEL_COST_FILE, "it is measured again")
    weights = folder / "model_final.pth"
    if known is not None or not weights.is_file():
        return known or {}
    project = ["PROJECT", str(record["project"])] if record.get("project") else []
    try:
        cost = measure_model(folder / CONFIG_FILE, ["MODEL.WEIGHTS", str(weights), *project])
    except Exception as error:  # a project's code may raise anything, and a table must not fail for it
        logger.warning(f"{folder}: parameters and FLOPs are not known ({type(error).__name__}: {error})")
        return {}
    write_json(folder / MODEL_COST_FILE, cost)
    return cost
