"""From a config to a model on its device."""

from torch import nn

from panomask.config import CfgNode, check_supported
from panomask.layers import resolve_device
from panomask.registry import META_ARCH_REGISTRY


def build_model(cfg: CfgNode) -> nn.Module:
    """The model that MODEL.META_ARCHITECTURE names, with fresh weights, on MODEL.DEVICE.

    The device "cuda" means the CPU on a machine without a GPU.

    Raises:
        InputError: a key that this version does not obey is away from its default, or a name is unknown.
    """
    check_supported(cfg)
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(resolve_device(cfg.MODEL.DEVICE))
