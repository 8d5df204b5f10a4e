"""Projects: research code that adds itself to a run without touching the core.

A project is a folder with a `project.py`, which registers names when it is imported and may add keys by a
function `add_config(cfg)`. A run belongs to the project whose folder holds its config.
"""

import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from panomask.config import CfgNode, get_cfg
from panomask.config.zoo import CONFIG_FOLDER
from panomask.errors import InputError, nearest_names

PROJECTS_FOLDER = CONFIG_FOLDER.parent / "projects"
"""The projects that a config may name by the key PROJECT."""

_FILE = "project.py"


def load_config(config_file: str | os.PathLike[str], overrides: Sequence[str] = ()) -> CfgNode:
    """The config of a command line: defaults, the project's keys, a file, KEY VALUE overrides.

    The project is that whose folder holds the file; or the one that the file's key PROJECT names, as the
    config.yaml of a run does; or the folder (or name) that the override PROJECT gives. Its code runs here.

    Args:
        config_file: YAML.
        overrides: KEY, VALUE, KEY, VALUE, ...

    Raises:
        InputError: a file that cannot be read or merged, or a project that is not there.
    """
    folder = find_project(config_file, overrides)
    cfg = get_cfg()
    if folder is not None:
        add_project(cfg, folder)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(overrides)
    if folder is not None:
        cfg.PROJECT = folder.name
    return cfg


def project_folder_of(file: str | os.PathLike[str]) -> Path | None:
    """The project that holds a file: the nearest folder above it with a project.py, or None."""
    return next((folder for folder in Path(file).resolve().parents if (folder / _FILE).is_file()), None)


def add_project(cfg: CfgNode, folder: Path) -> None:
    """Import a project's code and add its keys to `cfg`.

    It is imported as `NAME.project` of the folder's name, so that `from .other_file import ...` works in it
    and its classes have one name in all processes.

    Raises:
        InputError: no project.py, or a name that Python has given away.
    """
    name = folder.name
    if not (folder / _FILE).is_file():
        raise InputError(f"{folder}: not a project: it has no {_FILE}; give the folder of one")
    if not name.isidentifier():
        raise InputError(
            f"{folder}: a project's code is imported by its folder's name; rename {name!r} to a word"
        )
    parent = str(folder.resolve().parent)
    if parent not in sys.path:
        sys.path.append(parent)  # last, so that no folder of it hides an installed package
        importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # of a module without a spec, such as __main__
        spec = None
    places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
    module = importlib.import_module(f"{name}.project") if folder.resolve() in places else None
    if module is None or Path(module.__file__ or "").resolve() != (folder / _FILE).resolve():
        found = getattr(module, "__file__", None) or (spec.origin if spec else None)
        raise InputError(f"{folder}: Python finds another package of that name ({found}); rename the folder")
    add_config = getattr(module, "add_config", None)
    if add_config is None:
        return
    try:
        inspect.signature(add_config).bind(cfg)
    except TypeError as error:
        raise InputError(
            f"{folder / _FILE}: add_config takes the config alone: def add_config(cfg)"
        ) from error
    add_config(cfg)


def find_project(config_file: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Path | None:
    """The folder of the project that a config and its KEY VALUE overrides belong to; None if there is none.

    Raises:
        InputError: a name or folder that is no project, or two projects.
    """
    by_place = project_folder_of(config_file)
    given = [value for key, value in zip(overrides[0::2], overrides[1::2], strict=False) if key == "PROJECT"]
    named = str(CfgNode.load_yaml_with_base(str(config_file)).get("PROJECT") or "")
    if given and given[-1]:
        is_path = Path(given[-1]).name != given[-1]
        folder = Path(given[-1]) if is_path else _by_name(given[-1], "override PROJECT")
    elif named and (by_place is None or by_place.name != named):
        folder = _by_name(named, f"{config_file}: PROJECT")
    else:
        return by_place
    if by_place is not None and folder.resolve() != by_place:
        raise InputError(
            f"{config_file} belongs to the project {by_place}; PROJECT cannot be {folder} as well"
        )
    return folder.resolve()


def _by_name(name: str, origin: str) -> Path:
    known = sorted(path.parent.name for path in PROJECTS_FOLDER.glob(f"*/{_FILE}"))
    # A name alone: a file that somebody sent must not choose which code of this machine runs.
    if name not in known:
        near = ", ".join(nearest_names(name, known) or known) or "none"
        raise InputError(
            f"{origin} is {name!r}, which is no project with code in {PROJECTS_FOLDER} (nearest: {near});"
            " give the folder of another on the command line, with a slash: PROJECT path/to/NAME"
        )
    return PROJECTS_FOLDER / name
