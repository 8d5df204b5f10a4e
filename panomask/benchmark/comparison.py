"""Two ways to do one thing, timed in turn in one process.

Times differ from minute to minute by more than the ways do; the ratio of two runs one after the other does
not. So each round runs both, the one that begins changing from round to round, and what counts is the median
of the rounds' ratios.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

DEFAULT_ROUNDS = 9


class Disagreement(Exception):
    """Two ways give different results: one of them is wrong, and their times say nothing."""


@dataclass(frozen=True)
class Comparison:
    """One row of a benchmark, before it is measured.

    Args:
        name: what is done, with the sizes that matter.
        ours, reference: do it once and return the result.
        reference_name: what a user would take instead.
        agreement: given both results (ours first), says in a few words how equal they are; raises
            AssertionError where they are not equal enough to be compared.
        target: how many times as fast ours is meant to be; None: nothing was promised.
        rounds: at most so many, for what takes long; None: as many as asked for.
        warmup: untimed runs of both before the first round, beside the one whose results are compared.
    """

    name: str
    ours: Callable[[], Any]
    reference: Callable[[], Any]
    reference_name: str
    agreement: Callable[[Any, Any], str]
    target: float | None = None
    rounds: int | None = None
    warmup: int = 0


@dataclass(frozen=True)
class Measurement:
    """One row, measured. Times are seconds."""

    name: str
    reference_name: str
    ours: list[float]
    reference: list[float]
    agreement: str
    target: float | None = None
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        ratios = [slow / fast for fast, slow in zip(self.ours, self.reference, strict=True)]
        object.__setattr__(self, "ratios", ratios)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: the median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether the target is reached; true where there is none."""
        return self.target is None or self.ratio >= self.target


def measure(comparison: Comparison, rounds: int = DEFAULT_ROUNDS) -> Measurement:
    """Compare the results of both ways, then time them for `rounds` rounds.

    Raises:
        Disagreement: the results do not agree.
    """
    try:
        agreement = comparison.agreement(comparison.ours(), comparison.reference())
    except AssertionError as error:
        raise Disagreement(f"{comparison.name}, beside {comparison.reference_name}: {error}") from error
    ways = (comparison.ours, comparison.reference)
    for way in ways * comparison.warmup:
        way()
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(min(rounds, comparison.rounds or rounds)):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[place].append(_seconds(ways[place]))
    ours, reference = seconds
    return Measurement(
        comparison.name, comparison.reference_name, ours, reference, agreement, comparison.target
    )


def _seconds(way: Callable[[], Any]) -> float:
    """Wall-clock time of one run; the garbage of earlier ones is not its matter."""
    gc.collect()
    gc.disable()
    try:
        _finish()
        start = time.perf_counter()
        result = way()
        _finish()
        seconds = time.perf_counter() - start
        del result
    finally:
        gc.enable()
    return seconds


def _finish() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def largest_difference(ours: torch.Tensor, reference: torch.Tensor, at_most: float) -> str:
    """The agreement of two tensors in words; AssertionError where they differ by more than `at_most`."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    difference = float((ours.double() - reference.double()).abs().max()) if ours.numel() else 0.0
    assert difference <= at_most, f"results differ by {difference:.3g}, more than {at_most:g}"
    return f"within {difference:.1e}"
