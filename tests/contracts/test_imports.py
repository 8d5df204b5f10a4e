"""The import rules of the house, proved from the imports themselves: one-way, no circles, no attic."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "panomask"

LEAVES = {
    *("addresses", "atomic_file", "distributed", "errors", "event_storage", "image_decoding", "json_file"),
    *("panoptic_png", "registry", "safe_pickle", "semantic_png", "xml_file"),
}
"""Modules that import nothing of ours but other leaves; everybody may import them."""

ALLOWED: dict[str, set[str]] = {
    "structures": {"layers"},
    "layers": set(),
    "config": set(),
    "modeling": {"structures", "layers", "config"},
    "data": {"structures", "config"},
    "solver": {"config"},
    "checkpoint": {"config"},
    "evaluation": {"structures", "data.catalog"},
    "visualization": {"structures", "data.catalog"},
    "engine": {
        *("structures", "layers", "config", "modeling", "data", "solver"),
        *("checkpoint", "evaluation", "visualization"),
    },
    "ablation": {"config", "data", "engine"},
    "benchmark": {
        *("structures", "layers", "config", "modeling", "data", "solver"),
        *("checkpoint", "evaluation", "engine", "model_zoo"),
    },
    "model_zoo": {"config", "modeling", "checkpoint"},
    "detectron2_api": set(),
    "": {"detectron2_api"},
}
FORBIDDEN_FOLDERS = {"utils", "misc", "common", "helpers"}


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_modules(path: Path) -> set[str]:
    """Absolute names of the panomask modules (or their attributes) that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = _module(path).split(".")
                package = parts if path.name == "__init__.py" else parts[:-1]
                base = ".".join(package[: len(package) - node.level + 1] + ([base] if base else []))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "panomask"}


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", _sources(PACKAGE), ids=_module)
def test_imports_go_down_only(path: Path):
    room = _room(_module(path))
    for name in _imported_modules(path):
        target = _room(name)
        if target in {room, "__version__"} | LEAVES:
            continue
        allowed = ALLOWED.get(room, set())
        inner = ".".join(name.split(".")[1:3])
        assert target in allowed or inner in allowed, f"{_module(path)} must not import {name}"


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_of_ours(leaf: str):
    targets = {_room(name) for name in _imported_modules(PACKAGE / f"{leaf}.py")}
    assert targets <= LEAVES


def test_no_circles_between_modules():
    modules = {_module(path): path for path in _sources(PACKAGE)}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for name in _imported_modules(path):
            target = name if name in modules else name.rpartition(".")[0]
            # `from panomask.data import x` inside the package's own __init__ is no circle
            if target in modules and target != module and not module.startswith(f"{target}."):
                graph[module].add(target)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for target in sorted(graph[module]):
                if not target == module and not _is_parent(target, module):
                    visit(target, (*trail, module))
            done.add(module)

    def _is_parent(target: str, module: str) -> bool:
        return module.startswith(f"{target}.")

    for module in graph:
        visit(module, ())


def test_nobody_imports_tools_or_projects():
    for path in [*_sources(PACKAGE), *_sources(ROOT / "tools"), *_sources(ROOT / "projects")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"tools", "projects"}, path


def test_no_attic():
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    files = {path.stem for path in _sources(PACKAGE)}
    assert not (folders | files) & FORBIDDEN_FOLDERS
