"""`CfgNode`: the tree of keys that a config file, the command line and code fill.

yacs by way of fvcore, with YAML read as data, values checked before any of them is set, errors of one line
that name file, key and nearest known keys, and a memory of which keys were set (`is_explicit`).
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _CfgNode

from panomask.config.coercion import coerce, like_container, parse_text
from panomask.config.safe_yaml import read_yaml_with_bases
from panomask.errors import InputError, nearest_names

_EXPLICIT = "__explicit__"
_ENTRY_FIELDS = "__entry_fields__"
_Assignment = tuple["CfgNode", str, Any]


class CfgNode(_CfgNode):
    """A node of the config: attributes are keys, values are plain Python or nodes.

    Merging is all or nothing: on an InputError the config is as it was. Merging into a frozen config raises
    AttributeError, as assignment does.
    """

    def __init__(
        self,
        init_dict: dict[str, Any] | None = None,
        key_list: list[str] | None = None,
        new_allowed: bool = False,
    ) -> None:
        super().__init__(init_dict, key_list, new_allowed)
        self.__dict__[_EXPLICIT] = set()

    @classmethod
    def table(cls, *fields: str, **defaults: Any) -> "CfgNode":
        """An empty node to which a merge may add entries of any name, each with exactly these keys.

        `fields` are strings, "" by default; `defaults` are further keys with their own.
        """
        node = cls()
        node.__dict__[_ENTRY_FIELDS] = {**dict.fromkeys(fields, ""), **defaults}
        return node

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self:  # a new key is a default; a known one is being set
            value = like_container(value, self[name])
            super().__setattr__(name, value)
            _remember(self, name)
        else:
            super().__setattr__(name, value)

    def is_explicit(self, key: str) -> bool:
        """Whether `key`, dotted from this node, was merged or assigned rather than left at its default.

        Raises KeyError for a key that does not exist.
        """
        node, (*groups, name) = self, key.split(".")
        for group in groups:
            node = node[group]
        if not isinstance(node, dict) or name not in node:
            raise KeyError(key)
        return name in node.__dict__.get(_EXPLICIT, ())

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The nested values of a file and its bases. `allow_unsafe` changes nothing."""
        return read_yaml_with_bases(filename)[0]

    def merge_from_file(self, cfg_filename: str | os.PathLike[str], allow_unsafe: bool = True) -> None:
        """Sets what a YAML file and the files of its `_BASE_` say.

        `allow_unsafe` is part of Detectron2's signature and changes nothing: no file can run code. Raises
        InputError for what `read_yaml_with_bases` refuses, unknown keys, values of a wrong type, and configs
        of VERSION 1.
        """
        values, origins = read_yaml_with_bases(cfg_filename)
        version = values.get("VERSION")
        if version is not None and version != self.get("VERSION", version):
            raise InputError(
                f"{origins['VERSION']}: VERSION is {version!r}; this program reads VERSION {self['VERSION']}:"
                " bring the file's keys up to date and set VERSION accordingly"
            )
        self._merge(values, origin=origins.__getitem__)

    def merge_from_other_cfg(self, cfg_other: dict[str, Any]) -> None:
        """Sets what another node (or nested dict) holds; all of its keys must exist here."""
        self._merge(copy.deepcopy(dict(cfg_other)), origin=lambda key: "merged config")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Sets `[KEY, VALUE, KEY, VALUE, ...]`; a string value that is a Python literal is read as one.

        Raises InputError for an odd number of items, unknown keys and values of a wrong type.
        """
        if len(cfg_list) % 2:
            raise InputError(
                f"overrides come in pairs, KEY VALUE KEY VALUE; {len(cfg_list)} words given:"
                f" {' '.join(map(str, cfg_list))}"
            )
        values: dict[str, Any] = {}
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            *groups, name = str(key).split(".")
            node = values
            for group in groups:
                node = node.setdefault(group, {})
                if not isinstance(node, dict):
                    raise InputError(f"override {key}: {group} was given a value before")
            node[name] = value
        self._merge(values, origin=lambda key: "override", is_command_line=True)

    def _merge(
        self, values: dict[str, Any], *, origin: Callable[[str], str], is_command_line: bool = False
    ) -> None:
        if self.is_frozen():
            raise AttributeError("attempted to merge into a frozen config; clone or defrost it first")
        plan = list(_Merge(self, origin, is_command_line).assignments(self, values, prefix=""))
        for node, name, value in plan:
            node[name] = value
            if not isinstance(value, CfgNode):
                _remember(node, name)

    def dump(self, stream: Any = None, **kwargs: Any) -> Any:
        """The config as YAML, as a string or into `stream`; loading it gives an equal config.

        Keyword arguments go to `yaml.dump`.
        """
        return yaml.dump(_as_dict(self), stream, Dumper=_Dumper, **kwargs)


class _Merge:
    """Turns nested values into checked assignments, so that nothing is set when anything is wrong."""

    def __init__(self, root: CfgNode, origin: Callable[[str], str], is_command_line: bool) -> None:
        self.root = root
        self.origin = origin  # dotted key -> file or other source, for messages
        self.is_command_line = is_command_line

    def assignments(self, node: CfgNode, values: dict[str, Any], *, prefix: str) -> Iterator[_Assignment]:
        for name, value in values.items():
            key = f"{prefix}{name}"
            if isinstance(name, str) and name in node:
                yield from self.known(node, name, value, key=key)
            else:
                yield from self.unknown(node, name, value, key=key)

    def known(self, node: CfgNode, name: str, value: Any, *, key: str) -> Iterator[_Assignment]:
        current = node[name]
        if isinstance(current, _CfgNode):
            yield from self.assignments(current, self.group(value, key=key), prefix=f"{key}.")
            return
        try:
            yield node, name, coerce(value, current, is_command_line=self.is_command_line)
        except TypeError as error:
            raise InputError(f"{self.origin(key)}: {key} {error}") from error

    def unknown(self, node: CfgNode, name: Any, value: Any, *, key: str) -> Iterator[_Assignment]:
        if not isinstance(name, str):
            raise InputError(f"{self.origin(key)}: key {key} is a {type(name).__name__}; keys are words")
        fields = node.__dict__.get(_ENTRY_FIELDS)
        if fields is not None:
            entry = CfgNode(copy.deepcopy(fields))
            yield node, name, entry
            yield from self.assignments(entry, self.group(value, key=key), prefix=f"{key}.")
        elif node.is_new_allowed():
            value = parse_text(value) if isinstance(value, str) else value
            yield node, name, CfgNode(value, new_allowed=True) if isinstance(value, dict) else value
        elif self.root.key_is_renamed(key):
            try:
                self.root.raise_key_rename_error(key)
            except KeyError as error:
                raise InputError(f"{self.origin(key)}: {error.args[0]}") from error
        elif not self.root.key_is_deprecated(key):
            leaves = [leaf for leaf, _ in flatten(value, f"{key}.")] if isinstance(value, dict) else []
            hint = self.suggestion(node, name, key=key, meant=[*leaves, key][0])
            raise InputError(f"{self.origin(key)}: unknown key {key}; {hint}")

    def group(self, value: Any, *, key: str) -> dict[str, Any]:
        """The values for a group of keys: a mapping, or nothing (all of its keys commented out)."""
        value = parse_text(value) if isinstance(value, str) else value
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InputError(
                f"{self.origin(key)}: {key} is a group of keys and cannot take the value {value!r}"
            )
        return value

    def suggestion(self, node: CfgNode, name: str, *, key: str, meant: str) -> str:
        """What may stand in place of `key`, which is unknown, or of `meant`, the first key below it."""
        prefix = key.removesuffix(name)
        known = [dotted for dotted, _ in flatten(self.root)]
        is_new_entry = not any(dotted.startswith(prefix) for dotted in known)
        if node is not self.root and (len(node) <= 4 or is_new_entry):
            return f"allowed here: {', '.join(prefix + known for known in sorted(node))}"
        known += [group for group, value in self.root.items() if isinstance(value, dict)]
        same_name = [dotted for dotted in known if dotted.split(".")[-1] == meant.split(".")[-1]]
        near = list(
            dict.fromkeys((nearest_names(meant, same_name) or same_name) + nearest_names(meant, known))
        )
        return f"nearest known: {', '.join(near[:3]) if near else 'none'}"


def _remember(node: _CfgNode, name: str) -> None:
    node.__dict__.setdefault(_EXPLICIT, set()).add(name)


def flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf below `node` as (dotted key, value)."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice out twice, not as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_dict(node: dict[str, Any]) -> dict[str, Any]:
    return {name: _as_dict(value) if isinstance(value, dict) else value for name, value in node.items()}
