"""Folders of runs read: which numbers are columns, and what a run has cost."""

import json
from dataclasses import replace

import pytest

from panomask.ablation import Sweep, collect, load_sweep, write_sweep
from panomask.ablation.sweep import Axis, Choice
from panomask.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """A sweep of two variants that were run once each."""
    axes = (Axis("pooling", (Choice("max", {"A": "1"}), Choice("mean", {"A": "2"}, base="other.yaml"))),)
    sweep = Sweep("T", "base.yaml", axes, ("max",), (4,), overrides={"B": "3"}, command="python x")
    write_sweep(sweep, tmp_path)
    for name in ("max", "mean"):
        (tmp_path / name / "seed_4").mkdir(parents=True)
        record = {"status": "done", "commit": "abc", "overrides": {}, "base": "base.yaml"}
        (tmp_path / name / "seed_4" / "run.json").write_text(json.dumps(record))
        write_results(tmp_path, name, {"val": {"segm": {"AP": 1.0, "AP50": 2.0}, "bbox": {"AP": 3.0}}})
    return tmp_path


def write_results(folder, name, results):
    (folder / name / "seed_4" / "results.json").write_text(json.dumps(results))


def test_columns_are_the_main_number_of_each_task(folder):
    assert collect(folder).metrics == ("segm/AP", "bbox/AP")
    panoptic = {
        "panoptic_seg": {"SQ": 1.0, "PQ": 2.0},
        "sem_seg": {"fwIoU": 1.0, "mIoU": 2.0},
        "own": {"x": 1.0, "y": 2.0},
    }
    for name in ("max", "mean"):
        write_results(folder, name, {"val": panoptic})
    assert collect(folder).metrics == ("panoptic_seg/PQ", "sem_seg/mIoU", "own/x")


def test_of_several_data_sets_each_has_its_columns(folder):
    for name in ("max", "mean"):
        write_results(folder, name, {"a": {"bbox": {"AP": 1.0}}, "b": {"bbox": {"AP": 2.0}}})
    outcome = collect(folder)
    assert outcome.metrics == ("a/bbox/AP", "b/bbox/AP")
    assert outcome.variants[0].runs[0].scores == {"a/bbox/AP": 1.0, "b/bbox/AP": 2.0}


def test_a_metric_may_name_its_data_set(folder):
    sweep = replace(load_sweep(folder), metrics=("val/segm/AP", "bbox/AP"))
    write_sweep(sweep, folder)
    outcome = collect(folder)
    assert outcome.metrics == ("val/segm/AP", "bbox/AP")
    assert outcome.variants[0].runs[0].scores["val/segm/AP"] == 1.0


def test_what_a_variant_changes(folder):
    first, second = collect(folder).variants
    assert first.overrides == {"A": "1"}  # not what all runs have
    assert second.overrides == {"--config-file": "other.yaml", "A": "2"}


def test_what_was_run(folder):
    outcome = collect(folder)
    assert (outcome.command, outcome.commit, outcome.seeds) == ("python x", "abc", (4,))


def test_cost_of_an_interrupted_run_is_that_of_a_whole_one(folder):
    """Of iterations whose time a resumed process did not count, the median of the others stands in."""
    lines = [
        {"iteration": 0, "lr": 1.0},
        {"iteration": 19, "time": 0.5, "max_mem": 70},
        {"iteration": 39, "time": 0.3},
    ]
    lines += [{"iteration": 59, "time": 0.4, "max_mem": 60}, {"iteration": 60, "bbox/AP": 3.0}]
    (folder / "max" / "seed_4" / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    cost = collect(folder).variants[0].runs[0].cost
    assert cost == {"seconds_per_iteration": 0.4, "seconds": pytest.approx(24.0), "memory_mib": 70}


def test_nothing_is_said_of_runs_without_numbers(folder):
    (folder / "mean" / "seed_4" / "run.json").unlink()
    (folder / "max" / "seed_4" / "results.json").write_text('{"val": {"segm": {"AP": null}}}')
    first, second = collect(folder).variants
    assert (first.runs[0].status, dict(first.runs[0].scores)) == ("done", {})
    assert second.runs[0].status == "missing"


def test_a_broken_file_is_named(folder):
    (folder / "max" / "seed_4" / "results.json").write_text('{"val": ')
    with pytest.raises(InputError, match=r"max/seed_4/results.json: line 1"):
        collect(folder)
