"""Running sweeps: several at a time, failures, interruptions; with a stand-in for the training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panomask.ablation import collect, execute, plan_runs, read_sweep, run_folder, write_report, write_sweep
from panomask.ablation.code_state import CodeState
from panomask.ablation.run_lock import RunLock
from panomask.errors import InputError

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_trainer.py"))]
SWEEP = """
base: base.yaml
axes: {depth: {18: {MODEL.RESNETS.DEPTH: 18}, 34: {MODEL.RESNETS.DEPTH: 34}}}
seeds: [1, 2]
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with a sweep of four runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "base.yaml").write_text("SEED: 7")
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def planned(study: Path):
    sweep = read_sweep(study / "s.yaml")
    runs = plan_runs(sweep, study / "out")
    (study / "out").mkdir(exist_ok=True)
    write_sweep(sweep, study / "out")
    return runs


def calls(study: Path) -> list[str]:
    return [line.rsplit(" ", 2)[0] for line in (study / "calls.txt").read_text().splitlines()]


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_all_runs_are_trained_once(study):
    assert execute(planned(study), command=STAND_IN, jobs=2) == []
    assert sorted(calls(study)) == ["18 1", "18 2", "34 1", "34 2"]
    folder = study / "out" / "runs" / "34" / "seed_2"
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["seed"], record["choices"]) == ("done", 2, ["34"])
    (attempt,) = record["attempts"]
    assert attempt["command"][:2] == STAND_IN
    assert attempt["exit_code"] == 0
    assert {"commit", "started", "ended", "host"} <= attempt.keys()
    assert "torch" in (folder / "environment.txt").read_text()
    assert "DEPTH: 34" in (folder / "requested.yaml").read_text()
    assert "training 34 2" in (folder / "console.txt").read_text()
    assert execute(planned(study), command=STAND_IN) == []
    assert len(calls(study)) == 4  # what is done stays


def test_a_failed_run_stops_nothing_and_is_tried_again(study, caplog):
    (study / "fail").write_text("18 2")
    (study / "die").write_text("34 1")
    (study / "no_results").write_text("34 2")
    failed = execute(planned(study), command=STAND_IN)
    assert [run.name for run in failed] == ["18, seed 2", "34, seed 1", "34, seed 2"]
    outcome = collect(study / "out")
    errors = [run.error for variant in outcome.variants for run in variant.runs]
    assert errors[:3] == [
        *("", "exit code 1: error: SOLVER.BASE_LR is too high", "killed by signal 9: training 34 1"),
    ]
    assert "left no results.json" in errors[3]
    assert "SOLVER.BASE_LR is too high" in caplog.text
    for name in ("fail", "die", "no_results"):
        (study / name).unlink()
    assert execute(planned(study), command=STAND_IN) == []
    assert calls(study).count("18 1") == 1
    assert calls(study).count("18 2") == 2
    attempts = json.loads((study / "out/runs/18/seed_2/run.json").read_text())["attempts"]
    assert [attempt["exit_code"] for attempt in attempts] == [1, 0]


def test_the_outcome_is_read_from_the_folders(study):
    execute(planned(study), command=STAND_IN, jobs=4)
    outcome = collect(study / "out")
    assert (outcome.axes, outcome.metrics, outcome.baseline) == (("depth",), ("bbox/AP",), ("18",))
    assert [run.scores["bbox/AP"] for variant in outcome.variants for run in variant.runs] == [
        181,
        182,
        341,
        342,
    ]
    run = outcome.variants[1].runs[0]
    assert run.scores == {"bbox/AP": 341, "bbox/APl": 2}
    assert run.cost == {"seconds_per_iteration": 0.375, "seconds": 7.5, "memory_mib": 120}
    assert outcome.variants[1].overrides == {"MODEL.RESNETS.DEPTH": "34"}
    assert str(run.folder) == "runs/34/seed_1"


def test_a_metric_that_nobody_measured(study, caplog):
    """After hours of training a wrong name is a gap in the table and a warning, not an error."""
    (study / "s.yaml").write_text(SWEEP + "metrics: [bbox/AP51, bbox/AP]")
    execute(planned(study), command=STAND_IN)
    assert collect(study / "out").metrics == ("bbox/AP51", "bbox/AP")
    assert "metric 'bbox/AP51'; nearest: bbox/AP" in caplog.text


def test_nothing_is_done(study):
    """All runs fail, and no metric is named: there is a report all the same."""
    failed = execute(planned(study), command=["false"])
    assert len(failed) == 4
    outcome = collect(study / "out")
    assert outcome.metrics == ()
    assert outcome.variants[0].runs[0].error == "exit code 1: no output"
    assert len(write_report(outcome, study / "out")) == 9


def test_other_settings_in_the_same_folder_are_refused(study):
    execute(planned(study), command=STAND_IN)
    (study / "base.yaml").write_text("SOLVER: {BASE_LR: 0.7}")
    with pytest.raises(
        InputError, match=r"SOLVER.BASE_LR 0.001, and is now asked for with 0.7; choose another"
    ):
        planned(study)
    (study / "base.yaml").write_text("SEED: 8")  # every run sets its own
    assert len(planned(study)) == 4
    request = study / "out" / "runs" / "18" / "seed_1" / "requested.yaml"
    request.write_text(
        request.read_text().replace("VIS_PERIOD: 0\n", "").replace("OUTPUT_DIR: ", "OUTPUT_DIR: moved_")
    )
    assert len(planned(study)) == 4  # a key that is new since then had its default
    request.write_text(request.read_text().replace("LOG_PERIOD: 20", "LOG_PERIOD: 21"))
    with pytest.raises(InputError, match="LOG_PERIOD 21, and is now asked for with 20"):
        planned(study)
    (study / "elsewhere" / "runs" / "18" / "seed_1").mkdir(parents=True)
    (study / "elsewhere" / "runs" / "18" / "seed_1" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds files, but no requested.yaml"):
        plan_runs(read_sweep(study / "s.yaml"), study / "elsewhere")


def test_what_a_kill_leaves_before_the_request_is_written(study):
    folder = study / "out" / "runs" / "18" / "seed_1"
    folder.mkdir(parents=True)
    for name in (".lock", ".requested.yaml.partial"):
        (folder / name).write_text("")
    assert execute(planned(study), command=STAND_IN) == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "[]"),
        ("run.json", '{"status": "do'),
        ("results.json", "3"),
        ("results.json", "{"),
        ("results.json", ""),
    ],
)
def test_a_broken_file_is_a_gap_and_the_run_is_done_again(study, caplog, file, content):
    execute(planned(study), command=STAND_IN)
    (study / "out" / "runs" / "18" / "seed_1" / file).write_text(content)
    assert collect(study / "out").variants[0].runs[0].status == "interrupted"
    assert f"seed_1/{file}" in caplog.text
    assert execute(planned(study), command=STAND_IN) == []
    assert calls(study).count("18 1") == 2
    assert collect(study / "out").variants[0].runs[0].scores["bbox/AP"] == 181


def test_results_of_an_earlier_attempt_do_not_count(study):
    folder = study / "out" / "runs" / "18" / "seed_1"
    execute(planned(study), command=STAND_IN)
    (folder / "run.json").write_text('{"status": "failed"}')
    failed = execute(planned(study), command=["true"])
    assert [run.name for run in failed] == ["18, seed 1"]
    assert not (folder / "results.json").exists()


def test_the_patch_is_that_of_the_last_attempt(study, monkeypatch):
    run = planned(study)[0]
    run.folder.mkdir(parents=True)
    for patch in ("a change", ""):
        monkeypatch.setattr(run_folder, "code_state", lambda folder, patch=patch: CodeState("abc", patch))
        run.begin(["x"])
        path = run.folder / "uncommitted.patch"
        assert (path.read_text() if path.exists() else "") == patch
    attempts = json.loads((run.folder / "run.json").read_text())["attempts"]
    assert [attempt["commit"] for attempt in attempts] == ["abc with uncommitted changes", "abc"]


def test_a_run_that_loses_its_folder_stops_no_other(study):
    command = [sys.executable, "-c", "import shutil, sys; shutil.rmtree(sys.argv[-1])"]
    failed = execute(planned(study), command=command, jobs=2)
    assert len(failed) == 4


def test_a_mistake_in_the_last_choice_is_found_before_the_first_run(study):
    (study / "s.yaml").write_text(SWEEP.replace("DEPTH: 34", "DEPHT: 34"))
    with pytest.raises(InputError, match=r"unknown key MODEL.RESNETS.DEPHT"):
        planned(study)


def test_a_command_that_is_not_there(study):
    with pytest.raises(InputError, match="'no_such_program' cannot be started"):
        execute(planned(study), command=["no_such_program"])
    assert "cannot be started (No such file" in collect(study / "out").variants[0].runs[0].error


def test_a_command_reads_nothing_from_the_terminal(study):
    command = [sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.read()))"]
    assert all("left no results.json" in _error(run) for run in execute(planned(study), command=command))


def _error(run) -> str:
    return json.loads((run.folder / "run.json").read_text())["error"]


def test_what_a_command_leaves_running_is_ended(study):
    """Its own process has ended; the one that it started would write into a folder that counts as done."""
    code = (
        "import os, subprocess, sys; print(subprocess.Popen(['sleep', '300']).pid, flush=True); sys.exit(1)"
    )
    failed = execute(planned(study), command=[sys.executable, "-c", code], jobs=4)
    for run in failed:
        process = int((run.folder / "console.txt").read_text().split()[-1])
        wait_for(lambda process=process: not is_alive(process))


def test_a_process_that_outlives_its_command_keeps_the_folder(tmp_path):
    """It inherits no lock, as Python closes files for what it starts; its environment tells it."""
    lock = RunLock(tmp_path)
    assert lock.acquire()
    with subprocess.Popen(["sleep", "300"], env={**os.environ, **lock.environment()}) as left:
        lock.close()
        second = RunLock(tmp_path)
        assert not second.acquire()
        left.kill()
    third = RunLock(tmp_path)
    second.close()
    assert third.acquire()
    third.close()


def test_handlers_of_signals_are_as_before(study):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    execute(planned(study), command=STAND_IN)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_each_job_has_gpus_and_threads_of_its_own(study, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7,8")
    execute(planned(study), command=STAND_IN, jobs=2, gpus_per_job=2)
    seen = {line.rsplit(" ", 2)[1] for line in (study / "calls.txt").read_text().splitlines()}
    assert seen == {"2,3", "5,7"}
    threads = {line.rsplit(" ", 1)[1] for line in (study / "calls.txt").read_text().splitlines()}
    assert threads == {str(max(1, os.cpu_count() // 2))}
    with pytest.raises(InputError, match="need 6 GPUs; here are 5"):
        execute(planned(study), command=STAND_IN, jobs=3, gpus_per_job=2)


def _listen() -> None:
    """Where the tests run in the background, Ctrl-C is ignored, and so it would be by what they start."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(study: Path, *words: str) -> subprocess.Popen:
    tool = Path(__file__).parents[2] / "tools" / "ablate.py"
    command = [
        sys.executable,
        str(tool),
        "s.yaml",
        "--output",
        "out",
        "--command",
        " ".join(STAND_IN),
        *words,
    ]
    return subprocess.Popen(
        command,
        cwd=study,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_listen,
    )


def hangs(study: Path) -> bool:
    return (study / "hanging").is_file() and (study / "hanging").read_text() != ""


def is_alive(process: int) -> bool:
    """Neither gone nor a zombie that nobody has asked for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_ends_its_commands_and_goes_on_later(study, number):
    """Also by a second signal while it ends a command that does not listen to the first."""
    (study / "hang").write_text("18 2")
    is_deaf = number == signal.SIGINT
    if is_deaf:
        (study / "deaf").write_text("18 2")
    sweep = start(study)
    wait_for(lambda: hangs(study))
    trainer = int((study / "hanging").read_text())
    sweep.send_signal(number)
    if is_deaf:
        time.sleep(1)
        sweep.send_signal(number)
    output = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 130, output
    assert not is_alive(trainer)
    assert json.loads((study / "out/runs/18/seed_2/run.json").read_text())["status"] == "running"
    (study / "hang").unlink()
    (study / "deaf").unlink(missing_ok=True)
    sweep = start(study)
    output = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 0, output
    assert "goes on from its last checkpoint" in output
    assert calls(study) == ["18 1", "18 2", "18 2", "34 1", "34 2"]


def test_what_outlives_a_killed_sweep_is_waited_for(study):
    (study / "hang").write_text("18 2")
    sweep = start(study)
    wait_for(lambda: hangs(study))
    trainer = int((study / "hanging").read_text())
    sweep.kill()
    sweep.wait()
    assert is_alive(trainer)
    again = start(study)
    wait_for(lambda: "34 2" in calls(study))  # the others are trained meanwhile
    assert again.poll() is None
    assert calls(study).count("18 2") == 1  # no second process in its folder
    (study / "hang").unlink()
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert "another process works in" in output
    assert json.loads((study / "out/runs/18/seed_2/run.json").read_text())["status"] == "done"


def test_a_lock_is_held_once(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    assert (first.acquire(), second.acquire()) == (True, False)
    first.close()
    assert second.acquire()
    second.close()
