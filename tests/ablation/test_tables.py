import dataclasses

import pytest

from panomask.ablation.outcomes import SweepOutcome
from panomask.ablation.statistics import Difference
from panomask.ablation.tables import Cell, cost_table, difference_text, one_line, score_table


def _texts(table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def _with_runs(outcome: SweepOutcome, **changes) -> SweepOutcome:
    """The outcome with every run changed."""
    variants = tuple(
        dataclasses.replace(variant, runs=tuple(dataclasses.replace(run, **changes) for run in variant.runs))
        for variant in outcome.variants
    )
    return dataclasses.replace(outcome, variants=variants)


def test_score_table_by_hand(sweep_outcome):
    table = score_table(sweep_outcome)
    assert table.axes == ("head|neck", "size")
    assert table.headings == ("mask AP", "Δ mask AP", "box AP", "Δ box AP", "runs")
    assert _texts(table) == [
        ["31.0 ± 1.0", "", "41.0 ± 1.0", "", "3 of 3 runs"],
        ["33.0 ± 2.0", "+2.0 [-0.5, 4.5]", "46.0 ± 1.0", "+5.0 [5.0, 5.0]", "3 of 3 runs"],
        ["30.5", "+0.5", "–", "–", "1 of 3 runs (1 failed, 1 missing)"],  # noqa: RUF001
    ]
    assert [row.is_baseline for row in table.rows] == [True, False, False]


def test_what_excludes_zero_is_strong(sweep_outcome):
    strong = [cell.text for row in score_table(sweep_outcome).rows for cell in row.cells if cell.is_strong]
    assert strong == ["+5.0 [5.0, 5.0]"]


def test_gaps_say_why(sweep_outcome):
    assert score_table(sweep_outcome).gaps == (
        "third, 28, seed 2: failed (No <memory>, 1_2)",
        "third, 28, seed 3: missing",
    )


def test_runs_are_counted_only_where_some_are_not_done(sweep_outcome):
    complete = dataclasses.replace(sweep_outcome, variants=sweep_outcome.variants[:2])
    table = score_table(complete)
    assert table.headings[-1] == "Δ box AP"
    assert table.gaps == ()


def test_a_metric_that_a_finished_run_lacks_is_counted(sweep_outcome):
    baseline, other, _ = sweep_outcome.variants
    runs = (dataclasses.replace(other.runs[0], scores={"segm/AP": 31.0}), *other.runs[1:])
    outcome = dataclasses.replace(sweep_outcome, variants=(baseline, dataclasses.replace(other, runs=runs)))
    assert _texts(score_table(outcome))[1][2] == "46.5 ± 0.7 (2 of 3)"


def test_scores_do_not_depend_on_times_and_folders(sweep_outcome):
    assert score_table(_with_runs(sweep_outcome, cost={"seconds": 9e9})) == score_table(sweep_outcome)
    assert score_table(_with_runs(sweep_outcome, scores={"segm/AP": 1.0})) != score_table(sweep_outcome)


def test_one_seed_has_no_spread_and_no_interval(sweep_outcome):
    variants = tuple(dataclasses.replace(v, runs=v.runs[:1]) for v in sweep_outcome.variants[:2])
    table = score_table(dataclasses.replace(sweep_outcome, variants=variants, seeds=(1,)))
    assert _texts(table) == [["30.0", "", "40.0", ""], ["31.0", "+1.0", "45.0", "+5.0"]]
    assert "one seed" in " ".join(table.notes)
    assert "±" not in " ".join(table.notes)


def test_one_variant_is_compared_with_nothing(sweep_outcome):
    table = score_table(dataclasses.replace(sweep_outcome, variants=sweep_outcome.variants[:1]))
    assert table.headings == ("mask AP", "box AP")
    assert len(table.notes) == 1


def test_a_sweep_of_seeds_alone_has_a_name_for_its_row(sweep_outcome):
    alone = dataclasses.replace(sweep_outcome.variants[0], choices=())
    outcome = dataclasses.replace(sweep_outcome, axes=(), variants=(alone,), baseline=())
    assert score_table(outcome).axes == ("variant",)
    assert score_table(outcome).rows[0].choices == ("as configured",)


@pytest.mark.parametrize(
    "difference, text",
    [
        (Difference(3, 3.44, 1.16, 5.56), "+3.4 [1.2, 5.6]"),
        (Difference(3, -3.44, -5.56, -0.04), "-3.4 [-5.6, -0.0]"),
        (Difference(1, 0.0), "+0.0"),
    ],
)
def test_difference_text(difference: Difference, text: str):
    assert difference_text(difference) == text


def test_cost_table_by_hand(sweep_outcome):
    table = cost_table(sweep_outcome)
    assert table.headings == ("training (min)", "memory (MiB)", "parameters (M)", "GFLOPs")
    # 101, 102, 103 s; 401, 402, 403 s; 50 s, as the failed run does not count
    assert _texts(table) == [
        ["1.70", "1000", "44.4", "2.50"],
        ["6.70", "1000", "44.4", "2.50"],
        ["0.83", "–", "–", "–"],  # noqa: RUF001
    ]
    assert table.rows[0].cells[0] == Cell("1.70", 102.0)


@pytest.mark.parametrize(
    "cost, heading, text",
    [
        ({"seconds": 119.0}, "training (s)", "119"),
        ({"seconds": 120.0}, "training (min)", "2.00"),
        ({"seconds": 36000.0}, "training (h)", "10.0"),
        ({"seconds_per_iteration": 0.0423}, "s/iteration", "0.0423"),
        ({"memory_mib": 10240.0}, "memory (GiB)", "10.0"),
        ({"parameters": 0.0}, "parameters (M)", "0"),
    ],
)
def test_units_fit_the_largest_number(sweep_outcome, cost, heading, text):
    table = cost_table(_with_runs(sweep_outcome, cost=cost))
    assert table.headings == (heading,)
    assert table.rows[0].cells[0].text == text


def test_no_cost_is_said(sweep_outcome):
    table = cost_table(_with_runs(sweep_outcome, cost={}))
    assert table.headings == ()
    assert table.notes == ("No run has told its cost.",)


def test_one_line_drops_breaks_and_colours():
    assert one_line("\x1b[31mbad\x1b[0m\n  thing\x00\t!") == "bad thing !"
