import time

import pytest
import torch

from panomask.benchmark.comparison import Comparison, Disagreement, Measurement, largest_difference, measure
from panomask.benchmark.report import as_json, describe_machine, markdown_table


def _comparison(log, **kwargs):
    def way(name, seconds):
        log.append(name)
        time.sleep(seconds)
        return torch.ones(2)

    arguments = {"agreement": lambda a, b: largest_difference(a, b, 0), **kwargs}
    return Comparison("work", lambda: way("ours", 0.01), lambda: way("theirs", 0.05), "theirs", **arguments)


def test_both_run_in_turn_and_the_first_changes():
    log = []
    found = measure(_comparison(log, warmup=1, target=2.0), rounds=2)
    assert log[:2] == ["ours", "theirs"]  # compared
    assert log[2:4] == ["ours", "theirs"]  # warmed up
    assert log[4:] == ["ours", "theirs", "theirs", "ours"]
    assert len(found.ours) == len(found.reference) == 2
    assert found.is_met
    assert 2 < found.ratio < 6


def test_a_comparison_may_ask_for_fewer_rounds():
    assert len(measure(_comparison([], rounds=1), rounds=5).ours) == 1


def test_disagreement_is_told():
    def wrong(ours, reference):
        return largest_difference(ours, reference + 1, 0.5)

    with pytest.raises(Disagreement, match=r"work, beside theirs: results differ by 1, more than 0\.5"):
        measure(_comparison([], agreement=wrong))


def test_median_of_ratios_not_ratio_of_medians():
    found = Measurement("a", "b", [1.0, 2.0, 10.0], [2.0, 8.0, 10.0], "equal", target=2.0)
    assert found.ratios == [2, 4, 1]
    assert found.ratio == 2
    assert not Measurement("a", "b", [1.0], [1.9], "equal", target=2.0).is_met


def test_table_and_json():
    rows = [
        Measurement("one", "plain", [0.01, 0.01, 0.01], [0.02, 0.03, 0.04], "equal", target=4.0),
        Measurement("two", "plain", [1.0], [1.5], "within 1e-06"),
    ]
    table = markdown_table(rows).splitlines()
    assert len(table) == 4
    assert [cell.strip() for cell in table[2].split("|")[3:7]] == [
        "0.03",
        "0.01",
        "3.00 (2.50 to 3.50)",
        "4 MISSED",
    ]
    assert [cell.strip() for cell in table[3].split("|")[3:7]] == ["1.500", "1.000", "1.50", ""]
    found = as_json(rows, describe_machine(), "python tools/benchmark.py all")
    assert [row["met"] for row in found["comparisons"]] == [False, None]
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["processor"]
