"""Save, resume and load: files that a kill cannot break, and one line when a file does not fit."""

from panomask.addresses import PathManager
from panomask.checkpoint.checkpointer import Checkpointer, DetectionCheckpointer
from panomask.checkpoint.periodic import PeriodicCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PathManager", "PeriodicCheckpointer"]
