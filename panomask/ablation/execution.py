"""Runs the commands of a sweep, several at a time, so that any interruption can be gone on from."""

import logging
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import torch

from panomask.ablation.run_folder import COMMAND_MARK, CONSOLE_FILE, Run
from panomask.ablation.run_lock import RunLock
from panomask.errors import InputError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SECONDS_TO_END = 15.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a sweep as Ctrl-C does; the latter comes when the terminal is lost."""


@dataclass
class _Job:
    """A run whose command is at work in a slot."""

    run: Run
    process: subprocess.Popen[bytes]
    lock: RunLock
    console: IO[bytes]
    slot: int
    started: float


def execute(
    runs: Sequence[Run], *, command: Sequence[str], jobs: int = 1, gpus_per_job: int = 0
) -> list[Run]:
    """Train what is not done, `jobs` at a time, in the order of `runs`.

    A run that was interrupted goes on from its last checkpoint; one that failed is tried again. A failure is
    logged and stops nothing else. A run that a process of an earlier, killed sweep still works on is waited
    for; so two sweeps on one folder share the work. Ctrl-C, SIGTERM and SIGHUP end the commands, then the
    sweep.

    Args:
        runs: of `plan_runs`.
        command: what comes before a run's arguments, such as ["python", "tools/train_net.py"].
        jobs: commands at a time.
        gpus_per_job: GPUs that each command sees, none of them another's; 0: all see all.

    Returns:
        The runs that failed.

    Raises:
        InputError: fewer GPUs than `jobs` times `gpus_per_job`, or a command that cannot be started.
    """
    environments = _environments(jobs, gpus_per_job)
    waiting = deque(run for run in runs if run.state() != "done")
    logger.info(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done, {jobs} at a time")
    active: list[_Job] = []
    failed: list[Run] = []
    announced: set[str] = set()
    # Where a signal is ignored, as nohup does with SIGHUP, it stays so.
    heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _interrupt) for number in heard}
    try:
        while waiting or active:
            free = sorted({*range(jobs)} - {job.slot for job in active})
            for _ in range(len(waiting)):
                if not free:
                    break
                run = waiting.popleft()
                lock = RunLock(run.folder)
                if not lock.acquire():
                    lock.close()
                    waiting.append(run)
                    if run.name not in announced:
                        announced.add(run.name)
                        logger.info(f"{run.name}: another process works in {run.folder}; waiting for its end")
                elif run.state() == "done":  # by that other process
                    lock.close()
                elif not _start(run, lock, command, environments[free[0]], free.pop(0), active):
                    failed.append(run)
            time.sleep(_POLL_SECONDS)
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                if not _finish(job):
                    failed.append(job.run)
                done = len(runs) - len(waiting) - len(active)
                logger.info(f"{done} of {len(runs)} runs have ended")
    finally:
        _stop(active)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return failed


def _start(
    run: Run,
    lock: RunLock,
    command: Sequence[str],
    environment: Mapping[str, str],
    slot: int,
    active: list[_Job],
) -> bool:
    """Start a run's command and put it among the active ones; whether it could be started."""
    words = [*command, *run.arguments()]
    before = run.state()
    try:
        run.begin(words)
        console = (run.folder / CONSOLE_FILE).open("ab")
        console.write(f"{COMMAND_MARK}{shlex.join(words)}\n".encode())
        console.flush()
    except OSError as error:
        lock.close()
        logger.error(f"{run.name}: failed: {run.folder} cannot be written to ({error.strerror})")
        return False
    try:
        # A session of its own: Ctrl-C reaches the sweep alone, which ends what it started.
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**environment, **lock.environment()},
            pass_fds=[lock.descriptor],
            start_new_session=True,
        )
        active.append(_Job(run, process, lock, console, slot, time.monotonic()))
    except OSError as error:
        console.close()
        run.end(127, f"{command[0]!r} cannot be started ({error.strerror})")
        lock.close()
        raise InputError(
            f"the command {command[0]!r} cannot be started ({error.strerror}); see --command"
        ) from error
    what = {"new": "started", "failed": "tried again"}.get(before, "goes on from its last checkpoint")
    logger.info(f"{run.name}: {what} as process {process.pid}; its output is in {run.folder / CONSOLE_FILE}")
    return True


def _finish(job: _Job) -> bool:
    """Write down how a command ended; whether it went well. What it has left running is ended."""
    _signal(job, signal.SIGKILL)
    job.console.close()
    try:
        error = job.run.end(job.process.returncode)
    except (OSError, InputError) as problem:  # of this run's folder: the others go on
        error = str(problem)
    job.lock.close()
    if error:
        logger.error(f"{job.run.name}: failed ({error}); see {job.run.folder / CONSOLE_FILE}")
    else:
        logger.info(f"{job.run.name}: done after {time.monotonic() - job.started:.0f} s")
    return not error


def _stop(active: Sequence[_Job]) -> None:
    """End the commands that are at work, with all their processes. Their runs stay interrupted.

    What would interrupt this is ignored meanwhile: it would leave commands behind that nobody ends.
    """
    if not active:
        return
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_ENDING)}
    logger.info(
        f"Ending {', '.join(job.run.name for job in active)} (within {_SECONDS_TO_END:.0f} s);"
        " the same command goes on from here"
    )
    for job in active:
        _signal(job, signal.SIGTERM)
    end = time.monotonic() + _SECONDS_TO_END
    for job in active:
        with suppress(subprocess.TimeoutExpired):
            job.process.wait(max(0.0, end - time.monotonic()))
        _signal(job, signal.SIGKILL)
        job.process.wait()
        job.console.close()
        job.lock.close()
    for number, handler in ignored.items():
        signal.signal(number, handler)


def _signal(job: _Job, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(job.process.pid, number)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _environments(jobs: int, gpus_per_job: int) -> list[dict[str, str]]:
    """What the command in each slot has for an environment: its GPUs, and its share of the CPU's threads."""
    shared = dict(os.environ)
    if jobs > 1 and "OMP_NUM_THREADS" not in shared:
        # By default each command would take all cores, and they would wait for one another most of the time.
        shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    if gpus_per_job == 0:
        return [shared] * jobs
    visible = _visible_gpus()
    if len(visible) < jobs * gpus_per_job:
        raise InputError(
            f"--jobs {jobs} with --gpus-per-job {gpus_per_job} need {jobs * gpus_per_job} GPUs; here are"
            f" {len(visible)}; ask for fewer"
        )
    slots = [visible[slot * gpus_per_job : (slot + 1) * gpus_per_job] for slot in range(jobs)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(gpus)} for gpus in slots]


def _visible_gpus() -> list[str]:
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return [name.strip() for name in stated.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
