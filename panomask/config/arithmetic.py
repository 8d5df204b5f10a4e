"""Arithmetic from a config file, evaluated without running code.

Detectron2's Base-RetinaNet.yaml writes its anchor sizes as a Python expression (a list comprehension over
literals). This module walks the syntax tree of such an expression itself: numbers, arithmetic, lists, tuples
and comprehensions, and nothing else. There is no name look-up, no call and no attribute, so no code can run,
and steps and magnitudes are bounded, so no expression can hang the program or fill the memory.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

MAX_LENGTH = 1000
MAX_STEPS = 10_000
MAX_EXPONENT = 64
MAX_MAGNITUDE = 2**63

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def evaluate_arithmetic(expression: str) -> Any:
    """The value of `expression`: a number, or a list or tuple of such values, nested as written.

    Allowed are int and float literals, `+ - * / // % **`, unary signs, list and tuple displays, and list
    comprehensions `[... for x in <list> for y in <list>]` whose names are bound by the comprehension itself.
    Raises ValueError with the reason for anything else, or for a result that is too large.
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _Evaluator().value(tree.body, {})
    except SyntaxError as error:
        raise ValueError("not a Python expression") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested too deeply") from error
    except ArithmeticError as error:
        raise ValueError(str(error)) from error


class _Evaluator:
    def __init__(self) -> None:
        self.steps = 0

    def value(self, node: ast.AST, names: dict[str, Any]) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS} steps")
        if isinstance(node, ast.Constant):
            return _number(node.value)
        if isinstance(node, ast.Name):
            if node.id not in names:
                raise ValueError(f"name {node.id!r} is not bound by a comprehension in the expression")
            return names[node.id]
        if isinstance(node, ast.List):
            return [self.value(item, names) for item in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(self.value(item, names) for item in node.elts)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            return _number(_UNARY[type(node.op)](_number(self.value(node.operand, names))))
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self.binary(node, names)
        if isinstance(node, ast.ListComp):
            return [self.value(node.elt, bound) for bound in self.bindings(node.generators, names)]
        raise ValueError(f"{type(node).__name__} is not allowed, only arithmetic on numbers and lists")

    def binary(self, node: ast.BinOp, names: dict[str, Any]) -> float:
        left, right = _number(self.value(node.left, names)), _number(self.value(node.right, names))
        if isinstance(node.op, ast.Pow) and abs(right) > MAX_EXPONENT:
            raise ValueError(f"exponent {right} is beyond {MAX_EXPONENT}")
        return _number(_BINARY[type(node.op)](left, right))

    def bindings(self, loops: list[ast.comprehension], names: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The names in force at each turn of the nested `for` clauses, outermost first."""
        if not loops:
            yield names
            return
        loop, *inner = loops
        if not isinstance(loop.target, ast.Name) or loop.ifs or loop.is_async:
            raise ValueError("a comprehension must read 'for NAME in LIST', without conditions")
        items = self.value(loop.iter, names)
        if not isinstance(items, list | tuple):
            raise ValueError("a comprehension must run over a list or tuple")
        for item in items:
            yield from self.bindings(inner, {**names, loop.target.id: item})


def _number(value: Any) -> Any:
    """`value` if it is a finite int or float of bounded magnitude; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"only numbers are allowed, not a {type(value).__name__}")
    if not math.isfinite(value) or abs(value) > MAX_MAGNITUDE:
        raise ValueError("a number is too large")
    return value
