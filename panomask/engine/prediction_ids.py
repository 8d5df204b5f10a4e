"""Which ids images and categories get in files of predictions."""

import functools
from pathlib import Path
from typing import Any

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.json_file import read_json


class CocoIds:
    """Which ids images and categories get in the results.

    Images are numbered from 1 in the order in which they are processed; categories have the data set's ids
    where the metadata knows them, else 0..K-1. With an annotation file both are the file's, found by name, so
    that the results can be scored against it.
    """

    def __init__(self, metadata: Metadata, annotation_file: str | None = None) -> None:
        """
        Args:
            metadata: with `thing_classes`, in the order of the model's classes.
            annotation_file: COCO annotations to take ids from.
        """
        self._metadata = metadata
        names = list(metadata.get("thing_classes") or [])
        self._file = annotation_file
        self._file_ids: dict[tuple[str, bool], Any] = {}
        self._by_name: dict[str, list[tuple[str, Any]]] = {}
        self.next_id = 1
        if annotation_file is None:
            to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {}
            ids: list[Any] = list(range(len(names)))
            for dataset_id, contiguous in to_contiguous.items():
                ids[contiguous] = dataset_id
        else:
            content = read_json(annotation_file)
            ids = self._ids_of_file(content, names)
            self._file_ids = {
                (category["name"], bool(category.get("isthing", True))): category["id"]
                for category in content["categories"]
            }
            for image in content["images"]:
                file_name = str(image["file_name"])
                self._by_name.setdefault(Path(file_name).name, []).append((file_name, image["id"]))
        self.categories = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]

    def _ids_of_file(self, content: Any, names: list[str]) -> list[Any]:
        if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
            raise InputError(f"{self._file}: no COCO annotations; 'images' and 'categories' are needed")
        for key, fields in (("images", {"id", "file_name"}), ("categories", {"id", "name"})):
            entries = content[key] if isinstance(content[key], list) else [content[key]]
            for position, entry in enumerate(entries):
                if not isinstance(entry, dict) or not fields <= entry.keys():
                    raise InputError(
                        f"{self._file}: entry {position} (counted from 0) of {key!r} is {entry!r:.80}; an"
                        f" object with {' and '.join(sorted(fields))} is needed"
                    )
        by_name = {category["name"]: category["id"] for category in content["categories"]}
        missing = [name for name in names if name not in by_name]
        if missing or not (names or self._metadata.get("stuff_classes")):
            raise InputError(
                f"{self._file}: lacks the model's classes {missing[:5] if names else '(unnamed)'}; it has"
                f" {list(by_name)[:10]}; give the annotations of the data that the model was trained for"
            )
        return [by_name[name] for name in names]

    def image_id(self, path: Path) -> Any:
        """The id of an image, or the next number."""
        if self._file is None:
            self.next_id += 1
            return self.next_id - 1
        candidates = self._by_name.get(path.name, [])
        if len(candidates) > 1:
            tail = [entry for entry in candidates if f"/{path.resolve().as_posix()}".endswith(f"/{entry[0]}")]
            candidates = tail if len(tail) == 1 else candidates
        if len(candidates) != 1:
            count = "no image" if not candidates else f"{len(candidates)} images"
            raise InputError(f"{path}: {self._file} lists {count} of this name; one is needed to take its id")
        return candidates[0][1]

    def category_id(self, predicted: int) -> Any:
        """The id of a class 0..K-1."""
        if not self.categories:
            return predicted
        if predicted >= len(self.categories):
            raise InputError(
                f"the model predicts class {predicted}, but only {len(self.categories)} class names are"
                " known; set DATASETS.TEST to the data set that it was trained for"
            )
        return self.categories[predicted]["id"]

    def panoptic_categories(self) -> list[dict[str, Any]]:
        """The things and, behind them, the stuff that a panoptic model predicts: id, name, isthing.

        Ids are those of the annotation file, else of the data set; where neither is known, numbers from 0.

        Raises:
            InputError: the annotation file lacks a class.
        """
        ids = self._segment_ids
        return [
            {"id": ids[is_thing, k], "name": name, "isthing": int(is_thing)}
            for (is_thing, k), name in self._segment_classes().items()
        ]

    def segment_category_id(self, segment: dict[str, Any]) -> Any:
        """The id of the class of a panoptic segment with category_id (contiguous) and isthing."""
        key = bool(segment["isthing"]), int(segment["category_id"])
        if key not in self._segment_ids:
            kind = "thing" if key[0] else "stuff"
            raise InputError(
                f"the model predicts {kind} class {key[1]}, but its name is not known; set DATASETS.TEST to"
                " the data set that it was trained for"
            )
        return self._segment_ids[key]

    def _segment_classes(self) -> dict[tuple[bool, int], str]:
        """(isthing, contiguous id) -> name; without the label that stands for all things."""
        metadata = self._metadata
        things = metadata.get("thing_classes") or []
        stuff = metadata.get("stuff_classes") or []
        to_things, to_stuff = (
            metadata.get(f"{kind}_dataset_id_to_contiguous_id") for kind in ("thing", "stuff")
        )
        is_shared = list(things) == list(stuff) and to_things and to_stuff  # one list for both
        named = {
            (True, k): name
            for k, name in enumerate(things)
            if not is_shared or k in to_things.values()  # type: ignore[union-attr]
        }
        for k, name in enumerate(stuff):
            is_all_things = k == metadata.get("sem_seg_things_label") or (k == 0 and name == "things")
            if not is_all_things and not (is_shared and (True, k) in named):
                named[False, k] = name
        return named

    @functools.cached_property
    def _segment_ids(self) -> dict[tuple[bool, int], Any]:
        """(isthing, contiguous id) -> id of the category."""
        named = self._segment_classes()
        if self._file is not None:
            lacking = [
                name for (is_thing, _), name in named.items() if (name, is_thing) not in self._file_ids
            ]
            if lacking:
                raise InputError(
                    f"{self._file}: lacks the model's things or stuff {lacking[:5]}; give the panoptic"
                    " annotations of the data that the model was trained for"
                )
            return {key: self._file_ids[name, key[0]] for key, name in named.items()}
        known = {
            (is_thing, k): id_
            for kind, is_thing in (("stuff", False), ("thing", True))
            for id_, k in (self._metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {}).items()
        }
        if named.keys() <= known.keys():
            return {key: known[key] for key in named}
        return {key: number for number, key in enumerate(named)}
