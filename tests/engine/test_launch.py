"""Each launch starts Python and imports torch twice, several seconds: all but the central ones are slow."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp

from panomask.engine import create_ddp_model, launch
from panomask.errors import InputError

MODULE = """
import os, sys, pytest, torch
from panomask import distributed
from panomask.engine import create_ddp_model, launch, run_tool
from panomask.errors import InputError
from panomask.layers import get_norm

def report(folder):
    rank, size = distributed.get_rank(), distributed.get_world_size()
    ranks = distributed.all_gather((rank, distributed.get_local_rank(), distributed.get_local_size()))
    assert ranks == [(i, i, size) for i in range(size)]
    norm = create_ddp_model(get_norm("SyncBN", 1))  # torch's own is refused on the CPU
    norm(torch.full((1, 1, 1, 2), float(rank)))
    assert norm.module.running_mean.item() == pytest.approx(0.05)  # 0.1 times the mean of 0 and 1
    model = create_ddp_model(torch.nn.Linear(1, 1, bias=False))
    model(torch.full((1, 1), float(rank))).sum().backward()
    gradient = next(model.parameters()).grad.item()  # the mean of the ranks
    open(f"{folder}/rank{rank}", "w").write(f"{gradient} {torch.get_num_threads()}")

def bad_input(folder):
    raise InputError(f"{folder}: broken in every process")

def bad_input_in_one(folder):
    if distributed.get_rank() == 1:
        raise InputError(f"{folder}: broken in one process")
    distributed.synchronize()

def bug(folder):
    raise ZeroDivisionError("a bug in a child")

def leave(folder):
    sys.exit(3)

def machine(machine_rank, folder):
    launch(report_machine, 1, 2, machine_rank, f"file://{folder}/meet", args=(folder,))

def report_machine(folder):
    assert (distributed.get_world_size(), distributed.get_local_size()) == (2, 1)
    open(f"{folder}/machine{distributed.get_rank()}", "w").close()

if __name__ == "__main__":
    run_tool(lambda: launch(globals()[sys.argv[1]], 1, args=(sys.argv[2],)))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A module with functions to launch, which spawned processes can import."""
    name = f"job_of_{tmp_path.name}".replace("[", "_").replace("]", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def test_one_process_is_this_one():
    assert launch(lambda a, b: (os.getpid(), a + b), 1, args=(1, 2)) == (os.getpid(), 3)


def test_one_process_needs_no_wrapper():
    model = torch.nn.Linear(1, 1)
    assert create_ddp_model(model) is model


def test_processes_share_gradients_and_cores(job, tmp_path):
    launch(job.report, 2, args=(str(tmp_path),))
    for rank in range(2):
        gradient, num_threads = (tmp_path / f"rank{rank}").read_text().split()
        assert float(gradient) == 0.5
        if not torch.cuda.is_available():
            assert int(num_threads) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_bad_input_in_a_child_becomes_one_error_here(job, tmp_path, capfd):
    with pytest.raises(InputError, match="broken in one process") as caught:
        launch(job.bad_input_in_one, 2, args=(str(tmp_path),))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_bad_input_in_all_children_is_told_once(job, tmp_path, capfd):
    with pytest.raises(InputError, match="broken in every process"):
        launch(job.bad_input, 2, args=(str(tmp_path),))
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_bug_in_a_child_shows_its_traceback(job, tmp_path):
    with pytest.raises(mp.ProcessRaisedException, match=r"(?s)in bug.*ZeroDivisionError: a bug in a child"):
        launch(job.bug, 2, args=(str(tmp_path),))


@pytest.mark.slow
def test_exit_status_of_a_child(job, tmp_path):
    with pytest.raises(SystemExit) as caught:
        launch(job.leave, 2, args=(str(tmp_path),))
    assert caught.value.code == 3


@pytest.mark.slow
def test_torchrun(job, tmp_path):
    def run(name: str) -> subprocess.CompletedProcess:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command = [*torchrun, job.__file__, name, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    result = run("report")
    assert result.returncode == 0, result.stderr
    assert all((tmp_path / f"rank{rank}").read_text().startswith("0.5") for rank in range(2))
    result = run("bad_input")
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 1


@pytest.mark.slow
def test_two_machines(job, tmp_path):
    """Two launches that meet at one address, as on two machines."""
    mp.start_processes(job.machine, (str(tmp_path),), nprocs=2, start_method="spawn")
    assert {path.name for path in tmp_path.glob("machine*")} == {"machine0", "machine1"}


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(num_gpus_per_machine=0), "at least 1"),
        (dict(num_gpus_per_machine=1, num_machines=2, machine_rank=2), "machine-rank 2"),
        (dict(num_gpus_per_machine=1, num_machines=2), "dist-url"),
    ],
)
def test_impossible_numbers(arguments, words):
    with pytest.raises(InputError, match=words):
        launch(print, **arguments)
