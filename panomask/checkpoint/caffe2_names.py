"""The names of Caffe2 and Detectron1 blobs, and of Microsoft's ImageNet ResNets (`R-50.pkl`), in ours.

`res2_0_branch2a_w` is `res2.0.conv1.weight`; `res2_0_branch2a_bn_s` is `res2.0.conv1.norm.weight`. What
stands in front in a model (`backbone.bottom_up.`) is found by the endings of names, see `alignment.py`.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch

Replacement = str | Callable[[re.Match[str]], str]

_BLOB = re.compile(r"[\w\[\]]+_(w|b|s|beta|gamma|riv|rm|running_mean|running_var|bias)")

_BASIC_RULES = (
    (r"^pred_(?=[wb]$)", "linear_"),
    (r"_", "."),
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"\b(?:bn\.(?:s|gamma)|gn\.s)$", "norm.weight"),
    (r"\b(?:bn\.(?:bias|beta)|gn\.bias)$", "norm.bias"),
    (r"\bbn\.(?:rm|running\.mean)$", "norm.running_mean"),
    (r"\bbn\.(?:riv|running\.var)$", "norm.running_var"),
    (r"^(?:res\.)?conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
)
"""Applied one after the other to the name of a blob, for all networks."""

_DETECTION_RULES = (
    (r"^conv\.rpn(?:\.fpn2)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.bbox\.pred(?:\.fpn2)?\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^rpn\.cls\.logits(?:\.fpn2)?\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^fpn\.inner\.res(\d)\.\d+\.sum\.(?:lateral\.)?", r"fpn_lateral\1."),
    (r"^fpn\.res(\d)\.\d+\.sum\.", r"fpn_output\1."),
    (r"^bbox\.pred\.", "bbox_pred."),
    (r"^cls\.score\.", "cls_score."),
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head\.conv(?=\d)", "box_head.conv"),
    (r"^\.?\[mask\]\.fcn(?=\d)", "mask_head.mask_fcn"),
    (r"^mask\.fcn\.logits\.", "mask_head.predictor."),
    (r"^conv5\.mask\.", "mask_head.deconv."),
    (r"^conv\.fcn(?=\d)", "roi_heads.keypoint_head.conv_fcn"),
    (r"^kps\.score\.lowres\.", "roi_heads.keypoint_head.score_lowres."),
    (r"^kps\.score\.", "roi_heads.keypoint_head.score."),
)
"""Applied after the basic ones, for detectors."""


def is_caffe2(keys: Sequence[str]) -> bool:
    """Whether these are names of blobs: no dots, and the endings of Caffe2."""
    return bool(keys) and all("." not in key for key in keys) and any(_BLOB.fullmatch(key) for key in keys)


def convert_basic_c2_names(original_keys: Sequence[str]) -> list[str]:
    """The names of a ResNet's blobs in ours, in the same order."""
    return [rename_by_rules(key, _BASIC_RULES) for key in original_keys]


def convert_c2_detectron_names(
    weights: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Names and layout of Detectron1: there the background is class 0, here it is the last.

    Its row of the classifier moves to the end; its rows of the box and mask predictors are left out, as
    nothing reads them.

    Returns:
        (our names -> weights, our names -> names in the file)
    """
    renamed: dict[str, torch.Tensor] = {}
    original: dict[str, str] = {}
    keys = sorted(weights)
    for key, basic in zip(keys, convert_basic_c2_names(keys), strict=True):
        name = rename_by_rules(basic, _DETECTION_RULES)
        renamed[name] = _background_last(name, weights[key])
        original[name] = key
    return renamed, original


def _background_last(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name.startswith("cls_score."):
        return torch.cat([weight[1:], weight[:1]])
    if name.startswith("bbox_pred."):
        return weight[4:]
    if name.startswith("mask_head.predictor."):
        return weight[1:]
    return weight


def rename_by_rules(name: str, rules: Sequence[tuple[str, Replacement]]) -> str:
    """`name` after each (pattern, replacement) of `re.sub`, in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
