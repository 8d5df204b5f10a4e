"""What a benchmark says: the machine, a table for people, JSON for programs."""

import dataclasses
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torchvision
from tabulate import tabulate

from panomask.benchmark.comparison import Measurement

_HEADERS = ["what", "beside", "beside, s", "panomask, s", "times as fast", "target", "results agree"]


def describe_machine() -> dict[str, Any]:
    """What the times depend on, by name."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    if hasattr(os, "getloadavg"):
        described["load"] = round(os.getloadavg()[0], 1)
    return described


def _processor() -> str:
    """Its name, on Linux from where the kernel tells it: Python knows no more than the architecture there."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def markdown_table(measurements: Sequence[Measurement]) -> str:
    """One line a comparison: medians of the times, the median of the ratios with its quartiles."""
    rows = [
        [
            *(m.name, m.reference_name),
            *(_in_digits(statistics.median(times)) for times in (m.reference, m.ours)),
            *(_ratio(m.ratios), _target(m), m.agreement),
        ]
        for m in measurements
    ]
    alignments = ("left", "left", "right", "right", "right", "left", "left")
    return tabulate(rows, _HEADERS, tablefmt="pipe", disable_numparse=True, colalign=alignments)


def _in_digits(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= 0.1 else f"{seconds:.3g}"


def _ratio(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _target(measurement: Measurement) -> str:
    if measurement.target is None:
        return ""
    return f"{measurement.target:g} {'met' if measurement.is_met else 'MISSED'}"


def as_json(measurements: Sequence[Measurement], machine: dict[str, Any], command: str) -> dict[str, Any]:
    """All that was measured; times are seconds, one a round."""
    rows = [
        {**dataclasses.asdict(m), "ratio": m.ratio, "met": None if m.target is None else m.is_met}
        for m in measurements
    ]
    return {"command": command, "machine": machine, "comparisons": rows}
