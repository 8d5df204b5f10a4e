"""Folders of runs read: which numbers are columns, and what a run has cost."""

import json
from dataclasses import replace

import pytest

from panomask.ablation import Sweep, collect, load_sweep, write_sweep
from panomask.ablation.sweep import Axis, Choice


@pytest.fixture
def folder(tmp_path):
    """A sweep of two variants that were run once each."""
    axes = (Axis("pooling", (Choice("max", {"A": "1"}), Choice("mean", {"A": "2"}, base="other.yaml"))),)
    sweep = Sweep("T", "base.yaml", axes, ("max",), (4,), overrides={"B": "3"}, command="python x")
    write_sweep(sweep, tmp_path)
    for name in ("max", "mean"):
        (tmp_path / "runs" / name / "seed_4").mkdir(parents=True)
        attempts = [{"commit": "abc"}, {"commit": f"of {name}"}]
        record = {"status": "done", "attempts": attempts}
        (tmp_path / "runs" / name / "seed_4" / "run.json").write_text(json.dumps(record))
        write_results(tmp_path, name, {"val": {"segm": {"AP": 1.0, "AP50": 2.0}, "bbox": {"AP": 3.0}}})
    return tmp_path


def write_results(folder, name, results):
    (folder / "runs" / name / "seed_4" / "results.json").write_text(json.dumps(results))


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
    assert (outcome.command, outcome.seeds, outcome.overrides) == ("python x", (4,), {"B": "3"})
    assert outcome.commit == "abc, of max, of mean"  # of every attempt


def test_a_choice_that_sets_what_all_runs_set(folder):
    write_sweep(replace(load_sweep(folder), overrides={"A": "7"}), folder)
    assert collect(folder).variants[0].overrides == {"A": "1"}


def test_runs_on_different_data_are_not_one_column(folder):
    write_results(folder, "mean", {"other": {"bbox": {"AP": 5.0}}})
    outcome = collect(folder)
    assert outcome.metrics == ("val/segm/AP", "val/bbox/AP", "other/bbox/AP")
    assert "bbox/AP" not in outcome.variants[0].runs[0].scores


def test_what_is_no_number_is_no_score(folder):
    results = {"val": {"bbox": {"AP": float("nan"), "AP50": True, "AP75": "7", "APs": None, "APm": 4.0}}}
    write_results(folder, "max", results)
    assert collect(folder).variants[0].runs[0].scores == {"bbox/APm": 4.0}


def test_cost_is_read_from_whatever_lines_are_there(folder):
    path = folder / "runs" / "max" / "seed_4" / "metrics.json"
    path.write_bytes(
        b'[1]\n"x"\n{"iteration": "a", "time": 1}\n\xff\xfe\n{"iteration": 3, "time": 2.0, "lr": null}\n{"ite'
    )
    assert collect(folder).variants[0].runs[0].cost == {"seconds_per_iteration": 2.0, "seconds": 8.0}


def test_a_model_whose_cost_cannot_be_measured(folder, caplog):
    """Its weights are there, its config is not: the scores stand."""
    run = folder / "runs" / "max" / "seed_4"
    (run / "model_final.pth").write_text("")
    (run / "model_cost.json").write_text("{broken")
    outcome = collect(folder)
    assert outcome.variants[0].runs[0].scores["segm/AP"] == 1.0
    assert "parameters and FLOPs are not known" in caplog.text
    (run / "model_cost.json").write_text('{"parameters": 5.0}')
    assert collect(folder).variants[0].runs[0].cost == {"parameters": 5.0}


def test_cost_of_an_interrupted_run_is_that_of_a_whole_one(folder):
    """Of iterations whose time a resumed process did not count, the median of the others stands in."""
    lines = [
        {"iteration": 0, "lr": 1.0},
        {"iteration": 19, "time": 0.5, "max_mem": 70},
        {"iteration": 39, "time": 0.3},
    ]
    lines += [{"iteration": 59, "time": 0.4, "max_mem": 60}, {"iteration": 60, "bbox/AP": 3.0}]
    (folder / "runs" / "max" / "seed_4" / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    cost = collect(folder).variants[0].runs[0].cost
    assert cost == {"seconds_per_iteration": 0.4, "seconds": pytest.approx(24.0), "memory_mib": 70}


def test_nothing_is_said_of_runs_without_numbers(folder):
    (folder / "runs" / "mean" / "seed_4" / "run.json").unlink()
    (folder / "runs" / "max" / "seed_4" / "results.json").write_text('{"val": {"segm": {"AP": null}}}')
    first, second = collect(folder).variants
    assert (first.runs[0].status, dict(first.runs[0].scores)) == ("done", {})
    assert second.runs[0].status == "missing"
    assert str(second.runs[0].folder) == "runs/mean/seed_4"
