"""The annotations of a COCO panoptic file: checked, and turned into the segments of dataset dicts.

COCO train2017 has 118k images with 1.3 million segments: what is right passes a few comparisons, and
messages are made for what is wrong alone.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panomask.data.datasets.annotation_problems import AnnotationProblems
from panomask.data.datasets.coco_annotations import BadAnnotation
from panomask.data.datasets.panoptic_categories import SegmentClass
from panomask.errors import InputError
from panomask.panoptic_png import MAX_SEGMENT_ID
from panomask.structures import BoxMode

Record = dict[str, Any]

_NUMBERS = frozenset((int, float))


class FolderFiles:
    """Which files a folder holds, by one listing of each subfolder.

    Asking a network disk for each of 118k files would take minutes.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._listings: dict[str, frozenset[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, base = os.path.split(name)
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(os.path.join(self.root, folder)))
            except OSError:  # no such folder
                self._listings[folder] = frozenset()
        return base in self._listings[folder]


def open_png_folder(json_file: str | Path, root: str | Path) -> FolderFiles:
    """The folder of the PNG files of `json_file`; InputError if there is none."""
    if not os.path.isdir(root):
        raise InputError(
            f"{json_file}: the folder of panoptic PNG files {root} does not exist; give the one that belongs"
            f" to this file (DATASETS.REGISTER.<name>.PANOPTIC_ROOT; relative paths start at {Path.cwd()})"
        )
    return FolderFiles(root)


def add_segments(
    records: dict[Any, Record],
    annotations: list[Any],
    classes: Mapping[int, SegmentClass],
    folder: FolderFiles,
    problems: AnnotationProblems,
    *,
    keep_keys: bool = False,
) -> None:
    """Put pan_seg_file_name, segments_info and annotations into each annotated image's record, in place.

    Empties the list as it goes, to free memory.

    Args:
        records: image id -> dataset dict; that of an image without annotation stays as it is.
        annotations: of the file, unchecked.
        classes: category id of the file -> class.
        problems: receives what is wrong; `total` is counted here.
        keep_keys: copy what else the file says of a segment.
    """
    for position, annotation in enumerate(annotations):
        annotations[position] = None
        problems.total += 1
        try:
            record = _find_record(annotation, records, folder)
        except BadAnnotation as bad:
            problems.add(_entry(annotation, position, records), bad)
            continue
        segments = annotation["segments_info"]
        problems.total += len(segments)
        infos: list[Record] = []
        objects: list[Record] = []
        seen: set[int] = set()
        for number, segment in enumerate(segments):
            try:
                info = _convert_segment(segment, classes, seen)
                instance = _to_object(segment, info) if info["isthing"] else None
            except BadAnnotation as bad:
                where = _entry(annotation, position, records)
                problems.add(f"{where}, segment {_name_of(segment, number)}", bad)
                continue
            seen.add(info["id"])
            infos.append({**segment, **info} if keep_keys else info)
            if instance is not None:
                objects.append(instance)
        record["pan_seg_file_name"] = os.path.join(folder.root, annotation["file_name"])
        record["segments_info"] = infos
        record["annotations"] = objects


def _find_record(annotation: Any, records: dict[Any, Record], folder: FolderFiles) -> Record:
    """The record of the annotation's image, once all but its segments is found to be in order."""
    if not isinstance(annotation, dict):
        raise BadAnnotation(
            "not an object",
            f"{annotation!r:.80}",
            'an object with "image_id", "file_name" and "segments_info" is needed',
        )
    image_id, file_name = annotation.get("image_id"), annotation.get("file_name")
    if not isinstance(annotation.get("segments_info"), list):
        raise BadAnnotation(
            "no segments_info",
            f'"segments_info" is {annotation.get("segments_info")!r:.80}',
            "a list of segments is needed, which may be empty",
        )
    if not isinstance(image_id, (int, str)):
        raise BadAnnotation(
            "no image_id", f'"image_id" is {image_id!r:.80}', "a whole number or a text is needed"
        )
    if image_id not in records:
        example = f", such as {next(iter(records))!r}" if records else ", of which there is none"
        raise BadAnnotation(
            "unknown image_id", f"{image_id!r:.80}", f'allowed are the ids in "images"{example}'
        )
    record = records[image_id]
    if "segments_info" in record:
        raise BadAnnotation(
            "second annotation of an image",
            f"image_id {image_id!r:.80} has one already",
            "all segments of an image belong in one annotation and one PNG",
        )
    if not isinstance(file_name, str) or not file_name or "\0" in file_name:
        raise BadAnnotation(
            "no file_name", f'"file_name" is {file_name!r:.80}', "the name of its PNG file is needed"
        )
    if file_name not in folder:
        stem = os.path.splitext(file_name)[0]
        hint = f" (but {stem + '.png'!r} is)" if stem + ".png" in folder else ""
        raise BadAnnotation(
            "PNG missing",
            f"{file_name!r:.200} is not in {folder.root}{hint}",
            'put it there, mend "file_name", or give another folder (DATASETS.REGISTER.<name>.PANOPTIC_ROOT)',
        )
    return record


def _convert_segment(segment: Any, classes: Mapping[int, SegmentClass], seen: set[int]) -> Record:
    """The entry of segments_info; its "category_id" is contiguous."""
    if not isinstance(segment, dict):
        raise BadAnnotation(
            "not an object", f"{segment!r:.80}", 'an object with "id" and "category_id" is needed'
        )
    id_, category_id, crowd = segment.get("id"), segment.get("category_id"), segment.get("iscrowd", 0)
    if type(id_) is not int or not 0 < id_ <= MAX_SEGMENT_ID:
        raise BadAnnotation(
            "bad segment id",
            f'"id" is {id_!r:.80}',
            f"a whole number from 1 to {MAX_SEGMENT_ID} is needed (0 is void)",
        )
    if id_ in seen:
        raise BadAnnotation(
            "segment id used twice", f"{id_}", "each segment of an image needs an id, and pixels, of its own"
        )
    if type(category_id) is not int or category_id not in classes:
        allowed = ", ".join(map(str, sorted(classes)[:200]))
        raise BadAnnotation(
            "unknown category_id", f"{category_id!r:.80}", f'allowed are the ids in "categories": {allowed}'
        )
    if crowd not in (0, 1):
        raise BadAnnotation("bad iscrowd", f"{crowd!r:.80}", "allowed are 0 and 1")
    class_idx, is_thing = classes[category_id]
    if segment.get("isthing", is_thing) not in (is_thing, None):
        raise BadAnnotation(
            "conflicting isthing",
            f'"isthing" is {segment["isthing"]!r:.80}, but category {category_id} is'
            f" {'a thing' if is_thing else 'stuff'}",
            "a category is one of the two",
        )
    info = {"id": id_, "category_id": class_idx, "isthing": is_thing, "iscrowd": int(crowd)}
    if "area" in segment:
        info["area"] = segment["area"]
    return info


def _to_object(segment: Mapping[str, Any], info: Record) -> Record:
    """The object of a thing. Mask and box come from the PNG; a box of the file is carried along."""
    instance = {"category_id": info["category_id"], "iscrowd": info["iscrowd"], "segment_id": info["id"]}
    box = segment.get("bbox")
    if box is not None:
        if not (isinstance(box, list) and len(box) == 4 and _NUMBERS.issuperset(map(type, box))):
            raise BadAnnotation("bad box", f'"bbox" is {box!r:.80}', "[x, y, width, height] is needed")
        instance |= {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS}
    return instance


def _name_of(segment: Any, number: int) -> str:
    id_ = segment.get("id") if isinstance(segment, dict) else None
    return f"{id_}" if isinstance(id_, int) else f"number {number} (counted from 0)"


def _entry(annotation: Any, position: int, records: Mapping[Any, Record]) -> str:
    """How a message names an annotation."""
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    if isinstance(image_id, (int, str)) and image_id in records:
        return f"annotation of image {image_id!r} ({Path(records[image_id]['file_name']).name!r})"
    return f"annotation number {position} (counted from 0)"


def check_all_annotated(records: Mapping[Any, Record], problems: AnnotationProblems) -> None:
    """Hand the images without annotation to `problems`."""
    missing = [record for record in records.values() if "segments_info" not in record]
    for record in missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        problems.add(
            f"image {record['image_id']!r} ({Path(record['file_name']).name!r}){more}",
            BadAnnotation(
                "image without annotation",
                f'no entry of "annotations" has its id; {len(records) - len(missing)} of'
                f" {len(records)} images are annotated",
                "each image needs one, with an empty segments_info if nothing is labelled",
            ),
        )
