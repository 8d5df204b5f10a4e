"""Panoptic annotations for evaluation: a COCO panoptic JSON file, or dataset dicts, in a few compact arrays.

A file of 118,000 images takes some 50 MB this way; as parsed JSON it would take gigabytes.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from panomask.errors import InputError, nearest_names
from panomask.evaluation.panoptic_quality import Segments
from panomask.json_file import read_json
from panomask.panoptic_png import MAX_SEGMENT_ID
from panomask.structures.panoptic_record import stated_size

logger = logging.getLogger(__name__)

_MOST_NAMED = 12


class PanopticClasses:
    """The categories of a data set, in order of their ids: class k of all counts is the k-th.

    Attributes:
        ids: K category ids of the data set.
        names: K names; a name that two categories share is followed by the id.
        is_thing: (K,) bool.
    """

    def __init__(self, categories: Mapping[int, tuple[str, bool]]) -> None:
        """`categories`: id -> (name, whether it is a thing)."""
        self.ids = tuple(sorted(categories))
        times = Counter(name for name, _ in categories.values())
        self.names = [
            name if times[name] == 1 else f"{name} ({id_})" for id_, (name, _) in sorted(categories.items())
        ]
        self.is_thing = np.array([categories[id_][1] for id_ in self.ids], dtype=bool)
        self._class_of = {id_: k for k, id_ in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def class_of(self, category_id: Any) -> int:
        """0..K-1; InputError for an id that is no category's."""
        is_number = isinstance(category_id, int | np.integer) and not isinstance(category_id, bool)
        k = self._class_of.get(int(category_id)) if is_number else None
        if k is None:
            more = f" and {len(self) - _MOST_NAMED} more" if len(self) > _MOST_NAMED else ""
            raise InputError(
                f"category_id {category_id!r} is no category of the data set; it has"
                f" {', '.join(map(str, self.ids[:_MOST_NAMED]))}{more}"
            )
        return k

    @classmethod
    def of_file(cls, source: str, content: Any) -> "PanopticClasses":
        """Of the "categories" of a panoptic file's content."""
        categories: dict[int, tuple[str, bool]] = {}
        for number, category in enumerate(_list(content, "categories", source), start=1):
            where = f"{source}: category {number}"
            _require(category, ("id", "name", "isthing"), where)
            if not isinstance(category["id"], int) or category["isthing"] not in (0, 1):
                raise InputError(
                    f"{where}: id {category['id']!r}, isthing {category['isthing']!r}; an integer, and 0 or"
                    " 1, are needed"
                )
            name = str(category["name"]).encode("utf-8", "replace").decode()  # JSON may hold half a character
            stated = (name, bool(category["isthing"]))
            known = categories.setdefault(category["id"], stated)
            if known != stated:
                raise InputError(
                    f"{where}: id {category['id']} is {_described(known)} and {_described(stated)}; a"
                    " category needs an id of its own, and is either thing or stuff"
                )
        return cls(categories)

    @classmethod
    def of_metadata(cls, metadata: Any) -> "PanopticClasses":
        """Of the metadata of a registered data set: its class names and maps from dataset ids."""
        categories: dict[int, tuple[str, bool]] = {}
        for kind in ("stuff", "thing"):
            names = metadata.get(f"{kind}_classes", ())
            for id_, k in metadata.get(f"{kind}_dataset_id_to_contiguous_id", {}).items():
                if not (kind == "stuff" and k == metadata.get("sem_seg_things_label")):
                    categories[id_] = (names[k], kind == "thing")
        return cls(categories)


def _described(category: tuple[str, bool]) -> str:
    return f"{'the thing' if category[1] else 'the stuff'} {category[0]!r}"


class PanopticAnnotations:
    """What is listed for each of N images: a PNG file and its segments.

    Attributes:
        source: file or data set that the annotations are of, for messages.
        classes: the categories.
        image_ids: N image ids, as they came.
        file_names: N paths of PNG files.
        sizes: N (height, width), None where unknown.
        unlisted_is_void: whether segments may have been dropped, so that pixels of unknown ids are void.
    """

    def __init__(self, source: str, classes: PanopticClasses, *, unlisted_is_void: bool = False) -> None:
        self.source, self.classes, self.unlisted_is_void = source, classes, unlisted_is_void
        self.image_ids: list[Any] = []
        self.file_names: list[str] = []
        self.sizes: list[tuple[int, int] | None] = []
        self._index: dict[str, int] = {}
        self._segments: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.image_ids)

    def add(
        self, image_id: Any, file_name: str, size: tuple[int, int] | None, segments: Sequence[Any]
    ) -> None:
        """Append an image; `segments` are dicts with `id`, `category_id` (the data set's), perhaps `iscrowd`.

        Raises:
            InputError: the image came before, or a segment is not as it should be.
        """
        where = f"{self.source}: image {image_id!r}"
        if self._index.setdefault(str(image_id), len(self)) != len(self):
            raise InputError(f"{where} has two annotations; merge their segments into one")
        rows = np.array([self._row(segment, where) for segment in segments], np.int32).reshape(-1, 3)
        ids, counts = np.unique(rows[:, 0], return_counts=True)
        if len(ids) < len(rows):
            raise InputError(f"{where}: two segments have the id {ids[counts > 1][0]}; ids must be unique")
        self._segments.append(rows)
        self.image_ids.append(image_id)
        self.file_names.append(file_name)
        self.sizes.append(size)

    def _row(self, segment: Any, where: str) -> tuple[int, int, bool]:
        _require(segment, ("id", "category_id"), f"{where}: a segment")
        id_ = segment["id"]
        if isinstance(id_, bool) or not isinstance(id_, int | np.integer) or not 1 <= id_ <= MAX_SEGMENT_ID:
            raise InputError(
                f"{where}: segment id {id_!r}; an integer from 1 to {MAX_SEGMENT_ID} is needed (0 is void)"
            )
        is_crowd = segment.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise InputError(f"{where}: segment {id_}: iscrowd is {is_crowd!r:.80}; allowed are 0 and 1")
        try:
            return int(id_), self.classes.class_of(segment["category_id"]), is_crowd == 1
        except InputError as error:
            raise InputError(f"{where}: segment {id_}: {error}") from None

    def position(self, image_id: Any) -> int | None:
        """Which of the N images has this id (139 and "139" are the same); None if none has."""
        return self._index.get(str(image_id))

    def segments(self, position: int) -> Segments:
        """The segments listed for an image."""
        ids, classes, is_crowd = self._segments[position].T
        return Segments(ids, classes, is_crowd == 1)

    def num_segments(self, positions: Iterable[int]) -> np.ndarray:
        """(K,) float64: how many segments, without crowds, these images have of each class."""
        rows = np.concatenate([np.empty((0, 3), np.int32), *(self._segments[p] for p in positions)])
        return np.bincount(rows[rows[:, 2] == 0, 1], minlength=len(self.classes)).astype(np.float64)

    @classmethod
    def of_records(
        cls, name: str, metadata: Any, records: Iterable[Mapping[str, Any]]
    ) -> "PanopticAnnotations":
        """Of the dataset dicts of a registered data set.

        They need `image_id`, `pan_seg_file_name` and `segments_info` with `isthing` and contiguous ids, or
        without `isthing` and with the data set's own.
        """
        dropped = metadata.get("on_bad_annotation") == "drop"
        annotations = cls(
            f"data set {name!r}", PanopticClasses.of_metadata(metadata), unlisted_is_void=dropped
        )
        to_category = CategoryIds(metadata)
        for record in records:
            if not {"image_id", "pan_seg_file_name", "segments_info"} <= record.keys():
                raise InputError(
                    f"data set {name!r}: {record.get('file_name')}: its dict lacks image_id,"
                    " pan_seg_file_name or segments_info, which panoptic evaluation needs; register the set"
                    " by register_panoptic, or set panoptic_json and panoptic_root in its metadata"
                )
            segments = [
                {**segment, "category_id": to_category(segment)} for segment in record["segments_info"]
            ]
            annotations.add(
                record["image_id"], str(record["pan_seg_file_name"]), stated_size(record), segments
            )
        return annotations


def contiguous_to_dataset_id(metadata: Any, kind: str) -> dict[int, int]:
    """Contiguous id -> the data set's, of the classes of a kind: "thing" or "stuff"."""
    return {k: id_ for id_, k in metadata.get(f"{kind}_dataset_id_to_contiguous_id", {}).items()}


class CategoryIds:
    """From the contiguous ids of segments back to the data set's, by the metadata's maps."""

    def __init__(
        self, metadata: Any, things: dict[int, int] | None = None, stuff: dict[int, int] | None = None
    ) -> None:
        """`things`, `stuff`: maps in the place of those of `contiguous_to_dataset_id`."""
        self._name = metadata.name
        self._to_dataset_id = {
            True: contiguous_to_dataset_id(metadata, "thing") if things is None else things,
            False: contiguous_to_dataset_id(metadata, "stuff") if stuff is None else stuff,
        }

    def __call__(self, segment: Mapping[str, Any]) -> int:
        """The data set's id: the segment's own where it does not say `isthing`, as in Detectron2."""
        category = int(segment["category_id"])
        if segment.get("isthing") is None:
            return category
        is_thing = bool(segment["isthing"])
        known = self._to_dataset_id[is_thing]
        if category not in known:
            kind = "thing" if is_thing else "stuff"
            raise InputError(
                f"{kind} class {category} is not among the {len(known)} {kind} classes of {self._name!r}; use"
                " the weights of a model with these classes"
            )
        return known[category]


def read_panoptic_annotations(
    json_file: str | PathLike[str],
    png_folder: str | PathLike[str],
    classes: PanopticClasses | None = None,
) -> PanopticAnnotations:
    """Read truth, or predictions, in COCO's panoptic format; no picture is opened.

    Args:
        json_file: with the list "annotations" of `image_id`, `file_name` (of the PNG) and `segments_info`;
            for the truth, also "categories" and "images".
        png_folder: where the PNG files lie.
        classes: those of the truth when predictions are read; by default the file's own.

    Raises:
        InputError: one line that names file and entry.
    """
    source = str(json_file)
    content = read_json(json_file)
    entries = _list(content, "annotations", source)
    if entries and not any(isinstance(entry, Mapping) and "segments_info" in entry for entry in entries):
        raise InputError(
            f"{source}: its annotations have no 'segments_info', so this is no panoptic file; give the JSON"
            " file that lists the segments of the PNG files"
        )
    if classes is None:
        classes, sizes = PanopticClasses.of_file(source, content), _sizes(source, content)
    else:
        sizes = None
    annotations = PanopticAnnotations(source, classes)
    for number, entry in enumerate(entries, start=1):
        where = f"{source}: annotation {number}"
        _require(entry, ("image_id", "file_name", "segments_info"), where)
        if not isinstance(entry["segments_info"], list):
            raise InputError(f"{where}: 'segments_info' must be a list of segments")
        image_id = entry["image_id"]
        if sizes is not None and str(image_id) not in sizes:
            near = nearest_names(str(image_id), sizes, count=1)
            raise InputError(
                f"{where} is of image {image_id!r}, which 'images' does not list"
                f"{f' (the nearest is {near[0]})' if near else ''}; mend its image_id"
            )
        size = None if sizes is None else sizes[str(image_id)]
        annotations.add(
            image_id, str(Path(png_folder) / str(entry["file_name"])), size, entry["segments_info"]
        )
    num_left_out = 0 if sizes is None else len(sizes) - len(annotations)
    if num_left_out:
        logger.warning(
            "%s: %d of %d images have no annotation and are not scored",
            source,
            num_left_out,
            len(sizes or ()),
        )
    return annotations


def _sizes(source: str, content: Any) -> dict[str, tuple[int, int] | None]:
    """Image id -> (height, width) where "images" says so."""
    sizes: dict[str, tuple[int, int] | None] = {}
    for number, image in enumerate(_list(content, "images", source), start=1):
        _require(image, ("id",), f"{source}: image {number}")
        has_size = isinstance(image.get("height"), int) and isinstance(image.get("width"), int)
        sizes[str(image["id"])] = (image["height"], image["width"]) if has_size else None
    return sizes


def _list(content: Any, key: str, source: str) -> list[Any]:
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        raise InputError(f"{source}: no panoptic annotation file: it needs an object with the list {key!r}")
    return found


def _require(entry: Any, keys: Iterable[str], where: str) -> None:
    lacking = [key for key in keys if not isinstance(entry, Mapping) or key not in entry]
    if lacking:
        raise InputError(
            f"{where} lacks {', '.join(map(repr, lacking))}; add {'it' if len(lacking) == 1 else 'them'}"
        )
