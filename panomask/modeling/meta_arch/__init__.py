"""Whole models."""

from panomask.modeling.meta_arch.build import build_model
from panomask.modeling.meta_arch.dense_detector import DenseDetector
from panomask.modeling.meta_arch.fcos import FCOS
from panomask.modeling.meta_arch.panoptic_fpn import PanopticFPN
from panomask.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork
from panomask.modeling.meta_arch.retinanet import RetinaNet
from panomask.modeling.meta_arch.semantic_seg import SemanticSegmentor, build_sem_seg_head
from panomask.registry import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

__all__ = [
    "FCOS",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "DenseDetector",
    "GeneralizedRCNN",
    "PanopticFPN",
    "ProposalNetwork",
    "RetinaNet",
    "SemanticSegmentor",
    "build_model",
    "build_sem_seg_head",
]
