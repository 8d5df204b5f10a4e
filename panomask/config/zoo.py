"""Where the files of `configs/` are: beside the package in a checkout, inside it when it is installed."""

import os
from pathlib import Path

from panomask.errors import InputError, nearest_names

_PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDER = next(
    (
        folder
        for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs")
        if (folder / "zoo_scores.tsv").is_file()
    ),
    _PACKAGE / "configs",
)
"""The folder of the zoo's configs."""


def zoo_configs() -> list[str]:
    """Names of all the zoo's configs, such as "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", sorted.

    Bases and what lies beside the zoo (quickstart/) are not among them.
    """
    names = (path.relative_to(CONFIG_FOLDER).as_posix() for path in CONFIG_FOLDER.glob("*/*.yaml"))
    return sorted(
        name
        for name in names
        if not name.startswith("quickstart/") and not Path(name).name.startswith("Base-")
    )


def refuse_python_config(file: str | os.PathLike[str]) -> None:
    """Raises InputError if `file` is a LazyConfig (.py), naming the YAML file of ours that does the same."""
    path = Path(file)
    if path.suffix != ".py":
        return
    name = "/".join(path.with_suffix(".yaml").parts[-2:])
    known = zoo_configs()
    if name in known:
        remedy = f"use {CONFIG_FOLDER / name} in its place"
    else:
        near = ", ".join(nearest_names(name, known)) or "none"
        remedy = f"write what it sets as a YAML file on top of one of {CONFIG_FOLDER} (nearest: {near})"
    raise InputError(
        f"{file}: a Python config (LazyConfig) is a program, and configs are never run; {remedy}"
    )
