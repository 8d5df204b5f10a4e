"""From a config to a model on its device."""

import os
import shutil
from types import MethodType

import torch
from torch import nn

from panomask.config import CfgNode, check_supported
from panomask.errors import InputError
from panomask.layers import resolve_device
from panomask.registry import META_ARCH_REGISTRY

COMPILERS = [os.environ.get("CXX", "c++"), "g++", "clang++", "cl"]
"""What torch.compile may use."""

COMPILED = {"backbone", "rpn_head", "head", "res5", "box_head"}
"""Attributes that hold networks from tensors to tensors: what MODEL.COMPILE compiles."""

COMPILED_LAYERS = {"mask_head", "keypoint_head", "sem_seg_head"}
"""Those that also compute their loss and their predictions: of these, the method `layers`."""


def build_model(cfg: CfgNode) -> nn.Module:
    """The model that MODEL.META_ARCHITECTURE names, with fresh weights, on MODEL.DEVICE.

    The device "cuda" means the CPU on a machine without a GPU. With MODEL.CHANNELS_LAST the weights of
    convolutions, and with them the feature maps, are laid out as (N, H, W, C); shapes and checkpoints stay.

    Raises:
        InputError: a key that this version does not obey is away from its default, a name is unknown, or
            MODEL.COMPILE finds no compiler.
    """
    check_supported(cfg)
    device = resolve_device(cfg.MODEL.DEVICE)
    if cfg.MODEL.COMPILE and device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise InputError(
            f"MODEL.COMPILE needs a C++ compiler on the CPU, and none of {', '.join(COMPILERS)} is found:"
            " install one, or set MODEL.COMPILE False"
        )
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    if cfg.MODEL.CHANNELS_LAST:
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    model.to(device)
    if cfg.MODEL.COMPILE:
        compile_networks(model)
    return model


def compile_networks(model: nn.Module) -> None:
    """Have torch compile the backbone and the heads when they are first called, for images of every size."""
    for name, module in list(model.named_modules()):
        attribute = name.rpartition(".")[2]
        parts = list(module.children()) if isinstance(module, nn.ModuleList) else [module]  # of a cascade
        for part in parts:
            if attribute in COMPILED:
                part.compile(dynamic=True)
            elif attribute in COMPILED_LAYERS and callable(layers := getattr(type(part), "layers", None)):
                # A method, not a function: a copy of the head must run its own weights.
                part.layers = MethodType(torch.compile(layers, dynamic=True), part)  # type: ignore
