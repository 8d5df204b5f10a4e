"""First stage: class-agnostic proposals from feature maps."""

from panomask.modeling.proposal_generator.build import build_proposal_generator
from panomask.modeling.proposal_generator.proposal_utils import (
    add_ground_truth_to_proposals,
    find_top_rpn_proposals,
)
from panomask.modeling.proposal_generator.rpn import RPN, StandardRPNHead, build_rpn_head
from panomask.registry import PROPOSAL_GENERATOR_REGISTRY, RPN_HEAD_REGISTRY

__all__ = [
    "PROPOSAL_GENERATOR_REGISTRY",
    "RPN",
    "RPN_HEAD_REGISTRY",
    "StandardRPNHead",
    "add_ground_truth_to_proposals",
    "build_proposal_generator",
    "build_rpn_head",
    "find_top_rpn_proposals",
]
