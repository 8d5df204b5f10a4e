"""Mean and spread over seeds, and how sure a difference to the baseline is.

A seed fixes the order of the images and their augmentation, and the initial weights where two variants have
the same layers. Two variants trained with the same seed share that luck, and their difference may scatter
less than either score: differences are taken seed by seed (a paired t interval).
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from panomask.ablation.outcomes import VariantOutcome
from panomask.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Numbers in brief: how many, their mean, and their sample standard deviation (None for one number)."""

    count: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """Variant minus baseline, in the metric's unit.

    Args:
        count: seeds that both finished.
        mean: of the differences.
        low, high: ends of the 95 % confidence interval of the mean; None for one pair, which has no spread.
    """

    count: int
    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 lies outside of it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def require_ablation_packages() -> None:
    """InputError unless scipy and matplotlib are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("scipy", "matplotlib")):
        raise InputError("the report of an ablation needs scipy and matplotlib: pip install '.[ablation]'")


def scores_by_seed(variant: VariantOutcome, metric: str) -> dict[int, float]:
    """seed -> score of the runs that are done and measured the metric.

    A failed run may have been evaluated on its way; such a score is of a shorter training and does not count.
    """
    return {
        run.seed: run.scores[metric]
        for run in variant.runs
        if run.status == "done" and math.isfinite(run.scores.get(metric, math.nan))
    }


def summarize(values: Sequence[float]) -> Summary | None:
    """Count, mean and sample standard deviation; None for no values."""
    if not values:
        return None
    return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Mean difference over the seeds of both, with mean ± t(0.975, n-1) * std / sqrt(n).

    Args:
        ours: seed -> score of the variant.
        baseline: seed -> score of the baseline, in the same unit.

    Returns:
        None where they share no seed; a difference without interval where they share one.

    Raises:
        InputError: scipy is missing and an interval is due.
    """
    summary = summarize([ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())])
    if summary is None:
        return None
    if summary.std is None:
        return Difference(summary.count, summary.mean)
    require_ablation_packages()
    from scipy.stats import t as student_t

    quantile = float(student_t.ppf(0.5 + CONFIDENCE / 2, summary.count - 1))
    half_width = quantile * summary.std / math.sqrt(summary.count)
    return Difference(summary.count, summary.mean, summary.mean - half_width, summary.mean + half_width)


def difference_to_baseline(
    variant: VariantOutcome, baseline: VariantOutcome, metric: str
) -> Difference | None:
    """`paired_difference` of two variants; None for the baseline itself, too."""
    if variant.choices == baseline.choices:
        return None
    return paired_difference(scores_by_seed(variant, metric), scores_by_seed(baseline, metric))
