"""Scripts of tools/ as modules, for what needs no process of its own: starting one takes seconds."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool(request: pytest.FixtureRequest) -> ModuleType:
    """The script that a test file is named after: tools/x.py for test_x.py."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """run(*arguments) calls the script's `main` with a command line of these."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, arguments)])
        tool.main()

    return run
