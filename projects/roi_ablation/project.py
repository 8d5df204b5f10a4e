"""Mask R-CNN's ablation of RoI pooling and mask heads (arXiv:1703.06870, table 2).

The poolers are in the core. Here are the mask heads that the paper compares its own with, and their keys.
"""

from panomask.config import CfgNode

from . import mask_heads  # noqa: F401  # registers the heads


def add_config(cfg: CfgNode) -> None:
    """The keys of `MLPMaskHead`."""
    cfg.MODEL.ROI_MASK_HEAD.NUM_FC = 2  # fully connected layers in front of the predictor
    cfg.MODEL.ROI_MASK_HEAD.FC_DIM = 1024
