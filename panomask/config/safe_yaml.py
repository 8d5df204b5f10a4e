"""YAML read as data: no code runs, no file can exhaust time or memory, every error is one line.

`read_yaml` reads one file; `read_yaml_with_bases` follows `_BASE_` and remembers which file every key came
from.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from panomask.config.arithmetic import evaluate_arithmetic
from panomask.config.zoo import refuse_python_config
from panomask.errors import InputError

BASE_KEY = "_BASE_"
MAX_FILE_BYTES = 256 * 1024
MAX_VALUES = 50_000  # after aliases are expanded: a chain of aliases doubles its size with every line
MAX_BASE_FILES = 64

_YAML = "tag:yaml.org,2002:"
_PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """SafeLoader with only plain values, `!!python/tuple` and arithmetic. Dates stay strings."""

    yaml_constructors = {  # noqa: RUF012 (PyYAML's own class attribute)
        _YAML + tag: yaml.SafeLoader.yaml_constructors[_YAML + tag] for tag in _PLAIN_TAGS
    }
    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _construct_tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise InputError(f"{_place(node)}: !!python/tuple needs a list")
    return tuple(loader.construct_sequence(node, deep=True))


def _construct_arithmetic(loader: _Loader, node: yaml.Node) -> Any:
    arguments = node.value if isinstance(node, yaml.SequenceNode) else []
    if len(arguments) != 1 or not isinstance(arguments[0], yaml.ScalarNode):
        raise InputError(f'{_place(node)}: {_tag(node)} needs one expression: ["[x * 2 for x in [1, 2]]"]')
    try:
        return evaluate_arithmetic(arguments[0].value)
    except ValueError as error:
        raise InputError(
            f"{_place(node)}: cannot evaluate {arguments[0].value[:80]!r}: {error}; write the value itself"
        ) from error


def _refuse_tag(loader: _Loader, node: yaml.Node) -> Any:
    raise InputError(
        f"{_place(node)}: tag {_tag(node)} is not allowed in a config; plain values, !!python/tuple and"
        " !!python/object/apply:eval around arithmetic only"
    )


_Loader.add_constructor(_YAML + "python/tuple", _construct_tuple)
_Loader.add_constructor(_YAML + "python/object/apply:eval", _construct_arithmetic)
_Loader.add_constructor(None, _refuse_tag)


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}: line {node.start_mark.line + 1}"


def _tag(node: yaml.Node) -> str:
    return node.tag.replace(_YAML, "!!")


class _NamesAsWritten(_Loader):
    """Takes the names in mappings as text, `010` and `on` too, and refuses one that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                raise InputError(f"{_place(name_node)}: a name is a word; quote it")
            if name_node.value in found:
                raise InputError(
                    f"{_place(name_node)}: {name_node.value!r} stands there twice; rename one of them"
                )
            found[name_node.value] = self.construct_object(value_node, deep=True)
        return found


def read_yaml(file: str | os.PathLike[str], *, names_as_written: bool = False) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    With `names_as_written` the names in mappings are text, whatever YAML would make of them, and none stands
    twice in one.

    Raises InputError, with file and line, for a missing or unreadable file, broken YAML, any tag but the
    plain ones, `!!python/tuple` and arithmetic under `!!python/object/apply:eval`, and for files or alias
    expansions too large to be a config; for a Python config (LazyConfig) it names what takes its place.
    """
    refuse_python_config(file)
    text = _read_text(file)
    try:
        loader = (_NamesAsWritten if names_as_written else _Loader)(text)
        loader.name = str(file)
        node = loader.get_single_node()
        if node is None:
            return {}
        _check_size(node)
        values = loader.construct_document(node)
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{file}: {line}broken YAML: {_one_line(error.problem or error.context)}") from error
    except RecursionError as error:
        raise InputError(f"{file}: nested too deeply to be a config") from error
    except (yaml.YAMLError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{file}: broken YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: holds a {type(values).__name__}; a config is a mapping of keys to values")
    return values


def _read_text(file: str | os.PathLike[str]) -> str:
    path = Path(file).expanduser()
    try:
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{file}: {path.stat().st_size} bytes; a config has at most {MAX_FILE_BYTES}")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{file}: config file not found") from error
    except OSError as error:
        raise InputError(f"{file}: cannot read the config file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not a text file in UTF-8 (byte {error.start})") from error


def _one_line(what: object) -> str:
    return " ".join(str(what).split())


def _check_size(root: yaml.Node) -> None:
    """Refuses, before anything is built, aliases that contain themselves or expand to too many values."""
    sizes: dict[int, int | None] = {}  # None while the node is being counted

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise InputError(f"{_place(node)}: an alias contains itself")
            return known
        sizes[id(node)] = None
        total = 1 + sum(size(child) for child in _children(node))
        if total > MAX_VALUES:
            raise InputError(
                f"{_place(node)}: expands to more than {MAX_VALUES} values; too large for a config"
            )
        sizes[id(node)] = total
        return total

    size(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def read_yaml_with_bases(file: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A config file on top of the files that its `_BASE_` names.

    `_BASE_` is a path or a list of paths (later ones win), each relative to the file that names it, absolute,
    or below `~`. Returns the nested values and, for every dotted key, the file that set it last. Raises
    InputError as `read_yaml` does, and for a circle of bases.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    _overlay_file(os.fspath(file), values, origins, above=(), budget=[MAX_BASE_FILES])
    return values, origins


def _overlay_file(
    file: str, values: dict[str, Any], origins: dict[str, str], *, above: tuple[str, ...], budget: list[int]
) -> None:
    """Lays `file` over `values` in place, its bases first; `above` are the files whose bases led here."""
    identity = os.path.realpath(os.path.expanduser(file))
    if identity in above:
        raise InputError(f"{file}: {BASE_KEY} runs in a circle: {' -> '.join([*above, identity])}")
    budget[0] -= 1
    if budget[0] < 0:
        raise InputError(f"{file}: more than {MAX_BASE_FILES} files through {BASE_KEY}")
    own = read_yaml(file)
    bases = own.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list | tuple) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{file}: {BASE_KEY} is {bases!r}; it takes a path or a list of paths")
    for base in bases:
        path = os.path.normpath(os.path.join(os.path.dirname(file), os.path.expanduser(base)))
        _overlay_file(path, values, origins, above=(*above, identity), budget=budget)
    _overlay(own, values, origins, file=file, prefix="")


def _overlay(
    upper: dict[str, Any], lower: dict[str, Any], origins: dict[str, str], *, file: str, prefix: str
) -> None:
    """Lays the nested values of `upper` over those of `lower` in place."""
    for name, value in upper.items():
        key = f"{prefix}{name}"
        if value is None and isinstance(lower.get(name), dict):
            continue  # a group whose keys are all commented out
        if name in lower and isinstance(value, dict) != isinstance(lower[name], dict):
            kinds = ("a group of keys", "a value")
            here, there = kinds if isinstance(value, dict) else kinds[::-1]
            raise InputError(f"{file}: {key}: {here} here, but {there} in {origins[key]}")
        origins[key] = file
        if isinstance(value, dict):
            _overlay(value, lower.setdefault(name, {}), origins, file=file, prefix=f"{key}.")
        else:
            lower[name] = value
