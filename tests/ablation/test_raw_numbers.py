import csv
import dataclasses
import io
import math

import pytest

from panomask.ablation.raw_numbers import runs_csv, scores_csv

ODD_NAME = "<b>Öl_1</b> & 5%, *x*|$y$"


def _read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_round_trip(sweep_outcome):
    plain, odd, third = _read(scores_csv(sweep_outcome))
    assert [row["head|neck"] for row in (plain, odd, third)] == ["plain", ODD_NAME, "third"]
    assert [row["size"] for row in (plain, odd, third)] == ["14", "28", "28"]
    assert [row["baseline"] for row in (plain, odd, third)] == ["True", "False", "False"]
    assert [(row["runs done"], row["runs"]) for row in (plain, odd, third)] == [
        ("3", "3"),
        ("3", "3"),
        ("1", "3"),
    ]
    assert (float(odd["segm/AP mean"]), float(odd["segm/AP std"]), odd["segm/AP n"]) == (33.0, 2.0, "3")
    assert (float(odd["segm/AP difference"]), odd["segm/AP difference n"]) == (2.0, "3")
    half_width = 4.302653 / math.sqrt(3)  # t(0.975, 2) from a table; the differences are 1, 2, 3
    assert float(odd["segm/AP difference low"]) == pytest.approx(2 - half_width, abs=1e-6)
    assert float(odd["segm/AP difference high"]) == pytest.approx(2 + half_width, abs=1e-6)


def test_what_there_is_not_is_empty(sweep_outcome):
    plain, _, third = _read(scores_csv(sweep_outcome))
    assert plain["segm/AP difference"] == plain["segm/AP difference low"] == ""
    assert (third["segm/AP mean"], third["segm/AP std"], third["segm/AP n"]) == ("30.5", "", "1")
    assert (third["segm/AP difference"], third["segm/AP difference low"]) == ("0.5", "")
    assert (third["bbox/AP mean"], third["bbox/AP n"], third["bbox/AP difference n"]) == ("", "0", "")


def test_full_precision(sweep_outcome):
    baseline = sweep_outcome.variants[0]
    run = dataclasses.replace(baseline.runs[0], scores={"segm/AP": 100 / 3})
    outcome = dataclasses.replace(
        sweep_outcome, variants=(dataclasses.replace(baseline, runs=(run,)),), seeds=(1,)
    )
    assert float(_read(scores_csv(outcome))[0]["segm/AP mean"]) == 100 / 3
    assert float(_read(runs_csv(outcome))[0]["segm/AP"]) == 100 / 3


def test_runs_round_trip(sweep_outcome):
    rows = _read(runs_csv(sweep_outcome))
    assert len(rows) == 9
    assert rows[4] == {
        "head|neck": ODD_NAME,
        "size": "28",
        "seed": "2",
        "status": "done",
        "segm/AP": "33.0",
        "bbox/AP": "46.0",
        "seconds": "402.0",
        "memory_mib": "1000.0",
        "parameters": "44400000.0",
        "flops": "2500000000.0",
        "folder": "runs/odd/seed_2",
        "error": "",
    }
    assert (rows[7]["status"], rows[7]["error"]) == ("failed", "No <memory>, 1_2")
    assert (rows[8]["status"], rows[8]["segm/AP"], rows[8]["seconds"]) == ("missing", "", "")


def test_metrics_that_no_table_shows_are_there_after_those_it_does(sweep_outcome):
    outcome = dataclasses.replace(sweep_outcome, metrics=("bbox/AP",))
    headings = list(_read(runs_csv(outcome))[0])
    assert headings[2:6] == ["seed", "status", "bbox/AP", "segm/AP"]


def test_an_axis_called_like_a_column_takes_none_away(sweep_outcome):
    outcome = dataclasses.replace(sweep_outcome, axes=("seed", "runs"))
    assert _read(runs_csv(outcome))[0]["seed (axis)"] == "plain"
    assert _read(runs_csv(outcome))[0]["seed"] == "1"
    assert _read(scores_csv(outcome))[0]["runs (axis)"] == "14"


def test_names_with_line_breaks_survive(sweep_outcome):
    odd = dataclasses.replace(sweep_outcome.variants[1], choices=('a "b"\nc', "28"))
    outcome = dataclasses.replace(sweep_outcome, variants=(sweep_outcome.variants[0], odd))
    assert _read(scores_csv(outcome))[1]["head|neck"] == 'a "b"\nc'
