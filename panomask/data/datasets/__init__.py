"""Readers of data set formats; importing this registers the built-in data sets."""

from panomask.data.datasets import builtin as builtin
from panomask.data.datasets.coco import load_coco_json, read_coco_categories
from panomask.data.datasets.register_coco import register_coco_instances

__all__ = ["load_coco_json", "read_coco_categories", "register_coco_instances"]
