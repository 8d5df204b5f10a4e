"""The "images" of a COCO file."""

import os
from pathlib import Path
from typing import Any

from panomask.errors import InputError


def read_images(
    json_file: str | Path, images: list[Any], image_root: Path | None
) -> dict[Any, dict[str, Any]]:
    """Image id -> dataset dict without objects.

    `image_root` is joined to the names; None leaves them as they are, for work on annotations alone.
    """
    records: dict[Any, dict[str, Any]] = {}
    root = "" if image_root is None else str(image_root)
    for position, image in enumerate(images):
        where = f"{json_file}: image number {position} (counted from 0)"
        if not isinstance(image, dict):
            raise InputError(f'{where}: is {image!r:.80}; it must be an object with "id" and "file_name"')
        id_, name = image.get("id"), image.get("file_name")
        if not isinstance(id_, (int, str)):
            raise InputError(f'{where}: "id" is {id_!r:.80}; it must be an integer or a text')
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(f'{where}: "file_name" of image {id_!r} is {name!r:.80}; a file name is needed')
        if id_ in records:
            other = records[id_]["file_name"]
            raise InputError(f"{where}: id {id_!r} of {name!r} is that of {other!r} too; ids must differ")
        height, width = (_to_size(image.get(key)) for key in ("height", "width"))
        if height is None or width is None:
            raise InputError(
                f'{where}: "height" and "width" of image {id_!r} ({name!r}) are {image.get("height")!r:.80}'
                f" and {image.get('width')!r:.80}; both must be given, in whole pixels above 0"
            )
        records[id_] = {
            "file_name": os.path.join(root, name),
            "height": height,
            "width": width,
            "image_id": id_,
            "annotations": [],
        }
    if images and image_root is not None and not Path(images[0]["file_name"]).is_absolute():
        _check_image_root(json_file, image_root, images[0]["file_name"])
    return records


def _to_size(value: Any) -> int | None:
    """`value` as a number of pixels; None when it is not a whole number above 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and value > 0 and value == value // 1 else None


def _check_image_root(json_file: str | Path, image_root: Path, name: str) -> None:
    """Refuse a folder that does not exist, or one whose first image lies in a place that is easily mistaken.

    A missing image alone is no error here: files are also read to evaluate without images.
    """
    beside = Path(json_file).parent
    candidates = [
        image_root / "images",
        image_root.parent,
        beside,
        beside / "images",
        beside.parent / "images",
    ]
    # Unlike pathlib's, these answer False to names that the file system refuses.
    is_there = os.path.exists(image_root / name)
    found = None if is_there else next((c for c in candidates if os.path.isfile(c / name)), None)
    if found is not None:
        raise InputError(
            f"{json_file}: image {name!r} is not in the image folder {image_root}, but in {found}; give that"
            " folder (DATASETS.REGISTER.<name>.IMAGES)"
        )
    if not image_root.is_dir():
        raise InputError(
            f"{json_file}: the image folder {image_root} does not exist; give the folder that holds"
            f" {name!r} (DATASETS.REGISTER.<name>.IMAGES; relative paths start at {Path.cwd()})"
        )


def sort_by_id(json_file: str | Path, records: dict[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """The dataset dicts in the order of their image ids; InputError when these cannot be ordered."""
    try:
        return [records[id_] for id_ in sorted(records)]
    except TypeError:
        raise InputError(
            f"{json_file}: some image ids are numbers and some are texts; use one of the two for all images"
        ) from None
