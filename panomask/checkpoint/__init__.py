"""Save, resume and load: files that a kill cannot break, and one line when a file does not fit."""

from panomask.checkpoint.checkpointer import Checkpointer, DetectionCheckpointer, PathManager
from panomask.checkpoint.periodic import PeriodicCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PathManager", "PeriodicCheckpointer"]
