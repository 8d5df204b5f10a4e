"""Registers the built-in data sets: names only, nothing is read before a set is used.

Files are looked for below `data_root()` at the time a set is looked up, in the layout of the table below
(Detectron2's).
"""

from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, MetadataCatalog, data_root
from panomask.data.datasets.builtin_meta import _get_builtin_metadata
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.shapes import register_shapes
from panomask.errors import InputError

__all__ = ["register_all_coco"]

_COCO_INSTANCES = {
    "coco_2014_train": ("train2014", "instances_train2014.json"),
    "coco_2014_val": ("val2014", "instances_val2014.json"),
    "coco_2014_minival": ("val2014", "instances_minival2014.json"),
    "coco_2014_valminusminival": ("val2014", "instances_valminusminival2014.json"),
    "coco_2017_train": ("train2017", "instances_train2017.json"),
    "coco_2017_val": ("val2017", "instances_val2017.json"),
    "coco_2017_val_100": ("val2017", "instances_val2017_100.json"),
    "coco_2017_test": ("test2017", "image_info_test2017.json"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017.json"),
}
"""Name -> image folder in coco/, file in coco/annotations/."""


def register_all_coco(root: str | Path | None = None) -> None:
    """Register COCO's instance sets below `root`; None stands for `data_root()` at lookup time."""
    for name, (images, annotations) in _COCO_INSTANCES.items():
        DatasetCatalog.register(name, partial(_load_coco, name))
        MetadataCatalog.provide(name, partial(_coco_paths, root, images, annotations))
        MetadataCatalog.get(name).set(evaluator_type="coco", **_get_builtin_metadata("coco"))


def _coco_paths(root: str | Path | None, images: str, annotations: str) -> dict[str, str]:
    coco = (data_root() if root is None else Path(root)) / "coco"
    return {"json_file": str(coco / "annotations" / annotations), "image_root": str(coco / images)}


def _load_coco(name: str) -> list[dict[str, Any]]:
    """Published files hold a few faults (train2017: two boxes of no area) that nobody can mend: dropped."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.json_file, metadata.image_root
    missing = [path for path in (json_file, image_root) if not Path(path).exists()]
    if missing:
        raise InputError(
            f"{name}: {' and '.join(missing)} not found; the set needs its annotations as {json_file} and its"
            f" images in {image_root} (download: https://cocodataset.org/#download), or point"
            " PANOMASK_DATASETS to the folder that holds coco/"
        )
    return load_coco_json(
        json_file,
        image_root,
        name,
        on_bad="drop",
        require_annotations="image_info" not in Path(json_file).name,
    )


register_all_coco()
register_shapes()
