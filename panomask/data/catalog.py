"""Data sets by name: `DatasetCatalog` holds how to load them, `MetadataCatalog` what is known about them.

A configuration names data sets (`DATASETS.TRAIN: ("coco_2017_train",)`); importing `panomask.data` registers
the built-in names, everything else is registered by the user before it is used.
"""

import builtins
import os
import types
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from panomask.errors import InputError, nearest_names

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog", "data_root", "things_label"]


def data_root() -> Path:
    """The folder below which the built-in data sets lie, read from the environment at every call.

    `$PANOMASK_DATASETS`, else `$DETECTRON2_DATASETS`, else `datasets` in the current folder.
    """
    root = os.environ.get("PANOMASK_DATASETS") or os.environ.get("DETECTRON2_DATASETS") or "datasets"
    return Path(root).expanduser()


class _DatasetCatalog(UserDict):
    """Name -> function without arguments that returns the data set as `list[dict]`.

    The dicts are in the standard format: `file_name, height, width, image_id, annotations, ...`. A function
    must give the same data, in the same order, at every call.
    """

    def register(self, name: str, func: Callable[[], builtins.list[dict]]) -> None:
        """Add `name`; InputError when it is taken (`DatasetCatalog.remove` frees it)."""
        if not callable(func):
            raise TypeError(
                f"Data set {name!r} must be registered with a function, got {type(func).__name__}"
            )
        if name in self.data:
            raise InputError(
                f"Data set {name!r} is registered already; choose another name, or call"
                f" DatasetCatalog.remove({name!r}) and MetadataCatalog.remove({name!r}) first"
            )
        self.data[name] = func

    def get(self, name: str) -> builtins.list[dict]:  # type: ignore[override]
        """Load the data set `name`; InputError for an unknown name, with the nearest known ones."""
        if name not in self.data:
            near = nearest_names(name, self.data)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InputError(
                f"Data set {name!r} is not registered.{hint} Known: {', '.join(self.list()) or 'none'}."
                " A set of your own is registered by DATASETS.REGISTER.<name>.ANNOTATIONS and .IMAGES"
                " (panoptic data: and .PANOPTIC_ROOT; label images: .SEM_SEG_ROOT, .STUFF_CLASSES and"
                " .IMAGES; see datasets/README.md), or in Python by register_coco_instances or"
                " register_panoptic."
            )
        return self.data[name]()

    def list(self) -> builtins.list[str]:
        """All registered names, sorted."""
        return sorted(self.data)

    def remove(self, name: str) -> None:
        """Forget `name`; KeyError when it is unknown. `pop` does the same and returns the function."""
        self.data.pop(name)

    def __str__(self) -> str:
        return f"DatasetCatalog(registered data sets: {', '.join(self.list())})"

    __repr__ = __str__


class Metadata(types.SimpleNamespace):
    """What is known about one data set, as attributes: `thing_classes`, `json_file`, `evaluator_type`, ...

    An attribute is set once; setting it again to the same value is fine, to another one an InputError. So two
    parts of a program cannot silently disagree about the classes of a data set. Colours (`*_colors`) may be
    changed: nothing but drawing depends on them.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        known = ", ".join(sorted(self.__dict__)) or "nothing"
        raise AttributeError(f"Metadata of data set {self.name!r} has no {key!r}; it has: {known}")

    def __setattr__(self, key: str, value: Any) -> None:
        old = self.__dict__.get(key, value)
        if old is not value and not key.endswith("_colors") and not _equal(old, value):
            raise InputError(
                f"Metadata {key!r} of data set {self.name!r} is {_brief(old)} already and cannot become"
                f" {_brief(value)}; use another data set name, or MetadataCatalog.remove({self.name!r}) first"
            )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy of all fields; changing it changes nothing here."""
        return dict(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several fields and return `self`, so that calls can be chained."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The field `key`, or `default` when it has not been set."""
        return self.__dict__.get(key, default)


def _equal(old: Any, new: Any) -> bool:
    """Equality that also holds for arrays, whose `==` is elementwise."""
    if type(old) is not type(new):
        return False
    same = old == new
    return bool(same.all()) if hasattr(same, "all") else bool(same)


def _brief(value: Any, limit: int = 300) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({type(value).__name__})"


class _MetadataCatalog(UserDict):
    """Name -> `Metadata`, created empty at the first `get`; one object a name for the whole process."""

    def __init__(self) -> None:
        super().__init__()
        self._providers: dict[str, Callable[[], dict[str, Any]]] = {}

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """The metadata of `name`. An unknown name gets an empty one, to be filled by the caller."""
        if not name:
            raise InputError("The metadata of a data set without a name was asked for; give a non-empty name")
        metadata = self.data.setdefault(name, Metadata(name=name))
        if name in self._providers:
            metadata.__dict__.update(self._providers[name]())
        return metadata

    def provide(self, name: str, func: Callable[[], dict[str, Any]]) -> None:
        """Let `func` give fields of `name` afresh at every `get`.

        For what depends on the surroundings at lookup time, such as paths below `data_root()`. `remove`
        forgets the function as well.
        """
        self._providers[name] = func

    def list(self) -> builtins.list[str]:
        """All names that have metadata, sorted."""
        return sorted({*self.data, *self._providers})

    def remove(self, name: str) -> None:
        """Forget all that is known about `name`; KeyError when nothing is."""
        if self._providers.pop(name, None) is None:
            self.data.pop(name)
        else:
            self.data.pop(name, None)

    def pop(self, name: str, *default: Any) -> Any:
        """`remove` that returns the metadata (or `default`, when given, for an unknown name)."""
        if name in self._providers:
            self.get(name)
            del self._providers[name]
        return self.data.pop(name, *default)

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self.list())})"

    __repr__ = __str__


def things_label(metadata: Metadata) -> int | None:
    """The semantic label that all things of a data set share; None where each thing class has its own.

    Said by the metadata's `sem_seg_things_label`, or by a first class of `stuff_classes` called "things", as
    in Detectron2's `*_separated` data sets. A data set that says nothing of stuff counts as separated.
    """
    stuff_classes = metadata.get("stuff_classes")
    is_separated = not stuff_classes or stuff_classes[0] == "things"
    return metadata.get("sem_seg_things_label", 0 if is_separated else None)


DatasetCatalog = _DatasetCatalog()
"""The process's data sets."""

MetadataCatalog = _MetadataCatalog()
"""The process's metadata."""
