"""Which code ran: the commit, and a patch that makes the code of it."""

import shutil
import subprocess

import pytest

from panomask.ablation.code_state import code_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit of `a.txt`, and a folder `deep` in it."""
    folder = tmp_path / "repository"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("one\n")
    (folder / ".gitignore").write_text("ignored.txt\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "first")
    return folder


def git(folder, *words) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_clean_checkout(checkout):
    state = code_state(checkout / "deep")
    assert state.commit == git(checkout, "rev-parse", "HEAD").strip()
    assert (state.patch, str(state)) == ("", state.commit)


def test_the_patch_makes_the_code_of_the_commit(checkout, tmp_path):
    (checkout / "a.txt").write_text("two\n")
    (checkout / "deep" / "new.txt").write_text("new\n")
    (checkout / "ignored.txt").write_text("not code\n")
    (checkout / "large.bin").write_bytes(b"x" * (2 << 20))
    state = code_state(checkout / "deep")
    assert str(state) == f"{state.commit} with uncommitted changes"
    git(tmp_path, "clone", "-q", str(checkout), "again")
    (tmp_path / "patch").write_text(state.patch)
    git(tmp_path / "again", "apply", str(tmp_path / "patch"))
    assert (tmp_path / "again" / "a.txt").read_text() == "two\n"
    assert (tmp_path / "again" / "deep" / "new.txt").read_text() == "new\n"
    assert not (tmp_path / "again" / "ignored.txt").exists()
    assert not (tmp_path / "again" / "large.bin").exists()


def test_no_checkout(tmp_path, monkeypatch):
    assert code_state(tmp_path).commit == ""
    monkeypatch.setenv("PATH", "")
    assert code_state(tmp_path).patch == ""
