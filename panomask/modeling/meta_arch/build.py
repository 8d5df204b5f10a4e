"""From a config to a model on its device."""

import torch
from torch import nn

from panomask.config import CfgNode, check_supported
from panomask.layers import resolve_device
from panomask.registry import META_ARCH_REGISTRY

COMPILED = {"backbone", "rpn_head", "head", "res5", "box_head"}
"""Attributes that hold networks from tensors to tensors: what MODEL.COMPILE compiles."""

COMPILED_BY_LAYER = {"mask_head", "keypoint_head", "sem_seg_head"}
"""Those that also compute their loss and their predictions: their layers are compiled one by one."""


def build_model(cfg: CfgNode) -> nn.Module:
    """The model that MODEL.META_ARCHITECTURE names, with fresh weights, on MODEL.DEVICE.

    The device "cuda" means the CPU on a machine without a GPU. With MODEL.CHANNELS_LAST the weights of
    convolutions, and with them the feature maps, are laid out as (N, H, W, C); shapes and checkpoints stay.

    Raises:
        InputError: a key that this version does not obey is away from its default, or a name is unknown.
    """
    check_supported(cfg)
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    if cfg.MODEL.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    model.to(resolve_device(cfg.MODEL.DEVICE))
    if cfg.MODEL.COMPILE:
        compile_networks(model)
    return model


def compile_networks(model: nn.Module) -> None:
    """Have torch compile the backbone and the heads when they are first called, for images of every size."""
    for name, module in list(model.named_modules()):
        attribute = name.rpartition(".")[2]
        if attribute in COMPILED_BY_LAYER or (attribute in COMPILED and isinstance(module, nn.ModuleList)):
            parts = list(module.children())
        else:
            parts = [module] if attribute in COMPILED else []
        for part in parts:
            part.compile(dynamic=True)
