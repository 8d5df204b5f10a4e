"""A timm model that returns feature maps: found by its name, checked, built, loaded, frozen in part."""

import importlib
import inspect
import logging
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from panomask.addresses import cache_folder
from panomask.errors import InputError, nearest_names

KEY = "MODEL.BACKBONE.NAME"

ANY_SIZE = {"strict_img_size": False, "dynamic_img_size": True, "dynamic_img_pad": True}
"""What lets transformers take images of any size: given to those models that have the option."""

PROBE_SIZE = (1, 3, 256, 320)
"""A batch that is not square: models of a fixed size do not take it."""

MAX_REASON = 300
"""So many characters of an error of timm's are quoted."""

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)

logger = logging.getLogger(__name__)


def import_timm(name: str) -> ModuleType:
    """The package timm; InputError where it is not installed."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise InputError(
            f"{KEY}: timm/{name} needs the package timm: pip install 'panomask[timm]'"
        ) from error


def check_name(timm: ModuleType, name: str) -> None:
    """InputError unless timm knows the model, and has weights of the tag if there is one."""
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        near = ", ".join(nearest_names(model, timm.list_models())) or "none"
        raise InputError(f"{KEY}: timm knows no model {model!r}; nearest: {near}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag not in ("", *tags):
        raise InputError(
            f"{KEY}: timm has no weights {tag!r} of {model}; known: {', '.join(tags) or 'none'};"
            f" timm/{model} alone means random weights"
        )


def offer_maps(timm: ModuleType, name: str, *, dilation: int) -> tuple[Any, dict[str, Any]]:
    """What maps a model has, and the options to build it with, asked of one without memory ("meta").

    Args:
        timm: the package.
        name: "<model>" or "<model>.<tag>".
        dilation: 2 if the last stage shall keep the resolution of the one before it, else 1.

    Returns:
        timm's `FeatureInfo` of the undilated model, and keywords for `timm.create_model`.

    Raises:
        InputError: timm makes no feature maps of it, not with this dilation, or not of images of any size.
    """
    with torch.device("meta"):
        known = inspect.signature(type(_create(timm, name)).__init__).parameters
        options: dict[str, Any] = {key: value for key, value in ANY_SIZE.items() if key in known}
        net = _create(timm, name, features_only=True, **options)
        _check_any_size(net, name)
        if dilation == 2:
            options["output_stride"] = 16
            _create(timm, name, features_only=True, **options)
    return net.feature_info, options


def _create(timm: ModuleType, name: str, **options: Any) -> Any:
    """The model without weights; InputError where timm cannot make feature maps of it."""
    try:
        return timm.create_model(name, **options)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        dilation = " with MODEL.RESNETS.RES5_DILATION 2" if "output_stride" in options else ""
        reason = _reason(error)
        raise InputError(
            f"{KEY}: timm cannot make feature maps of {name}{dilation} ({reason}); choose another model"
        ) from error


def _check_any_size(net: nn.Module, name: str) -> None:
    """InputError unless `net`, on the device "meta", takes an image of an arbitrary multiple of 32 pixels."""
    try:
        net.eval()(torch.zeros(PROBE_SIZE))  # in training, batch norms refuse a single value
    except (AssertionError, RuntimeError) as error:
        reason = _reason(error)
        raise InputError(
            f"{KEY}: timm/{name} does not take images of any size ({reason}); choose another model"
        ) from error


def nearest_map(info: Any, stride: int) -> int:
    """The deepest map among those whose stride is nearest to `stride`, as an index into `info`."""
    reductions = info.reduction(list(range(len(info))))
    return min(range(len(info)), key=lambda i: (abs(math.log2(reductions[i] / stride)), -i))


def create_model(
    timm: ModuleType, name: str, options: dict[str, Any], *, indices: Sequence[int], is_pretrained: bool
) -> Any:
    """The model that returns the maps `indices` in this order, with the weights of its tag or random ones.

    Raises:
        InputError: the weights lie neither in the cache folder nor can timm fetch them, or do not fit.
    """
    options = {**options, "out_indices": list(indices)}
    if not is_pretrained:
        return _create(timm, name, features_only=True, **options)
    path = cache_folder() / "timm" / f"{name}.safetensors"
    source = {"pretrained_cfg_overlay": {"file": str(path)}} if path.is_file() else {}
    safetensors_error = importlib.import_module("safetensors").SafetensorError
    try:
        net = timm.create_model(name, features_only=True, pretrained=True, **source, **options)
    except (OSError, RuntimeError, safetensors_error) as error:
        if source:
            raise InputError(f"{path}: not the weights of timm/{name} ({_reason(error)})") from error
        raise InputError(
            f"{KEY}: the weights of timm/{name} cannot be fetched ({_reason(error)}); place model.safetensors"
            f" of the Hugging Face hub's timm/{name} as {path}; or leave out the tag, for random weights"
        ) from error
    logger.info(f"timm/{name}: pretrained weights {f'of {path}' if source else 'as timm keeps them'}")
    return net


def set_norms(timm: ModuleType, net: Any, norm: str) -> Any:
    """`net` with its batch norms frozen ("FrozenBN"), synchronised ("SyncBN") or as they are ("BN")."""
    if norm == "FrozenBN":
        return timm.layers.freeze_batch_norm_2d(net)
    return timm.layers.convert_sync_batchnorm(net) if norm == "SyncBN" else net


def freeze(timm: ModuleType, net: nn.Module, info: Any, freeze_at: int) -> None:
    """Stop training, in place, the stem (`freeze_at` 1), also the stage that makes res2 (2), and so on.

    A part is what comes up to a stage among the net's modules, which timm lists in the order they run in.
    """
    if freeze_at < 1:
        return
    stride = 2 ** max(freeze_at, 2)
    index = nearest_map(info, stride)
    is_own = info.reduction(index) == stride
    if freeze_at == 1 and not is_own:
        index = 0  # a plain vision transformer: what comes before its first block
    stage = info.module_name(index).replace(".", "_") + "_"  # timm may flatten a path into one name
    names = [name for name, _ in net.named_modules() if name]
    inside = [
        idx
        for idx, name in enumerate(names)
        if f"{name.removeprefix('model.').replace('.', '_')}_".startswith(stage)
    ]
    if not inside or not (is_own or freeze_at == 1):
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_AT: {freeze_at}: this timm model has no stage of its own that ends at"
            f" stride {stride}; set it to 0, to train everything"
        )
    for name in names[: inside[0] if freeze_at == 1 else inside[-1] + 1]:
        module = net.get_submodule(name)
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False
        if isinstance(module, BATCH_NORMS):
            parent, _, leaf = name.rpartition(".")
            net.get_submodule(parent).add_module(leaf, timm.layers.freeze_batch_norm_2d(module))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
