"""Sweeps: a base config, axes of named choices, seeds, and the runs that come of them."""

import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from panomask.config.safe_yaml import read_yaml
from panomask.engine.project import PROJECTS_FOLDER, project_folder_of
from panomask.errors import InputError, nearest_names
from panomask.json_file import read_json, write_json

logger = logging.getLogger(__name__)

SWEEP_FILE, RUNS_FOLDER = "sweep.json", "runs"
"""In a sweep's folder: the sweep as it was run, from which tables are made, and the folders of its runs."""

_OF_THE_RUN = {
    "OUTPUT_DIR": "the sweep gives each run a folder of its own; say where by --output",
    "SEED": "the sweep gives each run its seed; say which by seeds in the file, or --seeds",
}
"""Keys that no override may set, and what does."""

_LONGEST_NAME = 100
"""Characters of a choice; folders are named after choices."""


@dataclass(frozen=True)
class Choice:
    """A named point on an axis: what it sets.

    Args:
        overrides: KEY -> VALUE, as text for a command line.
        base: the config that takes the place of the sweep's; "" for the sweep's.
    """

    name: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True)
class Axis:
    """What is varied, and its choices."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Variant:
    """One choice on each axis; a row of the table. `folder` is its name among files."""

    choices: tuple[str, ...]
    overrides: Mapping[str, str]
    base: str
    folder: str

    def place(self, seed: int) -> Path:
        """Where the run of a seed lies, from the sweep's folder."""
        return Path(RUNS_FOLDER, self.folder, f"seed_{seed}")


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Args:
        title, notes: for the reader of the tables.
        base: config file of the runs.
        axes: their choices are combined, each with each.
        baseline: the name of one choice on each axis.
        seeds: SEED of the runs of each variant.
        metrics: columns of the table, such as "segm/AP"; none: the AP (or PQ, mIoU) of each task.
        overrides: KEY -> VALUE of all runs.
        project: folder of the project whose code the runs need; "" for none, or that of the base config.
        file: the sweep file.
        command: the command line that ran it last.
    """

    title: str
    base: str
    axes: tuple[Axis, ...]
    baseline: tuple[str, ...]
    seeds: tuple[int, ...]
    notes: str = ""
    metrics: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    file: str = ""
    command: str = ""

    def variants(self) -> list[Variant]:
        """Every combination of choices, the last axis varying first.

        Raises:
            InputError: two axes set one key, or two variants would have one folder.
        """
        variants = [self._variant(choices) for choices in itertools.product(*(a.choices for a in self.axes))]
        by_folder: dict[str, Variant] = {}
        for variant in variants:
            other = by_folder.setdefault(variant.folder, variant)
            if other is not variant:
                raise InputError(
                    f"the variants {', '.join(other.choices)!r} and {', '.join(variant.choices)!r} would"
                    f" have one folder, {variant.folder}; name their choices by other letters or digits"
                )
        return variants

    def _variant(self, choices: Sequence[Choice]) -> Variant:
        overrides = {**self.overrides}
        bases = [choice.base for choice in choices if choice.base]
        set_by: dict[str, str] = {}
        for axis, choice in zip(self.axes, choices, strict=True):
            for key, value in choice.overrides.items():
                if key in set_by:
                    raise InputError(f"the axes {set_by[key]} and {axis.name} both set {key}; one axis must")
                set_by[key] = axis.name
                overrides[key] = value
        if len(bases) > 1:
            raise InputError(f"two axes name a base config: {bases[0]} and {bases[1]}; one axis may")
        names = tuple(choice.name for choice in choices)
        base = bases[0] if bases else self.base
        if self.project and project_folder_of(base) is None:
            overrides = {"PROJECT": self.project, **overrides}
        return Variant(names, overrides, base, "__".join(map(_slug, names)))


def read_sweep(file: Path) -> Sweep:
    """The sweep of a YAML file. Paths in it are relative to it.

    Raises:
        InputError: an entry that is missing, unknown or of a wrong kind, by its name.
    """
    entries = read_yaml(file, names_as_written=True)
    _refuse_unknown(
        file, entries, ("title", "notes", "base", "axes", "baseline", "seeds", "metrics", "overrides")
    )
    for entry in ("base", "axes"):
        if not entries.get(entry):
            raise InputError(f"{file}: {entry} is missing; a sweep needs a base config and axes")
    axes = tuple(
        _axis(file, name, choices) for name, choices in _mapping(file, "axes", entries["axes"]).items()
    )
    project = project_folder_of(file)
    for entry in ("title", "notes"):
        if not isinstance(entries.get(entry, ""), str):
            raise InputError(f"{file}: {entry} is {entries[entry]!r}; it takes text")
    sweep = Sweep(
        title=entries.get("title") or file.stem,
        notes=" ".join(entries.get("notes", "").split()),
        base=_path(file, entries["base"]),
        axes=axes,
        baseline=_baseline(file, axes, entries.get("baseline")),
        seeds=check_seeds(_list(file, "seeds", entries.get("seeds", [1])), f"{file}: seeds"),
        metrics=_metrics(file, entries.get("metrics", [])),
        overrides=_texts(file, "overrides", _pairs(file, "overrides", entries.get("overrides") or {})),
        project="" if project is None else _short_project(project),
        file=_short(file),
    )
    sweep.variants()
    return sweep


def check_seeds(seeds: Sequence[Any], origin: str) -> tuple[int, ...]:
    """`seeds`, if they are whole numbers from 0 to 2^31 - 1, one or more, none twice; else InputError."""
    are_seeds = all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    if not seeds or not are_seeds or len({*seeds}) < len(seeds):
        raise InputError(
            f"{origin} are {list(seeds)!r}; they are whole numbers from 0 to {2**31 - 1}, each once"
        )
    return tuple(seeds)


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write `folder/sweep.json`, from which `load_sweep` makes an equal sweep.

    Raises:
        InputError: the folder is that of another sweep file.
    """
    if (folder / SWEEP_FILE).is_file():
        _compare(load_sweep(folder), sweep, folder)
    write_json(folder / SWEEP_FILE, asdict(sweep))


def _compare(before: Sweep, now: Sweep, folder: Path) -> None:
    """Refuse a folder of another sweep; say what a changed one leaves out of the table."""
    if before.file != now.file and before.axes != now.axes:
        raise InputError(
            f"{folder}: holds the sweep of {before.file}; give {now.file} another folder by --output"
        )
    runs = [{str(v.place(seed)) for v in sweep.variants() for seed in sweep.seeds} for sweep in (before, now)]
    lost = sorted(runs[0] - runs[1])
    if lost:
        logger.warning(
            f"{folder}: runs that are no longer part of the sweep stay where they are, but not in the table:"
            f" {', '.join(lost[:5])}{' and others' if len(lost) > 5 else ''}"
        )


def load_sweep(folder: Path) -> Sweep:
    """What `write_sweep` wrote. Raises InputError if the folder holds no sweep, or a broken one."""
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that a sweep was run in")
    content = read_json(path)
    try:
        axes = tuple(
            Axis(axis["name"], tuple(Choice(**choice) for choice in axis["choices"]))
            for axis in content.pop("axes")
        )
        content |= {name: tuple(content[name]) for name in ("baseline", "seeds", "metrics")}
        return Sweep(axes=axes, **content)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not written by a sweep ({error}); run the sweep again") from error


def with_overrides(sweep: Sweep, words: Sequence[str]) -> Sweep:
    """The sweep with KEY VALUE pairs of a command line for all its runs, over those of its file.

    Raises:
        InputError: half a pair, a key that the sweep itself sets, or one that no run would take from here.
    """
    if len(words) % 2:
        raise InputError(
            f"overrides come in pairs, KEY VALUE KEY VALUE; {len(words)} words given: {' '.join(words)}"
        )
    pairs = dict(zip(words[0::2], words[1::2], strict=True))
    for key in pairs:
        if key in _OF_THE_RUN:
            raise InputError(f"{key}: {_OF_THE_RUN[key]}")
        for axis in sweep.axes:
            if all(key in choice.overrides for choice in axis.choices):
                raise InputError(
                    f"{key}: every choice of the axis {axis.name} sets it; change it in the sweep file"
                )
    return replace(sweep, overrides={**sweep.overrides, **pairs})


def _axis(file: Path, name: str, choices: Any) -> Axis:
    found: list[Choice] = []
    for choice, sets in _mapping(file, f"axes.{name}", choices).items():
        where = f"axes.{name}.{choice}"
        sets = _pairs(file, where, {} if sets is None else sets)
        base = sets.pop("base", "")
        if len(choice) > _LONGEST_NAME:
            raise InputError(
                f"{file}: {where}: a folder is named after it; {_LONGEST_NAME} characters at most"
            )
        made = Choice(choice, _texts(file, where, sets), _path(file, base) if base else "")
        same = next((other for other in found if replace(other, name=choice) == made), None)
        if same is not None:
            raise InputError(f"{file}: {where}: sets what {same.name} sets; take one of them out")
        found.append(made)
    return Axis(name, tuple(found))


def _baseline(file: Path, axes: Sequence[Axis], baseline: Any) -> tuple[str, ...]:
    stated = {} if baseline is None else _mapping(file, "baseline", baseline, may_be_empty=True)
    _refuse_unknown(file, stated, [axis.name for axis in axes], "baseline.")
    found = []
    for axis in axes:
        names = [choice.name for choice in axis.choices]
        name = str(stated.get(axis.name, names[0]))
        if name not in names:
            raise InputError(f"{file}: baseline.{axis.name} is {name!r}; its choices are {', '.join(names)}")
        found.append(name)
    return tuple(found)


def _pairs(file: Path, where: str, values: Any) -> dict[str, Any]:
    """KEY -> VALUE, from a mapping or one list KEY, VALUE, ..."""
    if isinstance(values, list):
        if len(values) % 2:
            raise InputError(f"{file}: {where}: a list holds pairs KEY, VALUE; it has {len(values)} items")
        values = dict(zip(map(str, values[0::2]), values[1::2], strict=True))
    return dict(_mapping(file, where, values, may_be_empty=True))


def _texts(file: Path, where: str, values: Mapping[str, Any]) -> dict[str, str]:
    """KEY -> VALUE as text for the command line."""
    for key in values:
        if key in _OF_THE_RUN:
            raise InputError(f"{file}: {where}.{key}: {_OF_THE_RUN[key]}")
    return {key: _text(value) for key, value in values.items()}


def _text(value: Any) -> str:
    """A value as a word of a command line; numbers without an exponent, which may look like an option."""
    if isinstance(value, float) and math.isfinite(value):
        return format(Decimal(repr(value)), "f")
    return value if isinstance(value, str) else repr(value)


def _metrics(file: Path, value: Any) -> tuple[str, ...]:
    names = _list(file, "metrics", value)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: metrics is {value!r}; it takes names, such as [segm/AP, bbox/AP75]")
    return tuple(dict.fromkeys(names))


def _mapping(file: Path, where: str, value: Any, *, may_be_empty: bool = False) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or (not value and not may_be_empty):
        raise InputError(f"{file}: {where} is {value!r}; it takes a mapping, NAME: VALUE")
    return value


def _list(file: Path, where: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{file}: {where} is {value!r}; it takes a list, [FIRST, SECOND]")
    return value


def _refuse_unknown(file: Path, entries: Mapping[str, Any], known: Sequence[str], prefix: str = "") -> None:
    for entry in entries:
        if str(entry) not in known:
            near = ", ".join(nearest_names(str(entry), known) or known)
            raise InputError(f"{file}: unknown entry {prefix}{entry}; nearest known: {near}")


def _path(file: Path, value: Any) -> str:
    """A path of the file's, as one from here that does not name the machine where that can be."""
    path = file.parent / str(value)
    if not path.is_file():
        raise InputError(
            f"{file}: base config {value}: no such file ({path}); paths are relative to the sweep"
        )
    return _short(path)


def _short(path: Path) -> str:
    """The path from the working directory, if it is below."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _short_project(folder: Path) -> str:
    """The name of a project of ours, and the path of another, with a slash in it."""
    if folder.parent == PROJECTS_FOLDER.resolve():
        return folder.name
    path = _short(folder)
    return path if "/" in path else f"./{path}"


def _slug(name: str) -> str:
    """A name as part of a folder's: letters, digits, dots, and `_` between."""
    return re.sub(r"[^\w.]+", "_", name).strip("_").strip(".") or "_"
