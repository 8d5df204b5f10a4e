"""Registering data sets in COCO's format, under the module name that Detectron2 users import from."""

from panomask.data.datasets.coco import register_coco_instances

__all__ = ["register_coco_instances"]
