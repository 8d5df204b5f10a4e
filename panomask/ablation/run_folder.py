"""The folder of one run: what was asked for, what became of it, and who works in it.

run.json            the request and the state: "running", "done" or "failed"
requested.yaml      the whole config that was asked for
environment.txt     the machine, the packages, and the commit of the code
uncommitted.patch   what the code had beside the commit, if anything
console.txt         what the command printed
config.yaml, log.txt, metrics.json, results.json, ...   of the training itself
"""

import datetime
import fcntl
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from panomask.ablation.sweep import Sweep, Variant
from panomask.atomic_file import write_atomically
from panomask.config import CfgNode
from panomask.config.node import flatten
from panomask.config.safe_yaml import read_yaml
from panomask.engine.environment import collect_env_info
from panomask.engine.project import load_config
from panomask.errors import InputError
from panomask.json_file import read_json, write_json

RUN_FILE, REQUEST_FILE = "run.json", "requested.yaml"
CONFIG_FILE, RESULTS_FILE = "config.yaml", "results.json"
CONSOLE_FILE, ENVIRONMENT_FILE, PATCH_FILE = "console.txt", "environment.txt", "uncommitted.patch"
_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Run:
    """One training of one variant.

    Args:
        variant: what it trains.
        seed: SEED.
        folder: its OUTPUT_DIR.
        config: all that the run asks for.
    """

    variant: Variant
    seed: int
    folder: Path
    config: CfgNode

    @property
    def name(self) -> str:
        return f"{', '.join(self.variant.choices)}, seed {self.seed}"

    def arguments(self) -> list[str]:
        """What follows the command: the config, where to go on, and the overrides."""
        pairs = {**self.variant.overrides, "SEED": str(self.seed), "OUTPUT_DIR": str(self.folder)}
        words = [word for pair in pairs.items() for word in pair]
        return ["--config-file", self.variant.base, "--resume", *words]

    def state(self) -> str:
        """ "done", "failed", "interrupted" (begun and not ended) or "new"."""
        if not (self.folder / RUN_FILE).is_file():
            return "new"
        status = read_json(self.folder / RUN_FILE).get("status")
        if status == "done" and (self.folder / RESULTS_FILE).is_file():
            return "done"
        return "failed" if status == "failed" else "interrupted"

    def check_request(self) -> None:
        """Raise InputError if the folder holds a run with other settings, or files that are no run."""
        path = self.folder / REQUEST_FILE
        if not path.is_file():
            if self.folder.is_dir() and any(name.name != _LOCK_FILE for name in self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds files, but no {REQUEST_FILE} of a sweep; choose another --output"
                )
            return
        before, now = dict(flatten(read_yaml(path))), dict(flatten(yaml.safe_load(self.config.dump())))
        # Folders may be moved, and names of projects read alike wherever they lie.
        changed = sorted(
            key for key in {*before, *now} - {"OUTPUT_DIR"} if _plain(before.get(key)) != _plain(now.get(key))
        )
        if changed:
            key = changed[0]
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise InputError(
                f"{self.folder}: was run with {key} {before.get(key)!r}, and is now asked for with"
                f" {now.get(key)!r}{more}; choose another --output, or delete the folder"
            )

    def begin(self, command: list[str]) -> None:
        """Write down what is about to run. The first attempt's start is kept."""
        path = self.folder / RUN_FILE
        before = read_json(path) if path.is_file() else {}
        commit, status, patch = state_of_code()
        self._write(REQUEST_FILE, self.config.dump())
        self._write(ENVIRONMENT_FILE, f"{collect_env_info()}\ncommit {commit or 'not known'}\n{status}")
        if patch:
            self._write(PATCH_FILE, patch)
        else:
            (self.folder / PATCH_FILE).unlink(missing_ok=True)
        record = {
            "choices": list(self.variant.choices),
            "overrides": dict(self.variant.overrides),
            "seed": self.seed,
            "base": self.variant.base,
            "command": command,
            "commit": f"{commit} with uncommitted changes" if status else commit,
            "host": socket.gethostname(),
            "attempts": int(before.get("attempts", 0)) + 1,
            "started": before.get("started", _now()),
            "status": "running",
        }
        write_json(path, record)

    def end(self, exit_code: int) -> str:
        """Write down how it ended; returns "" if it went well, else the reason in one line."""
        error = "" if exit_code == 0 else self._last_words(exit_code)
        if exit_code == 0 and not (self.folder / RESULTS_FILE).is_file():
            error = f"the command ended well, but left no {RESULTS_FILE} in {self.folder}"
        path = self.folder / RUN_FILE
        status = {"status": "failed" if error else "done", "exit_code": exit_code, "error": error}
        write_json(path, {**read_json(path), **status, "ended": _now()})
        return error

    def _last_words(self, exit_code: int) -> str:
        """The last line that the command printed, mostly the error."""
        lines = (self.folder / CONSOLE_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        ended = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return f"{ended}: {last[-500:]}"

    def _write(self, name: str, text: str) -> None:
        with write_atomically(self.folder / name, "w") as file:
            file.write(text)


class RunLock:
    """The right to work in a run's folder.

    The command inherits it: also one that outlives a killed sweep holds it until its last process has ended,
    so that no second command writes into the same folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)

    def acquire(self) -> bool:
        """Whether the folder was free; it is this process's then."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go; a command that inherited the lock goes on holding it."""
        os.close(self.descriptor)


def plan_runs(sweep: Sweep, output: Path) -> list[Run]:
    """All runs of a sweep: the seeds of the first variant, then those of the next.

    Raises:
        InputError: a config that does not merge, or a folder that holds a run with other settings.
    """
    runs = []
    for variant in sweep.variants():
        for seed in sweep.seeds:
            folder = output / variant.folder / f"seed_{seed}"
            pairs = [word for pair in variant.overrides.items() for word in pair]
            config = load_config(variant.base, [*pairs, "SEED", str(seed), "OUTPUT_DIR", str(folder)])
            runs.append(Run(variant, seed, folder, config))
    for run in runs:
        run.check_request()
    return runs


def state_of_code() -> tuple[str, str, str]:
    """Of panomask's checkout: the commit, what git says of changed and new files, and the changes as a patch.

    Each is "" where it is not known or there is nothing.
    """
    folder = Path(__file__).parents[2]
    if shutil.which("git") is None or not (folder / ".git").exists():
        return "", "", ""

    def git(*words: str) -> str:
        answer = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
        return answer.stdout.decode(errors="replace") if answer.returncode == 0 else ""

    return git("rev-parse", "HEAD").strip(), git("status", "--porcelain"), git("diff", "HEAD")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """A value with every tuple as a list."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
