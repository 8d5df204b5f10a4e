"""Look up the proposal generator of a config."""

from torch import nn

from panomask.config import CfgNode
from panomask.layers import ShapeSpec
from panomask.registry import PROPOSAL_GENERATOR_REGISTRY


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module | None:
    """What MODEL.PROPOSAL_GENERATOR.NAME names; None for "PrecomputedProposals", which come with the data."""
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    return None if name == "PrecomputedProposals" else PROPOSAL_GENERATOR_REGISTRY.get(name)(cfg, input_shape)
