"""torchvision's ImageNet ResNets and its Faster, Mask and Keypoint R-CNN, in our names and layout.

What differs besides names: torchvision's class 0 is the background, ours is the last; its COCO models have a
row for each of the 91 category ids, ours for the 80 that exist. What no weight can hold is left to the config
and said in notes: colours, strides, RoIAlign, and anchors, which torchvision rounds to whole pixels (up to
half a pixel of difference before the second stage).
"""

from collections.abc import Mapping

import torch

from panomask.checkpoint.caffe2_names import rename_by_rules

_ABSENT_COCO_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids from 1 to 90 that COCO's instance annotations do not use."""

_COCO_ROWS = [i for i in range(1, 91) if i not in _ABSENT_COCO_IDS]
"""Rows of torchvision's 91 (0 is the background) in the order of the 80 contiguous classes."""

_OLD_EPS = 1e-5

_RESNET_RULES = (
    (r"^(?=conv1\.|bn1\.|fc\.)", "stem."),
    (r"^layer([1-4])\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\bbn([1-3])\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)

_DETECTION_RULES = (
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.", lambda match: f"backbone.fpn_lateral{int(match[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.", lambda match: f"backbone.fpn_output{int(match[1]) + 2}."),
    (r"^(backbone\.fpn_\w+)\.0\.", r"\1."),
    (r"^(backbone\.fpn_\w+)\.1\.", r"\1.norm."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"proposal_generator.rpn_head.conv.conv\1."),
    (r"^rpn\.head\.conv\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box_head.fc2."),
    (r"^roi_heads\.box_head\.(\d)\.0\.", lambda match: f"roi_heads.box_head.conv{int(match[1]) + 1}."),
    (r"^roi_heads\.box_head\.(\d)\.1\.", lambda match: f"roi_heads.box_head.conv{int(match[1]) + 1}.norm."),
    (r"^roi_heads\.box_head\.\d\.(?=weight$|bias$)", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.mask_head\.(\d)\.0\.", lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}."),
    (
        r"^roi_heads\.mask_head\.(\d)\.1\.",
        lambda match: f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.norm.",
    ),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_heads.mask_head.deconv."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_heads.mask_head.predictor."),
    (
        r"^roi_heads\.keypoint_head\.(\d+)\.",
        lambda match: f"roi_heads.keypoint_head.conv_fcn{int(match[1]) // 2 + 1}.",
    ),
    (r"^roi_heads\.keypoint_predictor\.kps_score_lowres\.", "roi_heads.keypoint_head.score_lowres."),
)

_COLOURS = (
    "trained on RGB images: set INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [123.675,116.28,103.53], "
    "MODEL.PIXEL_STD [58.395,57.12,57.375] and MODEL.RESNETS.STRIDE_IN_1X1 False"
)


def is_resnet(keys: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are names of torchvision's ImageNet ResNets (ResNeXt too)."""
    return "conv1.weight" in keys and "layer1.0.conv1.weight" in keys


def is_detector(keys: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are names of torchvision's R-CNN family with a ResNet and FPN."""
    return "backbone.body.conv1.weight" in keys and "rpn.head.cls_logits.weight" in keys


def convert_resnet(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Names of the backbone, without what stands before `stem.` and `res2.` in a model; and what to know."""
    renamed = {rename_by_rules(key, _RESNET_RULES): value for key, value in weights.items()}
    return renamed, [f"torchvision's ImageNet weights were {_COLOURS}"]


def convert_detector(
    weights: Mapping[str, torch.Tensor], num_classes: int | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Names and layout of Faster, Mask and Keypoint R-CNN with FPN.

    Args:
        weights: a state dict of torchvision, also of those (until 0.12) whose layers have older names.
        num_classes: of the model to be filled. 91 rows become COCO's 80 classes unless it is 90.

    Returns:
        (weights by our names, what to know about them)
    """
    is_old = "rpn.head.conv.weight" in weights
    has_heads = any(key.startswith("roi_heads.") for key in weights)
    num_rows = weights["roi_heads.box_predictor.cls_score.weight"].shape[0] if has_heads else 0
    notes = [
        f"torchvision's detectors were {_COLOURS}, in all heads POOLER_TYPE ROIAlign and "
        "POOLER_SAMPLING_RATIO 2; its anchors are rounded to whole pixels, ours are not"
    ]
    rows = list(range(1, num_rows))
    if num_rows == 91 and num_classes != 90:
        rows = _COCO_ROWS
        notes.append("91 rows of classes, one for each category id of COCO, became the 80 classes of COCO")
    renamed: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        name = _rename_detector(key, has_deep_rpn="rpn.head.conv.1.0.weight" in weights)
        renamed[name] = _our_rows(name, value, rows)
        if is_old and name.endswith("norm.running_var"):
            # The published files of that time were trained with an epsilon of 0; our layers add 1e-5.
            renamed[name] = renamed[name] - _OLD_EPS
    return renamed, notes


def _rename_detector(key: str, *, has_deep_rpn: bool) -> str:
    if key.startswith("backbone.body."):
        return "backbone.bottom_up." + rename_by_rules(key.removeprefix("backbone.body."), _RESNET_RULES)
    name = rename_by_rules(key, _DETECTION_RULES)
    return name if has_deep_rpn else name.replace("rpn_head.conv.conv0.", "rpn_head.conv.")


def _our_rows(name: str, value: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """The classes of `rows` and then, in the classifier, the background."""
    if name.startswith("roi_heads.box_predictor.cls_score."):
        return value[rows + [0]]
    if name.startswith("roi_heads.box_predictor.bbox_pred."):
        return value.unflatten(0, (-1, 4))[rows].flatten(0, 1)
    if name.startswith("roi_heads.mask_head.predictor."):
        return value[rows]
    return value
