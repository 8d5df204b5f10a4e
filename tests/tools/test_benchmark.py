import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "benchmark.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*arguments) -> (exit status, standard output, standard error) of the tool."""
    spec = importlib.util.spec_from_file_location("benchmark_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            tool.run_tool(tool.main)
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def test_table_and_json(run, tmp_path):
    path = tmp_path / "new" / "results.json"
    options = ("--detections", "2", "--output-size", "60", "80", "--rounds", "1", "--json", str(path))
    status, out, _ = run("results", *options)
    assert status is False
    assert "threads" in out.splitlines()[0]
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    content = json.loads(path.read_text())
    assert len(rows) == len(content["comparisons"]) + 1
    assert content["command"].startswith("python tools/benchmark.py results --detections 2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["operations", "--height", "-5"], "--height is -5; give 1 or more"),
        (["operations", "--boxes", "0"], "--boxes is 0"),
        (["results", "--output-size", "0", "0"], "--output-size is [0, 0]"),
        (["input", "--image-size", "10", "0"], "--image-size is [10, 0]"),
        (["training", "--objects", "1000"], "--objects is 1000; give 256 or fewer"),
        (["all", "--rounds", "0"], "--rounds is 0"),
        (["all", "--threads", "-1"], "--threads is -1"),
        (["inference", "--json", "."], "--json .: cannot be written"),
    ],
)
def test_bad_options_are_one_line(run, arguments, words):
    status, _, err = run(*arguments)
    assert status == 1
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_gpu_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch finds no GPU" in run("training", "--device", "cuda")[2]


def test_what_was_measured_is_told_when_the_next_fails(run, monkeypatch, tmp_path):
    from panomask.benchmark import results
    from panomask.benchmark.comparison import Comparison

    def comparisons(args):
        yield Comparison("first", lambda: 1, lambda: 1, "plain", lambda a, b: "equal")
        yield Comparison("second", lambda: 1, lambda: 2, "plain", lambda a, b: _differ())
        raise KeyboardInterrupt

    def _differ():
        raise AssertionError("they differ")

    monkeypatch.setattr(results, "comparisons", comparisons)
    status, out, err = run("results", "--rounds", "1", "--json", str(tmp_path / "a.json"))
    assert status == 130
    assert "first" in out
    assert "second" not in out
    assert len(json.loads((tmp_path / "a.json").read_text())["comparisons"]) == 1
    assert "interrupted" in err
