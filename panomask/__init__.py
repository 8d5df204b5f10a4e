"""panomask: instance and panoptic segmentation in pure Python, by Detectron2's public contract."""

from panomask.detectron2_api import install_as_detectron2

__all__ = ["__version__", "install_as_detectron2"]

__version__ = "0.1.0"
