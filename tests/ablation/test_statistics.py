import math
import sys
from pathlib import Path

import pytest

from panomask.ablation.outcomes import RunOutcome, VariantOutcome
from panomask.ablation.statistics import (
    Difference,
    Summary,
    difference_to_baseline,
    paired_difference,
    require_ablation_packages,
    scores_by_seed,
    summarize,
)
from panomask.errors import InputError

BASELINE = {1: 30.0, 2: 31.0, 3: 32.0}


def test_sample_standard_deviation():
    assert summarize([2.0, 4.0, 6.0]) == Summary(3, 4.0, 2.0)  # sqrt((4 + 0 + 4) / 2)


def test_one_number_has_no_spread_and_none_no_mean():
    assert summarize([7.5]) == Summary(1, 7.5, None)
    assert summarize([]) is None


def test_paired_interval_by_hand():
    # differences 1, 2, 3: mean 2, sd 1; t(0.975, 2) = 4.302653 from a table
    difference = paired_difference({1: 31.0, 2: 33.0, 3: 35.0}, BASELINE)
    half_width = 4.302653 / math.sqrt(3)
    assert (difference.count, difference.mean) == (3, 2.0)
    assert difference.low == pytest.approx(2 - half_width, abs=1e-6)
    assert difference.high == pytest.approx(2 + half_width, abs=1e-6)
    assert not difference.excludes_zero


def test_two_pairs_by_hand():
    # differences 4, 6: mean 5, sd sqrt(2), so sd/sqrt(2) = 1; t(0.975, 1) = 12.706205
    difference = paired_difference({1: 34.0, 2: 37.0}, BASELINE)
    assert (difference.low, difference.high) == pytest.approx((-7.706205, 17.706205), abs=1e-6)


def test_pairing_takes_out_what_the_seed_brings():
    # The scores scatter by 10, the differences by 0.1: unpaired, nothing could be told apart.
    baseline = {1: 30.0, 2: 40.0, 3: 50.0}
    difference = paired_difference({1: 31.0, 2: 41.1, 3: 50.9}, baseline)
    assert difference.excludes_zero
    assert paired_difference(baseline, {1: 31.0, 2: 41.1, 3: 50.9}).excludes_zero


def test_only_seeds_of_both_are_paired():
    assert paired_difference({3: 35.0, 4: 99.0}, BASELINE) == Difference(1, 3.0)
    assert not paired_difference({3: 35.0}, BASELINE).excludes_zero
    assert paired_difference({4: 99.0}, BASELINE) is None


def test_equal_differences_are_an_interval_of_one_point():
    difference = paired_difference({seed: score + 5 for seed, score in BASELINE.items()}, BASELINE)
    assert difference == Difference(3, 5.0, 5.0, 5.0)
    assert difference.excludes_zero
    assert not paired_difference(BASELINE, BASELINE).excludes_zero


def test_scores_of_unfinished_runs_do_not_count():
    runs = (
        RunOutcome(1, "done", Path("1"), {"segm/AP": 30.0}),
        RunOutcome(2, "failed", Path("2"), {"segm/AP": 99.0}),
        RunOutcome(3, "done", Path("3"), {"segm/AP": math.nan}),
        RunOutcome(4, "done", Path("4"), {"bbox/AP": 50.0}),
        RunOutcome(5, "missing", Path("5")),
    )
    assert scores_by_seed(VariantOutcome(("a",), {}, runs), "segm/AP") == {1: 30.0}


def test_the_baseline_has_no_difference_to_itself(sweep_outcome):
    baseline, other, _ = sweep_outcome.variants
    assert difference_to_baseline(baseline, baseline, "segm/AP") is None
    assert difference_to_baseline(other, baseline, "bbox/AP").mean == 5.0


@pytest.mark.parametrize("name", ["scipy", "matplotlib"])
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch):
    require_ablation_packages()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=r"^[^\n]+ needs scipy and matplotlib: pip install '\.\[ablation\]'$"
    ):
        require_ablation_packages()
