"""Readers of data set formats; importing this registers the built-in data sets."""

from panomask.data.datasets import builtin as builtin
from panomask.data.datasets.coco import load_coco_json, read_coco_categories
from panomask.data.datasets.coco_panoptic import (
    load_coco_panoptic_json,
    register_coco_panoptic,
    register_coco_panoptic_separated,
    register_panoptic,
)
from panomask.data.datasets.lvis import get_lvis_instances_meta, load_lvis_json, register_lvis_instances
from panomask.data.datasets.pascal_voc import load_voc_instances, register_pascal_voc
from panomask.data.datasets.register_coco import register_coco_instances
from panomask.data.datasets.sem_seg import load_sem_seg

__all__ = [
    "get_lvis_instances_meta",
    "load_coco_json",
    "load_coco_panoptic_json",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "read_coco_categories",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_panoptic",
    "register_pascal_voc",
]
