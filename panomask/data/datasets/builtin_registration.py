"""How a built-in data set is registered: its name alone, its files being looked for when it is used."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog, data_root
from panomask.errors import InputError

Root = str | Path | None
"""The folder that takes the place of `data_root()`; None stands for `data_root()` at lookup time."""

Needs = Sequence[tuple[str, ...]]
"""Paths below the root that must exist: one of each tuple."""

Loader = Callable[[str, Metadata], list[dict[str, Any]]]
"""Loads a data set from its name and metadata."""


def register_builtin(
    name: str,
    load: Loader,
    root: Root,
    *,
    paths: dict[str, str],
    download: str,
    metadata: dict[str, Any],
    needs: Sequence[str | tuple[str, ...]] = (),
    optional: Collection[str] = (),
) -> None:
    """Register one set.

    Args:
        paths: metadata field -> path below the root.
        download: where its files come from, for the message that they are missing.
        needs: paths below the root that must exist; by default those of `paths`. Of a tuple one must, and a
            message names its last.
        optional: fields of `paths` that are None as long as there is no such path.
    """
    chosen = tuple(needs) or tuple(paths.values())
    required = tuple((need,) if isinstance(need, str) else need for need in chosen)
    DatasetCatalog.register(name, partial(_load, name, load, root, required, download))
    MetadataCatalog.provide(name, partial(_resolve, root, paths, optional))
    MetadataCatalog.get(name).set(**metadata)


def _resolve(root: Root, paths: dict[str, str], optional: Collection[str]) -> dict[str, str | None]:
    base = _base(root)
    return {
        field: None if field in optional and not (base / path).exists() else str(base / path)
        for field, path in paths.items()
    }


def _base(root: Root) -> Path:
    return data_root() if root is None else Path(root)


def _load(name: str, load: Loader, root: Root, needs: Needs, download: str) -> list[dict[str, Any]]:
    """Load a set once all its files are found."""
    _find_files(name, root, needs, download)
    return load(name, MetadataCatalog.get(name))


def check_files(name: str) -> None:
    """Raise InputError if `name` is a built-in set whose files are missing; none is read."""
    func = DatasetCatalog.data.get(name)
    if isinstance(func, partial) and func.func is _load:
        _, _, root, needs, download = func.args
        _find_files(name, root, needs, download)


def _find_files(name: str, root: Root, needs: Needs, download: str) -> None:
    """InputError that says what to put where unless all is there."""
    base = _base(root)
    required = [str(base / paths[-1]) for paths in needs]
    missing = [str(base / paths[-1]) for paths in needs if not any((base / path).exists() for path in paths)]
    if missing:
        top = " and ".join(dict.fromkeys(f"{path.partition('/')[0]}/" for *_, path in needs))
        whole = "" if missing == required else f"; the set needs {_listed(required)}"
        raise InputError(
            f"{name}: {_listed(missing)} not found{whole}. They come from {download}; put them there, or"
            f" point PANOMASK_DATASETS to the folder that holds {top}"
        )


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:-1]) + (" and " if len(paths) > 1 else "") + paths[-1]
