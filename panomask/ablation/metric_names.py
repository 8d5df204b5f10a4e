"""Metrics as a paper's column headings: "segm/AP75" is "mask AP75"."""

from collections import Counter
from collections.abc import Sequence

_TASKS = {
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "panoptic_seg": "",
    "sem_seg": "",
    "box_proposals": "proposal",
}
"""Task of an evaluator -> how a heading calls it; what PQ and mIoU are of needs no word."""
_PARTS_OF_PANOPTIC = {"_th": " things", "_st": " stuff"}


def metric_headings(metrics: Sequence[str]) -> tuple[str, ...]:
    """Short and distinct headings for metrics named "task/metric" or "data set/task/metric".

    The data set is part of a heading only where the metrics are of more than one. Metrics whose short forms
    are alike keep their full names.
    """
    parts = [_split(metric) for metric in metrics]
    several = len({data_set for data_set, _, _ in parts}) > 1
    short = [
        _short_name(task, name) + (f" ({data_set})" if several and data_set else "")
        for data_set, task, name in parts
    ]
    uses = Counter(short)
    return tuple(
        heading if uses[heading] == 1 else metric for heading, metric in zip(short, metrics, strict=True)
    )


def only_data_set(metrics: Sequence[str]) -> str:
    """The data set that all metrics name, or "" where they name none or several."""
    names = {_split(metric)[0] for metric in metrics}
    return names.pop() if len(names) == 1 else ""


def _split(metric: str) -> tuple[str, str, str]:
    """Data set, task, metric; the first two are "" where the name lacks them. Class names may hold a "/"."""
    first, _, rest = metric.partition("/")
    second, _, name = rest.partition("/")
    if not rest:
        return "", "", metric
    if first in _TASKS or not name:
        return "", first, rest
    return first, second, name


def _short_name(task: str, name: str) -> str:
    if task == "panoptic_seg":
        for ending, words in _PARTS_OF_PANOPTIC.items():
            name = name.removesuffix(ending) + words if name.endswith(ending) else name
    return f"{_TASKS.get(task, task)} {name}".strip()
