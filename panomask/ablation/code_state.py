"""Which code ran: its commit, and what it had beside the commit."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MAX_NEW_FILES = 200
_MAX_NEW_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class CodeState:
    """Of a checkout: the commit, and a patch that makes the code of it; both "" where git knows nothing."""

    commit: str
    patch: str

    def __str__(self) -> str:
        return f"{self.commit} with uncommitted changes" if self.patch else self.commit


def code_state(folder: Path) -> CodeState:
    """The state of the checkout that holds a folder.

    The patch has changed files, and new ones that git does not ignore, of up to 1 MiB.
    """
    if shutil.which("git") is None:
        return CodeState("", "")
    root = _git(folder, "rev-parse", "--show-toplevel").strip()
    if not root:
        return CodeState("", "")
    new = _git(Path(root), "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    small = [name for name in new if name and _is_small(Path(root) / name)]
    added = (
        _git(Path(root), "diff", "--no-index", "--", "/dev/null", name) for name in small[:_MAX_NEW_FILES]
    )
    return CodeState(
        _git(folder, "rev-parse", "HEAD").strip(), _git(Path(root), "diff", "HEAD") + "".join(added)
    )


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _MAX_NEW_FILE_BYTES


def _git(folder: Path, *words: str) -> str:
    """What git prints; "" where it fails. A difference between files, exit code 1, is no failure."""
    answer = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    return answer.stdout.decode(errors="replace") if answer.returncode in (0, 1) else ""
