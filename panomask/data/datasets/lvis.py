"""Reader of LVIS (Gupta et al., CVPR 2019): COCO's format with a large vocabulary, annotated federatedly.

An image says which categories were looked for and not found (`neg_category_ids`) and of which not every
object is annotated (`not_exhaustive_category_ids`); of all others nothing is known.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from panomask.data.datasets.builtin_meta import _get_builtin_metadata
from panomask.data.datasets.coco import read_records
from panomask.errors import InputError

__all__ = ["get_lvis_instances_meta", "load_lvis_json", "register_lvis_instances"]

FEDERATED_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


def register_lvis_instances(
    name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path
) -> None:
    """Register a data set in LVIS's format under `name`; nothing is read before the set is first used.

    Args:
        metadata: extra fields of `MetadataCatalog.get(name)`, may be empty.
        json_file, image_root: see `load_lvis_json`.
    """
    DatasetCatalog.register(name, partial(load_lvis_json, str(json_file), str(image_root), name))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="lvis", **metadata
    )


def load_lvis_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
    on_bad: str = "refuse",
    *,
    require_annotations: bool = True,
) -> list[dict[str, Any]]:
    """Read an LVIS file into dataset dicts, sorted by image id.

    Args:
        json_file: as `load_coco_json` takes it, with LVIS's two lists for each image.
        image_root: folder of COCO's folders: the image of "coco_url" .../train2017/000000391895.jpg is
            image_root/train2017/000000391895.jpg. Only without "coco_url", "file_name" is joined to it.
        dataset_name: when given, the set's metadata receive the file's classes and, where every category has
            an "image_count", `class_image_count` for the federated loss; category ids become 0..K-1 in the
            order of the file's ids. When None, ids stay as in the file.
        extra_annotation_keys, on_bad, require_annotations: see `load_coco_json`.

    Returns:
        dicts as of `load_coco_json`, and `neg_category_ids`, `not_exhaustive_category_ids` (ids of the file).

    Raises:
        InputError: see `load_coco_json`; or another number of categories than the data set is known for.
    """
    federated: dict[Any, dict[str, Any]] = {}

    def prepare(images: list[Any]) -> None:
        for position, image in enumerate(images):
            if isinstance(image, dict) and isinstance(image.get("id"), (int, str)):
                _name_file_by_url(json_file, position, image)
                federated[image["id"]] = {
                    key: _category_ids(json_file, position, image, key) for key in FEDERATED_KEYS
                }

    records, categories = read_records(
        json_file,
        image_root,
        prepare_images=prepare,
        extra_annotation_keys=extra_annotation_keys,
        on_bad=on_bad,
        require_annotations=require_annotations,
    )
    id_map = {category["id"]: category["id"] for category in categories}
    if dataset_name is not None:
        id_map = _set_metadata(MetadataCatalog.get(dataset_name), json_file, categories)
    for record in records:
        record.update(federated[record["image_id"]])
        for instance in record["annotations"]:
            instance["category_id"] = id_map[instance["category_id"]]
    return records


def _name_file_by_url(json_file: str | Path, position: int, image: dict[str, Any]) -> None:
    """Let "file_name" be the last two parts of "coco_url", in place; LVIS v1 states no other name."""
    url = image.get("coco_url")
    if url is None:
        return
    parts = url.split("/")[-2:] if isinstance(url, str) else []
    if len(parts) != 2 or not all(parts) or ".." in parts:
        raise InputError(
            f'{json_file}: image number {position} (counted from 0): "coco_url" is {url!r:.80}; it must end'
            " with folder and file, as in http://images.cocodataset.org/val2017/000000397133.jpg"
        )
    image["file_name"] = os.path.join(*parts)


def _category_ids(json_file: str | Path, position: int, image: dict[str, Any], key: str) -> list[int]:
    """One of LVIS's two lists of an image, [] where it is missing or null, as in files of test images."""
    ids = [] if image.get(key) is None else image[key]
    if not isinstance(ids, list) or not all(type(id_) is int for id_ in ids):
        raise InputError(
            f'{json_file}: image number {position} (counted from 0): "{key}" is {ids!r:.80}; it must be a'
            " list of category ids"
        )
    return list(ids)


def _set_metadata(
    metadata: Metadata, json_file: str | Path, categories: list[dict[str, Any]]
) -> dict[int, int]:
    """Put what the sorted `categories` say into the metadata; returns the map from their ids to 0..K-1.

    Names that are known already stay, however the file spells them; the ids must agree.
    """
    names = [category["name"] for category in categories]
    id_map = {category["id"]: index for index, category in enumerate(categories)}
    known = metadata.get("thing_dataset_id_to_contiguous_id", id_map)
    if known != id_map or len(metadata.get("thing_classes", names)) != len(names):
        raise InputError(
            f"{json_file}: its {len(names)} categories have other ids than the {len(known)} of data set"
            f" {metadata.name!r}; put the file of this data set there, or register yours under another name"
        )
    metadata.set(thing_classes=metadata.get("thing_classes", names), thing_dataset_id_to_contiguous_id=id_map)
    counts = _image_counts(categories)
    if counts is not None and metadata.get("class_image_count") is None:
        metadata.set(class_image_count=counts)
    return id_map


def _image_counts(categories: list[dict[str, Any]]) -> list[dict[str, int]] | None:
    """[{"id", "image_count"}, ...] if every category states how many images show it."""
    if not all(isinstance(category.get("image_count"), int) for category in categories):
        return None
    return [{"id": category["id"], "image_count": category["image_count"]} for category in categories]


def get_lvis_instances_meta(dataset_name: str) -> dict[str, Any]:
    """What is known of a built-in LVIS set, such as "lvis_v1_train", without its file."""
    if "cocofied" in dataset_name:
        return _get_builtin_metadata("coco")
    version = next((v for v in ("v0.5", "v1") if f"lvis_{v}" in dataset_name), None)
    if version is None:
        raise InputError(
            f"{dataset_name!r}: no version of LVIS by this name; known are lvis_v0.5... and lvis_v1..."
        )
    return _get_builtin_metadata(f"lvis_{version}")
