"""Whole models."""

from panomask.modeling.meta_arch.build import build_model
from panomask.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork
from panomask.registry import META_ARCH_REGISTRY

__all__ = ["META_ARCH_REGISTRY", "GeneralizedRCNN", "ProposalNetwork", "build_model"]
