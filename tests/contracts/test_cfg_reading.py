"""`cfg` stops at the builders: it is read in `from_config`, `build_*` functions and the engine alone.

The model zoo, which makes configs, is as the engine here.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXEMPT = {"config", "engine", "model_zoo.py"}
SOURCES = [
    path
    for path in sorted((ROOT / "panomask").rglob("*.py"))
    if path.relative_to(ROOT).parts[1] not in EXEMPT and "__pycache__" not in path.parts
]


def _cfg_reads(tree: ast.AST, inside: str = "") -> list[tuple[str, int]]:
    """(function, line) of each `cfg.NAME` with an upper-case NAME, by innermost enclosing function."""
    found = []
    for node in ast.iter_child_nodes(tree):
        name = inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_builder(inside):
            name = node.name
        is_read = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr.isupper()
        if is_read and node.value.id in {"cfg", "_cfg"}:
            found.append((inside, node.lineno))
        found += _cfg_reads(node, name)
    return found


def _is_builder(name: str) -> bool:
    bare = name.lstrip("_")
    return (
        bare.startswith("build_")
        or bare.endswith("from_config")
        or bare in {"from_config", "check_supported"}
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cfg_is_read_by_builders_alone(path: Path):
    reads = _cfg_reads(ast.parse(path.read_text()))
    bad = [
        f"{path.name}:{line} in {function or 'the module'}"
        for function, line in reads
        if not _is_builder(function)
    ]
    assert not bad
