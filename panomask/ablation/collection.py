"""From the folders of a sweep's runs to what its tables say."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from panomask.ablation.model_cost import measure_model
from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome
from panomask.ablation.run_folder import CONFIG_FILE, RESULTS_FILE, RUN_FILE
from panomask.ablation.sweep import Sweep, Variant, load_sweep
from panomask.engine.project import project_folder_of
from panomask.errors import InputError, nearest_names
from panomask.json_file import read_json, write_json

logger = logging.getLogger(__name__)

MODEL_COST_FILE = "model_cost.json"
_MAIN_METRICS = ("AP", "PQ", "mIoU", "AR@1000")
"""Of a task that the sweep names no metric of, the first of these that it has."""


def collect(folder: Path) -> SweepOutcome:
    """What has become of the sweep in a folder, from its files alone.

    Raises:
        InputError: no sweep in the folder, a broken file, or a metric that no run has measured.
    """
    sweep = load_sweep(folder)
    variants = [
        VariantOutcome(
            choices=variant.choices,
            overrides=_own_overrides(sweep, variant),
            runs=tuple(_run_outcome(folder, sweep, variant, seed) for seed in sweep.seeds),
        )
        for variant in sweep.variants()
    ]
    records = [_record(folder / run.folder) for variant in variants for run in variant.runs]
    commits = sorted({str(record["commit"]) for record in records if record.get("commit")})
    return SweepOutcome(
        title=sweep.title,
        notes=sweep.notes,
        axes=tuple(axis.name for axis in sweep.axes),
        metrics=_metrics(folder, sweep, variants),
        seeds=sweep.seeds,
        variants=tuple(variants),
        baseline=sweep.baseline,
        command=sweep.command,
        commit=", ".join(commits),
    )


def _own_overrides(sweep: Sweep, variant: Variant) -> Mapping[str, str]:
    """What tells a variant from the others; its base config too, where it has one of its own."""
    own = {key: value for key, value in variant.overrides.items() if key not in {*sweep.overrides, "PROJECT"}}
    return own if variant.base == sweep.base else {"--config-file": variant.base, **own}


def _run_outcome(output: Path, sweep: Sweep, variant: Variant, seed: int) -> RunOutcome:
    relative = Path(variant.folder) / f"seed_{seed}"
    folder = output / relative
    record = _record(folder)
    is_done = record.get("status") == "done" and (folder / RESULTS_FILE).is_file()
    if not is_done:
        status = "failed" if record.get("status") == "failed" else "interrupted" if record else "missing"
        return RunOutcome(seed, status, relative, error=str(record.get("error", "")))
    cost = {**_training_cost(folder), **_model_cost(folder, record)}
    return RunOutcome(seed, "done", relative, scores=_scores(folder / RESULTS_FILE, sweep.metrics), cost=cost)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    return read_json(path) if path.is_file() else {}


def _scores(path: Path, metrics: Sequence[str]) -> dict[str, float]:
    """Every number of a results.json, as "data set/task/metric"; of one data set as "task/metric".

    `metrics` of the sweep may have the data set's name all the same.
    """
    results = read_json(path)
    found = {}
    for data_set, tasks in results.items():
        for task, of_task in tasks.items() if isinstance(tasks, dict) else ():
            for metric, value in of_task.items() if isinstance(of_task, dict) else ():
                if not isinstance(value, int | float):
                    continue
                short, long = f"{task}/{metric}", f"{data_set}/{task}/{metric}"
                found[short if len(results) == 1 else long] = float(value)
                if long in metrics:
                    found[long] = float(value)
    return found


def _metrics(folder: Path, sweep: Sweep, variants: Sequence[VariantOutcome]) -> tuple[str, ...]:
    """The columns: those that the sweep names, which some run must have, or the main one of each task."""
    measured = [name for variant in variants for run in variant.runs for name in run.scores]
    measured = list(dict.fromkeys(measured))
    for metric in sweep.metrics if measured else ():
        if metric not in measured:
            near = ", ".join(nearest_names(metric, measured)) or ", ".join(measured[:8])
            raise InputError(f"{folder}: no run has measured the metric {metric!r}; nearest: {near}")
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
    seconds = [line["time"] for line in lines if line.get("time")]
    memory = [line["max_mem"] for line in lines if line.get("max_mem")]
    cost: dict[str, float] = {}
    if seconds:
        # The line of the evaluation comes after the last iteration.
        iterations = max(int(line["iteration"]) for line in lines if line.get("time")) + 1
        cost = {"seconds_per_iteration": median(seconds), "seconds": median(seconds) * iterations}
    return {**cost, "memory_mib": max(memory)} if memory else cost


def _metric_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # cut short by a kill
        if isinstance(line, dict) and "iteration" in line:
            lines.append(line)
    return lines


def _model_cost(folder: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """Parameters and FLOPs of the trained model, measured once and kept in the run's folder."""
    path = folder / MODEL_COST_FILE
    if path.is_file():
        return read_json(path)
    weights = folder / "model_final.pth"
    if not weights.is_file():
        return {}
    project = record["overrides"].get("PROJECT") or project_folder_of(record["base"])
    try:
        cost = measure_model(
            folder / CONFIG_FILE,
            ["MODEL.WEIGHTS", str(weights), *(["PROJECT", str(project)] if project else [])],
        )
    except InputError as error:  # the data may be elsewhere now, or the project's code gone: scores stand
        logger.warning(f"{folder}: parameters and FLOPs are not known ({error})")
        return {}
    write_json(path, cost)
    return cost
