"""Calls written for Detectron2 fit ours: the same parameters in the same order with the same defaults.

Ours may take more, as long as a call without it means what it meant.
"""

import ast
import enum
import functools
import gzip
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from panomask.detectron2_api import MODULES

SIGNATURES: dict[str, str] = json.loads(
    gzip.decompress(Path(__file__).with_name("detectron2_signatures.json.gz").read_bytes())
)
"""Detectron2's name -> parameters of the function or method, without annotations."""

LATER = "to be mended: "
DIFFERENT = {
    "detectron2.data.build_batch_data_loader": "pin_memory=None pins where a GPU is used, False never does",
    "detectron2.layers.cross_entropy": "F.cross_entropy's own keywords stand in the place of **kwargs",
    "detectron2.modeling.Backbone.forward": "abstract: Detectron2 leaves the input to the subclass",
    "detectron2.structures.BitMasks.from_roi_masks": "it needs boxes: without them nothing can be pasted",
    "detectron2.utils.analysis.activation_count_operators": "fvcore's keyword in the place of **kwargs",
    "detectron2.utils.logger.setup_logger": "our loggers are named panomask",
    **{
        f"detectron2.data.transforms.{name}.apply_rotated_box": LATER + "rotated boxes"
        for name in ("HFlipTransform", "NoOpTransform", "ResizeTransform")
    },
    **{
        f"detectron2.utils.visualizer.Visualizer.{name}": LATER + "rotated boxes"
        for name in ("overlay_rotated_instances", "draw_rotated_box_with_label")
    },
    "detectron2.utils.visualizer.Visualizer.draw_soft_mask": LATER + "soft masks",
}
"""Detectron2's name -> why ours differs."""

Parameter = tuple[str, str, str | None]
"""Name, kind (p: positional, *: any positional, k: keyword only, **: any keyword), default as text."""

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "p",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "p",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "k",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def _recorded(parameters: str) -> list[Parameter]:
    arguments = ast.parse(f"def f({parameters}): pass").body[0].args  # type: ignore[attr-defined]
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found: list[Parameter] = [
        (each.arg, "p", default and ast.unparse(default))
        for each, default in zip(positional, defaults, strict=True)
    ]
    found += [(arguments.vararg.arg, "*", None)] if arguments.vararg else []
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append((each.arg, "k", default and ast.unparse(default)))
    return found + ([(arguments.kwarg.arg, "**", None)] if arguments.kwarg else [])


def _actual(function: Any) -> list[Parameter]:
    return [
        (each.name, KINDS[each.kind], None if each.default is each.empty else _text(each.default))
        for each in inspect.signature(function).parameters.values()
    ]


def _text(default: Any) -> str:
    return str(default) if isinstance(default, enum.Enum) else repr(default)


def _find(name: str) -> Any:
    """The function or method of ours under a Detectron2 name, unbound."""
    module = next(known for known in sorted(MODULES, key=len, reverse=True) if name.startswith(f"{known}."))
    owner, *rest = name.removeprefix(f"{module}.").split(".")
    found = next(
        vars(target)[owner]
        for target in map(importlib.import_module, MODULES[module])
        if owner in vars(target)
    )
    for attribute in rest:
        found = inspect.getattr_static(found, attribute)
    return getattr(found, "__func__", found)


def _mismatch(expected: list[Parameter], actual: list[Parameter]) -> str:
    """What stands in the way of a call written for `expected`; empty if nothing does."""
    kinds = {kind for _, kind, _ in expected}
    if kinds - {"p"} == {"*", "**"} and all(
        name in {"self", "cls"} for name, kind, _ in expected if kind == "p"
    ):
        return ""  # recorded without its parameters
    for kind in ("*", "**"):
        if kind in kinds and kind not in {each[1] for each in actual}:
            return f"{kind} is not taken"
    positional = [each for each in actual if each[1] == "p"]
    by_name = {each[0]: each for each in actual if each[1] in ("p", "k")}
    for idx, (name, kind, default) in enumerate(expected):
        if kind not in ("p", "k") or (name in {"self", "cls"} and idx == 0):
            continue
        found = (positional[idx : idx + 1] or [("", "", None)])[0] if kind == "p" else by_name.get(name)
        if found is None or found[0] != name:
            return f"{name} is not at its place"
        if default not in (None, found[2]):
            return f"{name}={found[2]}, not {default}"
    known = {name for name, _, _ in expected} | {"self", "cls"}
    needed = [name for name, (_, _, default) in by_name.items() if name not in known and default is None]
    return f"{', '.join(needed)} must be given" if needed else ""


def test_calls_fit():
    problems = {}
    for name, parameters in SIGNATURES.items():
        try:
            found = _find(name)
        except (AttributeError, StopIteration):
            problems[name] = "does not exist"
            continue
        if not isinstance(found, property | functools.cached_property):
            problems[name] = _mismatch(_recorded(parameters), _actual(found))
    problems = {name: problem for name, problem in problems.items() if problem}
    assert {name: problem for name, problem in problems.items() if name not in DIFFERENT} == {}
    assert set(DIFFERENT) <= set(problems), "mended: take them out of the table"


def test_what_counts_as_a_mismatch():
    expected = _recorded("self, a, b=1, *, c=None")

    def more(self, a, b=1, d=2, *, c=None, e=3): ...
    def other_order(self, b, a=1, *, c=None): ...
    def other_default(self, a, b=2, *, c=None): ...
    def needs_more(self, a, b=1, *, c=None, e): ...
    def lacks(self, a, b=1): ...

    assert _mismatch(expected, _actual(more)) == ""
    assert _mismatch(expected, _actual(other_order)) == "a is not at its place"
    assert _mismatch(expected, _actual(other_default)) == "b=2, not 1"
    assert _mismatch(expected, _actual(needs_more)) == "e must be given"
    assert _mismatch(expected, _actual(lacks)) == "c is not at its place"
    assert _mismatch(_recorded("self, *args"), _actual(lacks)) == "* is not taken"
