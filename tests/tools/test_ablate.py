"""Sweeps from the command line; with a stand-in for the training, and once with the training itself."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from panomask.errors import InputError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "ablate.py"
STAND_IN = f"{sys.executable} {ROOT / 'tests' / 'ablation' / 'stand_in_trainer.py'}"
SWEEP = """
title: Depth
base: base.yaml
axes: {depth: {18: {MODEL.RESNETS.DEPTH: 18}, 34: {MODEL.RESNETS.DEPTH: 34}}}
seeds: [1, 2]
"""
REPORT = {
    *("index.html", "scores.md", "scores.tex", "scores.csv", "cost.md", "cost.tex", "runs.csv"),
    *("plot.svg", "plot.png"),
}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("SEED: 7")
    (tmp_path / "depth.yaml").write_text(SWEEP)
    return tmp_path / "depth.yaml"


def test_runs_and_makes_the_tables(run, sweep, capsys):
    run(sweep, "--command", STAND_IN, "--jobs", 2)
    folder = sweep.parent / "output" / "ablations" / sweep.parent.name / "depth"
    assert {path.name for path in folder.iterdir() if path.is_file()} == REPORT | {"sweep.json", ".lock"}
    printed = capsys.readouterr().out
    assert re.search(r"18 \(baseline\) .* 181.5 ± 0.7", printed), printed
    assert "+160.0" in printed
    scores = (folder / "scores.md").read_bytes()
    for name in REPORT:
        (folder / name).unlink()
    moved = shutil.move(folder, sweep.parent / "elsewhere")
    run("--table", moved)
    assert (Path(moved) / "scores.md").read_bytes() == scores


def test_dry_run(run, sweep, capsys):
    run(sweep, "--dry-run", "--seeds", "5", "--output", "out", "SOLVER.BASE_LR", "0.5")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "18, seed 5: new"
    assert lines[1].endswith(
        "train_net.py --config-file base.yaml --resume SOLVER.BASE_LR 0.5 MODEL.RESNETS.DEPTH 18 SEED 5"
        " OUTPUT_DIR out/runs/18/seed_5"
    )
    assert lines[-1] == "2 runs, 0 of them done"
    assert not (sweep.parent / "out").exists()


def test_a_failure_is_an_exit_status_with_a_table(run, sweep, capsys):
    (sweep.parent / "fail").write_text("34 2")
    with pytest.raises(
        InputError, match=r"1 of 4 runs failed, the first of them 34, seed 2 \(see .*console.txt"
    ):
        run(sweep, "--command", STAND_IN)
    assert "1 of 2 runs (1 failed)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a sweep file"),
        (["depth.yaml", "--table", "out"], "give a sweep file"),
        (["--table", "nowhere"], "nowhere: no such folder"),
        (["--table", "."], "sweep.json: no such file"),
        (["depth.yaml", "--jobs", "0"], "at least 1"),
        (["depth.yaml", "--seeds", "1,x"], "--seeds are"),
        (["depth.yaml", "--seeds", "²"], "--seeds are"),
        (["depth.yaml", "--seeds", ""], "--seeds are"),
        (["depth.yaml", "--command", 'python "x'], "no closing quotation"),
        (["depth.yaml", "--command", " "], "--command is empty"),
        (["depth.yaml", "--output", "base.yaml"], "is a file"),
        (["depth.yaml", "--output", "/proc/x"], "/proc/x: cannot be written to"),
        (["depth.yaml", "SEED", "5"], "SEED: the sweep gives each run its seed"),
        (["--table", "out", "--dry-run"], "nothing else"),
        (["depth.yaml", "--base", "none.yaml"], "none.yaml: no such file"),
        (["depth.yaml", "SOLVER.BASE_LR"], "KEY VALUE"),
        (["depth.yaml", "SOLVER.BASE_LRR", "1"], "unknown key SOLVER.BASE_LRR"),
        (["none.yaml"], "none.yaml"),
    ],
)
def test_mistakes_are_one_line(run, sweep, words, message):
    with pytest.raises(InputError, match=message):
        run(*words)
    assert not (sweep.parent / "output").exists()


def test_another_base(run, sweep, capsys):
    (sweep.parent / "other.yaml").write_text("SEED: 3")
    run(sweep, "--base", "other.yaml", "--dry-run")
    assert "--config-file other.yaml" in capsys.readouterr().out
    sweep.write_text(SWEEP.replace("MODEL.RESNETS.DEPTH: 18", "base: base.yaml"))
    with pytest.raises(InputError, match="name base configs of their own"):
        run(sweep, "--base", "other.yaml", "--dry-run")


@pytest.mark.slow
def test_killed_at_random_it_gives_the_same_table(tiny_run, tmp_path):
    """The real training, twice: undisturbed, and killed again and again, with or without its commands."""
    (tmp_path / "rates.yaml").write_text(
        "base: tiny.yaml\naxes: {rate: {low: {SOLVER.BASE_LR: 0.001}, high: {SOLVER.BASE_LR: 0.02}}}\n"
        "seeds: [1, 2]\nmetrics: [bbox/AP, segm/AP]\n"
    )
    command = [
        sys.executable,
        TOOL,
        tmp_path / "rates.yaml",
        "SOLVER.MAX_ITER",
        "40",
        "TEST.DETECTIONS_PER_IMAGE",
        "9",
    ]
    command += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "--jobs", "2", "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder: str) -> subprocess.Popen:
        words = [*map(str, command), str(tmp_path / folder)]
        with (tmp_path / f"{folder}.log").open("w") as log:
            return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    began = time.monotonic()
    assert start("undisturbed").wait(timeout=600) == 0, (tmp_path / "undisturbed.log").read_text()
    seconds = time.monotonic() - began
    chance = random.Random(0)
    num_kills = 0
    while True:
        sweep = start("disturbed")
        try:
            # The program's start takes about a third of it; with two kills there is work left after each.
            sweep.wait(timeout=chance.uniform(0.35, 0.55) * seconds if num_kills < 2 else 600)
            break
        except subprocess.TimeoutExpired:
            sweep.kill()
            sweep.wait()
            num_kills += 1
            log = (tmp_path / "disturbed.log").read_text()
            for process in re.findall(r"as process (\d+);", log) if chance.random() < 0.6 else ():
                try:
                    os.killpg(int(process), signal.SIGKILL)
                except ProcessLookupError:
                    continue
    assert sweep.returncode == 0, (tmp_path / "disturbed.log").read_text()
    assert num_kills == 2
    # Killed between a run's end and the note of it: the run is evaluated again.
    (tmp_path / "disturbed" / "runs" / "low" / "seed_1" / "run.json").write_text('{"status": "running"}')
    assert start("disturbed").wait(timeout=600) == 0, (tmp_path / "disturbed.log").read_text()
    for name in ("scores.md", "scores.csv", "plot.svg"):
        before, after = ((tmp_path / folder / name).read_text() for folder in ("undisturbed", "disturbed"))
        assert before == after
    # So few iterations score next to nothing: the weights say more.
    for run in ("low/seed_1", "low/seed_2", "high/seed_1", "high/seed_2"):
        before, after = (
            torch.load(tmp_path / folder / "runs" / run / "model_final.pth", weights_only=True)["model"]
            for folder in ("undisturbed", "disturbed")
        )
        assert all(torch.equal(before[key], after[key]) for key in before)
