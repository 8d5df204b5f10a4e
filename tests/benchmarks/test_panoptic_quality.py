"""benchmarks/panoptic_quality.py measures, and its reference agrees with panomask."""

import importlib.util
import sys
from pathlib import Path

import pytest


def test_table(monkeypatch, capsys):
    path = Path(__file__).parents[2] / "benchmarks" / "panoptic_quality.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_panoptic_quality", path)
    assert spec is not None
    tool = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "DECODE_LIMIT", float("inf"))
    monkeypatch.setattr(tool, "REFERENCE_LIMIT", float("inf"))
    monkeypatch.setattr(
        sys, "argv", ["panoptic_quality.py", "--images", "5", "--height", "60", "--width", "80"]
    )
    with pytest.raises(SystemExit) as exit_:
        tool.main()
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "| reference |" in text
    assert "KiB after 5 images" in text
    assert "PQ nan" not in text
