import os
import signal
import subprocess
import sys

import pytest

from panomask.atomic_file import write_atomically

KILLED_WHILE_WRITING = """
import os, signal, sys
from panomask.atomic_file import write_atomically
with write_atomically(sys.argv[1]) as file:
    file.write(b"new, but only ha")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_new_content_replaces_the_old(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_atomically(path, "w") as file:
        file.write("néw")
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "néw"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write_and_fail():
        with write_atomically(path) as file:
            file.write(b"new")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_kill_leaves_the_old_content_and_the_next_attempt_succeeds(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    process = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)])
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with write_atomically(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]
