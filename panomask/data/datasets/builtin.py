"""Registers the built-in data sets: names only, nothing is read before a set is used.

Files are looked for below `data_root()` at the time a set is looked up, in the layout of the tables below
(Detectron2's). datasets/README.md says where to download them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from panomask.data.catalog import Metadata
from panomask.data.datasets.builtin_meta import _get_builtin_metadata
from panomask.data.datasets.builtin_registration import Loader, Root, check_files, register_builtin
from panomask.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from panomask.data.datasets.cityscapes_panoptic import register_all_cityscapes_panoptic
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.coco_panoptic import load_coco_panoptic_json, load_separated, load_stuffonly
from panomask.data.datasets.lvis import get_lvis_instances_meta, load_lvis_json
from panomask.data.datasets.panoptic_categories import LABEL_DIVISOR, THINGS_LABEL
from panomask.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances
from panomask.data.datasets.sem_seg import load_sem_seg
from panomask.data.datasets.shapes import register_shapes
from panomask.semantic_png import IGNORE_LABEL

__all__ = [
    "check_files",
    "register_all_ade20k",
    "register_all_cityscapes",
    "register_all_cityscapes_panoptic",
    "register_all_coco",
    "register_all_lvis",
    "register_all_pascal_voc",
]

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

_COCO_PANOPTIC = {
    "coco_2017_train": "train2017",
    "coco_2017_val": "val2017",
    "coco_2017_val_100": "val2017_100",
}
"""Name before "_panoptic" -> what follows "panoptic_" and "panoptic_stuff_" in the names of its files."""

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

_ADE20K_SPLITS = {"train": "training", "val": "validation"}

_VOC_SPLITS = {2007: ("trainval", "train", "val", "test"), 2012: ("trainval", "train", "val")}
"""Year -> lists in VOC<year>/ImageSets/Main/."""

_COCO_DOWNLOAD = "https://cocodataset.org/#download"
_COCO_PANOPTIC_DOWNLOAD = f"{_COCO_DOWNLOAD} (panoptic_annotations_trainval2017.zip and the zips in it)"


def register_all_coco(root: Root = None) -> None:
    """Register COCO's instance, keypoint and panoptic sets."""
    for sets, family in ((_COCO_INSTANCES, "coco"), (_COCO_KEYPOINTS, "coco_person")):
        for name, (images, annotations) in sets.items():
            register_builtin(
                name,
                partial(_load_json, load_coco_json),
                root,
                paths={"json_file": f"coco/annotations/{annotations}", "image_root": f"coco/{images}"},
                download=_COCO_DOWNLOAD,
                metadata={"evaluator_type": "coco", **_get_builtin_metadata(family)},
            )
    for prefix, files in _COCO_PANOPTIC.items():
        _register_coco_panoptic(prefix, files, root)


def _register_coco_panoptic(prefix: str, files: str, root: Root) -> None:
    """Register the three forms of a panoptic set of COCO, as `coco_panoptic` registers a user's."""
    image_folder, instances = _COCO_INSTANCES[prefix]
    labels = f"coco/panoptic_stuff_{files}"
    panoptic = {
        "panoptic_root": f"coco/panoptic_{files}",
        "image_root": f"coco/{image_folder}",
        "panoptic_json": f"coco/annotations/panoptic_{files}.json",
    }
    objects = {"json_file": f"coco/annotations/{instances}"}
    common = {"ignore_label": IGNORE_LABEL}
    separated = {
        **common,
        "sem_seg_things_label": THINGS_LABEL,
        **_get_builtin_metadata("coco_panoptic_separated"),
    }
    scored = {"evaluator_type": "coco_panoptic_seg", "label_divisor": LABEL_DIVISOR}
    register = partial(register_builtin, root=root, download=_COCO_PANOPTIC_DOWNLOAD)
    register(
        f"{prefix}_panoptic",
        _load_coco_panoptic,
        paths={**panoptic, **objects},
        needs=tuple(panoptic.values()),
        metadata={**scored, **common, **_get_builtin_metadata("coco_panoptic_standard")},
    )
    register(
        f"{prefix}_panoptic_separated",
        _load_separated,
        paths={**panoptic, **objects, "sem_seg_root": labels},
        optional=("sem_seg_root",),
        needs=(*panoptic.values(), *objects.values()),
        metadata={**scored, **separated},
    )
    register(
        f"{prefix}_panoptic_stuffonly",
        _load_stuffonly,
        paths={**panoptic, "sem_seg_root": labels},
        optional=("sem_seg_root",),
        needs=(
            panoptic["image_root"],
            (labels, panoptic["panoptic_root"]),
            (labels, panoptic["panoptic_json"]),
        ),
        metadata={"evaluator_type": "sem_seg", **separated},
    )


def register_all_ade20k(root: Root = None) -> None:
    """Register ADE20K's scene parsing benchmark, for semantic segmentation."""
    for split, folder in _ADE20K_SPLITS.items():
        register_builtin(
            f"ade20k_sem_seg_{split}",
            _load_sem_seg,
            root,
            paths={
                "image_root": f"ADEChallengeData2016/images/{folder}",
                "sem_seg_root": f"ADEChallengeData2016/annotations_detectron2/{folder}",
            },
            download="ADEChallengeData2016.zip of http://sceneparsing.csail.mit.edu (annotations_detectron2:"
            " its annotations, each value lowered by 1, 0 made 255; datasets/README.md has the lines)",
            metadata={
                "evaluator_type": "sem_seg",
                "ignore_label": IGNORE_LABEL,
                **_get_builtin_metadata("ade20k_sem_seg"),
            },
        )


def register_all_lvis(root: Root = None) -> None:
    """Register LVIS v0.5 and v1, and v0.5 with COCO's categories alone ("cocofied")."""
    for name, annotations in _LVIS.items():
        register_builtin(
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
        (
            "sem_seg",
            _load_cityscapes_semantic,
            {"evaluator_type": "cityscapes_sem_seg", "ignore_label": IGNORE_LABEL},
        ),
    )
    for split in _CITYSCAPES_SPLITS:
        for task, load, metadata in tasks:
            register_builtin(
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
            register_builtin(
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


def _load_coco_panoptic(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_coco_panoptic_json(
        metadata.panoptic_json, metadata.image_root, metadata.panoptic_root, metadata.as_dict()
    )


def _load_separated(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_separated(name, on_bad="drop")


def _load_stuffonly(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_stuffonly(name, on_bad="drop")


def _load_sem_seg(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_sem_seg(metadata.sem_seg_root, metadata.image_root)


def _load_cityscapes_instances(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_cityscapes_instances(metadata.image_dir, metadata.gt_dir)


def _load_cityscapes_semantic(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_cityscapes_semantic(metadata.image_dir, metadata.gt_dir)


def _load_voc(name: str, metadata: Metadata) -> list[dict[str, Any]]:
    return load_voc_instances(metadata.dirname, metadata.split, metadata.thing_classes)


register_all_coco()
register_all_lvis()
register_all_cityscapes()
register_all_cityscapes_panoptic()
register_all_ade20k()
register_all_pascal_voc()
register_shapes()
