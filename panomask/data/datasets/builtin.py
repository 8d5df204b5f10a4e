"""Registers the built-in data sets: names only, nothing is read before a set is used.

Files are looked for below `data_root()` at the time a set is looked up, in the layout of the tables below
(Detectron2's). datasets/README.md says where to download them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import DatasetCatalog, Metadata, MetadataCatalog, data_root
from panomask.data.datasets.builtin_meta import _get_builtin_metadata
from panomask.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.lvis import get_lvis_instances_meta, load_lvis_json
from panomask.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances
from panomask.data.datasets.shapes import register_shapes
from panomask.errors import InputError

__all__ = ["register_all_cityscapes", "register_all_coco", "register_all_lvis", "register_all_pascal_voc"]

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

_COCO_KEYPOINTS = {
    "keypoints_coco_2014_train": ("train2014", "person_keypoints_train2014.json"),
    "keypoints_coco_2014_val": ("val2014", "person_keypoints_val2014.json"),
    "keypoints_coco_2014_minival": ("val2014", "person_keypoints_minival2014.json"),
    "keypoints_coco_2014_valminusminival": ("val2014", "person_keypoints_valminusminival2014.json"),
    "keypoints_coco_2017_train": ("train2017", "person_keypoints_train2017.json"),
    "keypoints_coco_2017_val": ("val2017", "person_keypoints_val2017.json"),
    "keypoints_coco_2017_val_100": ("val2017", "person_keypoints_val2017_100.json"),
}
"""The same for the keypoints of persons."""

_LVIS = {
    "lvis_v1_train": "lvis_v1_train.json",
    "lvis_v1_val": "lvis_v1_val.json",
    "lvis_v1_test_dev": "lvis_v1_image_info_test_dev.json",
    "lvis_v1_test_challenge": "lvis_v1_image_info_test_challenge.json",
    "lvis_v0.5_train": "lvis_v0.5_train.json",
    "lvis_v0.5_val": "lvis_v0.5_val.json",
    "lvis_v0.5_val_rand_100": "lvis_v0.5_val_rand_100.json",
    "lvis_v0.5_test": "lvis_v0.5_image_info_test.json",
    "lvis_v0.5_train_cocofied": "lvis_v0.5_train_cocofied.json",
    "lvis_v0.5_val_cocofied": "lvis_v0.5_val_cocofied.json",
}
"""Name -> file in lvis/; the images are COCO's, in coco/train2017, coco/val2017, coco/test2017."""

_CITYSCAPES_SPLITS = ("train", "val", "test")

_VOC_SPLITS = {2007: ("trainval", "train", "val", "test"), 2012: ("trainval", "train", "val")}
"""Year -> lists in VOC<year>/ImageSets/Main/."""

_COCO_DOWNLOAD = "https://cocodataset.org/#download"

Root = str | Path | None
"""The folder that takes the place of `data_root()`; None stands for `data_root()` at lookup time."""

Loader = Callable[[str, Metadata], list[dict[str, Any]]]
"""Loads a data set from its name and metadata."""


def register_all_coco(root: Root = None) -> None:
    """Register COCO's instance and keypoint sets."""
    for sets, family in ((_COCO_INSTANCES, "coco"), (_COCO_KEYPOINTS, "coco_person")):
        for name, (images, annotations) in sets.items():
            _register(
                name,
                partial(_load_json, load_coco_json),
                root,
                paths={"json_file": f"coco/annotations/{annotations}", "image_root": f"coco/{images}"},
                download=_COCO_DOWNLOAD,
                metadata={"evaluator_type": "coco", **_get_builtin_metadata(family)},
            )


def register_all_lvis(root: Root = None) -> None:
    """Register LVIS v0.5 and v1, and v0.5 with COCO's categories alone ("cocofied")."""
    for name, annotations in _LVIS.items():
        _register(
            name,
            partial(_load_json, load_lvis_json),
            root,
            paths={"json_file": f"lvis/{annotations}", "image_root": "coco"},
            download=f"https://www.lvisdataset.org/dataset and, for the images, {_COCO_DOWNLOAD}",
            metadata={"evaluator_type": "lvis", **get_lvis_instances_meta(name)},
        )


def register_all_cityscapes(root: Root = None) -> None:
    """Register the finely annotated Cityscapes, for instance and for semantic segmentation."""
    tasks: tuple[tuple[str, Loader, dict[str, Any]], ...] = (
        ("instance_seg", _load_cityscapes_instances, {"evaluator_type": "cityscapes_instance"}),
        ("sem_seg", _load_cityscapes_semantic, {"evaluator_type": "cityscapes_sem_seg", "ignore_label": 255}),
    )
    for split in _CITYSCAPES_SPLITS:
        for task, load, metadata in tasks:
            _register(
                f"cityscapes_fine_{task}_{split}",
                load,
                root,
                paths={
                    "image_dir": f"cityscapes/leftImg8bit/{split}",
                    "gt_dir": f"cityscapes/gtFine/{split}",
                },
                download="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from"
                " https://www.cityscapes-dataset.com/downloads",
                metadata={**metadata, **_get_builtin_metadata("cityscapes")},
            )


def register_all_pascal_voc(root: Root = None) -> None:
    """Register the detection sets of PASCAL VOC 2007 and 2012."""
    for year, splits in _VOC_SPLITS.items():
        for split in splits:
            folder = f"VOC{year}"
            _register(
                f"voc_{year}_{split}",
                _load_voc,
                root,
                paths={"dirname": folder},
                needs=(
                    f"{folder}/ImageSets/Main/{split}.txt",
                    f"{folder}/Annotations",
                    f"{folder}/JPEGImages",
                ),
                download="the folder VOCdevkit/VOC"
                f"{year} of http://host.robots.ox.ac.uk/pascal/VOC/voc{year}",
                metadata={
                    "evaluator_type": "pascal_voc",
                    "thing_classes": list(CLASS_NAMES),
                    "year": year,
                    "split": split,
                },
            )


def _register(
    name: str,
    load: Loader,
    root: Root,
    *,
    paths: dict[str, str],
    download: str,
    metadata: dict[str, Any],
    needs: Sequence[str] = (),
) -> None:
    """Register one set.

    Args:
        paths: metadata field -> path below the root.
        download: where its files come from, for the message that they are missing.
        needs: paths below the root that must exist; by default those of `paths`.
    """
    required = tuple(needs) or tuple(paths.values())
    DatasetCatalog.register(name, partial(_load, name, load, root, required, download))
    MetadataCatalog.provide(name, partial(_resolve, root, paths))
    MetadataCatalog.get(name).set(**metadata)


def _resolve(root: Root, paths: dict[str, str]) -> dict[str, str]:
    return {field: str(_base(root) / path) for field, path in paths.items()}


def _base(root: Root) -> Path:
    return data_root() if root is None else Path(root)


def _load(name: str, load: Loader, root: Root, needs: Sequence[str], download: str) -> list[dict[str, Any]]:
    """Load a set once all its files are found."""
    _find_files(name, root, needs, download)
    return load(name, MetadataCatalog.get(name))


def check_files(name: str) -> None:
    """Raise InputError if `name` is a built-in set whose files are missing; none is read."""
    func = DatasetCatalog.data.get(name)
    if isinstance(func, partial) and func.func is _load:
        _, _, root, needs, download = func.args
        _find_files(name, root, needs, download)


def _find_files(name: str, root: Root, needs: Sequence[str], download: str) -> None:
    """InputError that says what to put where unless all is there."""
    required = [str(_base(root) / path) for path in needs]
    missing = [path for path in required if not Path(path).exists()]
    if missing:
        top = " and ".join(dict.fromkeys(f"{path.partition('/')[0]}/" for path in needs))
        whole = "" if missing == required else f"; the set needs {_listed(required)}"
        raise InputError(
            f"{name}: {_listed(missing)} not found{whole}. Put there what {download} offers, or point"
            f" PANOMASK_DATASETS to the folder that holds {top}"
        )


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:-1]) + (" and " if len(paths) > 1 else "") + paths[-1]


def _load_json(
    read: Callable[..., list[dict[str, Any]]], name: str, metadata: Metadata
) -> list[dict[str, Any]]:
    """Published files hold a few faults (train2017: two boxes of no area) that nobody can mend: dropped."""
    return read(
        metadata.json_file,
        metadata.image_root,
        name,
        on_bad="drop",
        require_annotations="image_info" not in Path(metadata.json_file).name,
    )


def _load_cityscapes_instances(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_cityscapes_instances(metadata.image_dir, metadata.gt_dir)


def _load_cityscapes_semantic(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_cityscapes_semantic(metadata.image_dir, metadata.gt_dir)


def _load_voc(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_voc_instances(metadata.dirname, metadata.split, metadata.thing_classes)


register_all_coco()
register_all_lvis()
register_all_cityscapes()
register_all_pascal_voc()
register_shapes()
