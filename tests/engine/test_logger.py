import io
import logging
import sys
import uuid

import pytest
from tqdm import tqdm

from panomask.engine import create_small_table, log_every_n, log_every_n_seconds, log_first_n, setup_logger


@pytest.fixture
def name():
    name = f"test-{uuid.uuid4()}"
    yield name
    for handler in list(logging.getLogger(name).handlers):
        logging.getLogger(name).removeHandler(handler)
        handler.close()


def test_console_and_file_get_each_line_once(tmp_path, capsys, name):
    for _ in range(2):
        logger = setup_logger(str(tmp_path), name=name)
    logger.info("hello")
    logger.debug("detail")
    logger.warning("careful")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[0].endswith(f"{name}]: hello")
    assert out[1].endswith("WARNING careful")
    assert [line.split(" ")[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        "hello",
        "detail",
        "careful",
    ]


def test_lines_are_appended_and_a_new_folder_replaces_the_old(tmp_path, name):
    setup_logger(str(tmp_path / "a"), name=name, configure_stdout=False).info("one")
    setup_logger(str(tmp_path / "b"), name=name, configure_stdout=False).info("two")
    setup_logger(str(tmp_path / "a"), name=name, configure_stdout=False).info("three")
    assert (tmp_path / "a" / "log.txt").read_text().count("\n") == 2
    assert (tmp_path / "b" / "log.txt").read_text().count("\n") == 1


def test_other_ranks_write_files_of_their_own(tmp_path, capsys, name):
    setup_logger(str(tmp_path), distributed_rank=1, name=name).info("hello")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "log.txt.rank1").exists()


def test_other_ranks_without_a_file_are_silent(capfd, name):
    setup_logger(distributed_rank=1, name=name).warning("careful")
    assert capfd.readouterr() == ("", "")


def test_abbreviated_name_and_traceback(capsys, name):
    logger = setup_logger(name=name, abbrev_name="t")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger(f"{name}.part").exception("outer")
    out = capsys.readouterr().out
    assert " t.part]: ERROR outer" in out
    assert "ValueError: inner" in out
    logger.info("after")


def test_log_lines_move_a_progress_bar_out_of_the_way(monkeypatch, name):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    logger = setup_logger(name=name)
    with tqdm(total=2, file=screen, ncols=40) as bar:
        bar.update(1)
        logger.info("hello")
    line = next(line for line in screen.getvalue().split("\n") if "hello" in line)
    assert line.split("\r")[-1].startswith("[")  # alone in its line, after the bar was wiped


def test_limited_logging(caplog):
    with caplog.at_level(logging.INFO):
        for i in range(5):
            log_first_n(logging.INFO, f"first {i}", n=2)
            log_every_n(logging.INFO, f"every {i}", n=3)
            log_every_n_seconds(logging.INFO, f"seconds {i}", n=1000)
            log_first_n(logging.INFO, "same", key="message")
    assert caplog.messages == ["first 0", "every 0", "seconds 0", "same", "first 1", "every 3"]
    assert caplog.records[0].name == __name__


def test_small_table():
    table = create_small_table({"AP": 12.34567, "AP50": 50.0})
    assert "12.346" in table
    assert table.splitlines()[0].split() == ["|", "AP", "|", "AP50", "|"]
