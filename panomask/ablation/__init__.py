"""Sweeps of trainings: their runs, and the tables, plots and pages that come of them."""

from panomask.ablation.collection import collect
from panomask.ablation.execution import execute
from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome
from panomask.ablation.report import write_report
from panomask.ablation.run_folder import Run, plan_runs
from panomask.ablation.run_lock import locked_folder
from panomask.ablation.statistics import require_ablation_packages
from panomask.ablation.sweep import (
    Axis,
    Choice,
    Sweep,
    Variant,
    check_seeds,
    load_sweep,
    read_sweep,
    with_overrides,
    write_sweep,
)

__all__ = [
    "Axis",
    "Choice",
    "Run",
    "RunOutcome",
    "Sweep",
    "SweepOutcome",
    "Variant",
    "VariantOutcome",
    "check_seeds",
    "collect",
    "execute",
    "load_sweep",
    "locked_folder",
    "plan_runs",
    "read_sweep",
    "require_ablation_packages",
    "with_overrides",
    "write_report",
    "write_sweep",
]
