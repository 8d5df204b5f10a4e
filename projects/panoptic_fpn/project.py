"""What this project registers: rivals of Panoptic FPN's training on both tasks at once."""

from panomask.registry import MODEL_KINDS

from .alternating import AlternatingPanopticFPN
from .separate_networks import SeparatePanopticNetworks

for model in (AlternatingPanopticFPN, SeparatePanopticNetworks):
    MODEL_KINDS[model.__name__] = "PanopticFPN"
