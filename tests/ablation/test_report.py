import dataclasses
import sys
from pathlib import Path

import pytest

from panomask.ablation.report import write_report
from panomask.errors import InputError

NAMES = [
    *("index.html", "scores.md", "scores.tex", "scores.csv", "cost.md", "cost.tex", "runs.csv"),
    *("plot.svg", "plot.png"),
]


def test_every_file_is_there_and_has_the_sweep_in_it(sweep_outcome, tmp_path: Path):
    paths = write_report(sweep_outcome, tmp_path / "new" / "sweep")
    assert paths == [tmp_path / "new" / "sweep" / name for name in NAMES]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(NAMES)
    for path in paths[:7]:
        assert "third" in path.read_text(encoding="utf-8"), path
    made_by = "% made by: python tools/ablate.py <sweep>.yaml"
    assert (paths[0].parent / "scores.tex").read_text(encoding="utf-8").splitlines()[0] == made_by


def test_scores_are_the_same_bytes_whatever_the_runs_cost(sweep_outcome, tmp_path: Path):
    baseline = sweep_outcome.variants[0]
    runs = tuple(dataclasses.replace(run, cost={"seconds": 12345.0}) for run in baseline.runs)
    slower = (dataclasses.replace(baseline, runs=runs), *sweep_outcome.variants[1:])
    write_report(sweep_outcome, tmp_path / "a")
    write_report(dataclasses.replace(sweep_outcome, variants=slower, commit="later"), tmp_path / "b")
    same = {
        name for name in NAMES if (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    }
    assert same == {"scores.md", "scores.tex", "scores.csv", "plot.svg", "plot.png"}


def test_nothing_is_written_without_the_packages(
    sweep_outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="matplotlib"):
        write_report(sweep_outcome, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
