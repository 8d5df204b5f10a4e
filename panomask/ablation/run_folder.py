"""The folder of one run: what was asked for, and what became of it.

run.json            the request, the state ("running", "done" or "failed"), and every attempt
requested.yaml      the whole config that was asked for
environment.txt     the machine, the packages, and the commit of the code
uncommitted.patch   what the code had beside the commit, if anything
console.txt         what the command printed
config.yaml, log.txt, metrics.json, results.json, ...   of the training itself
"""

import datetime
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panomask.ablation.code_state import code_state
from panomask.ablation.sweep import Sweep, Variant
from panomask.atomic_file import write_atomically
from panomask.config import CfgNode, get_cfg
from panomask.config.coercion import plain
from panomask.config.node import flatten
from panomask.config.safe_yaml import read_yaml
from panomask.engine.environment import collect_env_info
from panomask.engine.project import find_project, load_config
from panomask.errors import InputError
from panomask.json_file import read_json, write_json

logger = logging.getLogger(__name__)

RUN_FILE, REQUEST_FILE = "run.json", "requested.yaml"
CONFIG_FILE, RESULTS_FILE = "config.yaml", "results.json"
CONSOLE_FILE, ENVIRONMENT_FILE, PATCH_FILE = "console.txt", "environment.txt", "uncommitted.patch"
COMMAND_MARK = "$ "
"""In front of the commands in console.txt."""
_TAIL_BYTES = 1 << 16


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
        overrides = _overrides(self.variant, self.seed, self.folder)
        return ["--config-file", self.variant.base, "--resume", *overrides]

    def state(self) -> str:
        """ "done", "failed", "interrupted" (begun and not ended) or "new"."""
        if not (self.folder / RUN_FILE).is_file():
            return "new"
        status = read_record(self.folder).get("status")
        if status == "done" and read_results(self.folder) is not None:
            return "done"
        return "failed" if status == "failed" else "interrupted"

    def check_request(self) -> None:
        """Raise InputError if the folder holds a run with other settings, or files that are no run."""
        path = self.folder / REQUEST_FILE
        if not path.is_file():
            # What a kill leaves before the request is written whole begins with a dot.
            if self.folder.is_dir() and any(not name.name.startswith(".") for name in self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds files, but no {REQUEST_FILE} of a sweep; choose another --output"
                )
            return
        before, now = dict(flatten(read_yaml(path))), dict(flatten(self.config))
        # A key that panomask did not have then had what is its default now. Folders may be moved.
        before = {key: before.get(key, default) for key, default in flatten(get_cfg())} | before
        changed = sorted(
            key
            for key, value in now.items()
            if key != "OUTPUT_DIR" and plain(before.get(key, value)) != plain(value)
        )
        if changed:
            key = changed[0]
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise InputError(
                f"{self.folder}: was run with {key} {before.get(key)!r}, and is now asked for with"
                f" {now.get(key)!r}{more}; choose another --output, or delete the folder"
            )

    def begin(self, command: Sequence[str]) -> None:
        """Write down what is about to run, beside earlier attempts. Results of those are removed."""
        attempts = attempts_of(read_record(self.folder))
        project = find_project(self.variant.base, _overrides(self.variant, self.seed, self.folder))
        states = {code_state(folder) for folder in (Path(__file__).parent, project) if folder is not None}
        self._write(REQUEST_FILE, self.config.dump())
        commits = ", ".join(sorted(str(state) for state in states if state.commit))
        self._write(ENVIRONMENT_FILE, f"{collect_env_info()}\ncommit {commits or 'not known'}\n")
        for name in (PATCH_FILE, RESULTS_FILE):
            (self.folder / name).unlink(missing_ok=True)
        if patch := "".join(state.patch for state in states):
            self._write(PATCH_FILE, patch)
        attempt = {
            "command": list(command),
            "commit": commits,
            "host": socket.gethostname(),
            "started": _now(),
        }
        record = {
            "choices": list(self.variant.choices),
            "overrides": dict(self.variant.overrides),
            "seed": self.seed,
            "project": str(project or ""),
            "status": "running",
            "attempts": [*attempts, attempt],
        }
        write_json(self.folder / RUN_FILE, record)

    def end(self, exit_code: int, reason: str = "") -> str:
        """Write down how the attempt ended; returns "" if it went well, else why not, in one line.

        `reason` is said of a command that did not start.
        """
        error = "" if exit_code == 0 else reason or self._last_words(exit_code)
        if exit_code == 0 and read_results(self.folder) is None:
            error = f"the command ended well, but left no {RESULTS_FILE} in {self.folder}"
        record = read_record(self.folder)
        *earlier, last = attempts_of(record) or [{}]
        last = {**last, "ended": _now(), "exit_code": exit_code}
        state = {"status": "failed" if error else "done", "error": error, "attempts": [*earlier, last]}
        write_json(self.folder / RUN_FILE, {**record, **state})
        return error

    def _last_words(self, exit_code: int) -> str:
        """The last line that the command printed, mostly the error."""
        with (self.folder / CONSOLE_FILE).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        said = (line.strip() for line in reversed(lines) if line.strip())
        last = next(said, COMMAND_MARK)
        last = "no output" if last.startswith(COMMAND_MARK.strip()) else last[-500:]
        ended = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return f"{ended}: {last}"

    def _write(self, name: str, text: str) -> None:
        with write_atomically(self.folder / name, "w") as file:
            file.write(text)


def plan_runs(sweep: Sweep, output: Path) -> list[Run]:
    """All runs of a sweep: the seeds of the first variant, then those of the next.

    Raises:
        InputError: a config that does not merge, or a folder that holds a run with other settings.
    """
    runs = []
    for variant in sweep.variants():
        for seed in sweep.seeds:
            folder = output / variant.place(seed)
            config = load_config(variant.base, _overrides(variant, seed, folder))
            runs.append(Run(variant, seed, folder, config))
    for run in runs:
        run.check_request()
    return runs


def _overrides(variant: Variant, seed: int, folder: Path) -> list[str]:
    """KEY, VALUE, ... of a run."""
    pairs = {**variant.overrides, "SEED": str(seed), "OUTPUT_DIR": str(folder)}
    return [word for pair in pairs.items() for word in pair]


def read_record(folder: Path) -> dict[str, Any]:
    """A run's run.json; nothing where there is none, and, with a warning, where it is broken."""
    return read_mapping(folder / RUN_FILE, "the run counts as interrupted") or {}


def attempts_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run's record says of its attempts, the first first."""
    attempts = record.get("attempts")
    return [x for x in attempts if isinstance(x, dict)] if isinstance(attempts, list) else []


def read_results(folder: Path) -> Mapping[str, Any] | None:
    """A run's results.json; None where there is none, and, with a warning, where it is broken."""
    return read_mapping(folder / RESULTS_FILE, "the run counts as interrupted")


def read_mapping(path: Path, meaning: str) -> dict[str, Any] | None:
    """A JSON file that holds a mapping; None without a file, and, with a warning, where it is broken."""
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except InputError as error:
        logger.warning(f"{error}; {meaning}")
        return None
    if not isinstance(content, dict):
        logger.warning(f"{path}: holds a {type(content).__name__}, not a mapping; {meaning}")
        return None
    return content


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
