"""The same models here and in torchvision, with the same weights, and images for them.

No trained weights are needed: drawn at random on the right scale they find as many objects as a trained
model, if senseless ones, and so the work behind the network is there too.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, RoIAlign

from panomask import model_zoo
from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode
from panomask.layers import Conv2d, Linear, ROIAlign
from panomask.modeling import build_model

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_3x.yaml"
NUM_TORCHVISION_CLASSES = 91

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PIXELS = [
    *("INPUT.FORMAT", "RGB"),
    *("MODEL.PIXEL_MEAN", [255 * x for x in _IMAGENET_MEAN]),
    *("MODEL.PIXEL_STD", [255 * x for x in _IMAGENET_STD]),
]
_LIKE_TORCHVISION = [
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
]
_GAINS = {
    "head.cls_score": 0.5,
    "classification_head.cls_logits": 0.5,
    "layer_blocks": 0.15,
    "fpn_output": 0.15,
    "bbox": 0.15,
    "anchor_deltas": 0.15,
    "cls_score": 1.5,
    "cls_logits": 1.5,
    "objectness": 1.5,
}
"""What weights are multiplied by beside their usual scale, by a part of the layer's name."""


def zoo_config(name: str, device: str, *overrides: Any) -> CfgNode:
    """A config of the zoo without weights, for RGB images in the range that torchvision's models take."""
    cfg = model_zoo.get_config(name)
    cfg.merge_from_list(["MODEL.WEIGHTS", "", "MODEL.DEVICE", device, *_PIXELS, *overrides])
    return cfg


def torchvision_mask_rcnn(device: str, **kwargs: Any) -> nn.Module:
    """torchvision's Mask R-CNN R50-FPN with its usual frozen norms and trained stages, weights spread."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model = MaskRCNN(backbone, NUM_TORCHVISION_CLASSES, **kwargs)
    return spread_weights(model).to(device)


def mask_rcnn_like(reference: nn.Module, device: str, *overrides: Any) -> tuple[CfgNode, nn.Module]:
    """Our Mask R-CNN with the weights of torchvision's, and its config."""
    cfg = zoo_config(MASK_RCNN, device, *_LIKE_TORCHVISION, *overrides)
    model = build_model(cfg)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "torchvision.pth"
        torch.save(reference.state_dict(), path)
        DetectionCheckpointer(model).load(str(path), match="parameters")
    return cfg, model


@torch.no_grad()
def spread_weights(model: nn.Module) -> nn.Module:
    """Draw weights that keep activations of one size and make detections of all scores. Returns the model."""
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            gain = next((value for part, value in _GAINS.items() if part in name), 1.0)
            std = gain * math.sqrt(2 / module.weight[0].numel())
            module.weight.copy_(std * torch.randn(module.weight.shape, generator=generator))
        elif type(module).__name__ == "FrozenBatchNorm2d":
            # The last norm of a residual block: the sums of blocks would grow otherwise.
            is_last = name.endswith(("bn3", "conv3.norm"))
            module.weight.fill_(0.25 if is_last else 1.0)  # type: ignore[operator,union-attr]
    return model


def plain_eager(model: nn.Module) -> nn.Module:
    """Take out what makes a model of ours quicker than plain modules are; returns it. Its numbers stay.

    Norms run by themselves, since one that is watched is not folded; RoIAlign is torchvision's; products of
    matrices are torch's. The memory format is that of MODEL.CHANNELS_LAST.
    """
    for module in list(model.modules()):
        if isinstance(module, Conv2d) and module.norm is not None:
            module.norm.register_forward_pre_hook(lambda *_: None)
        for name, child in module.named_children():
            if isinstance(child, Linear):
                child.__class__ = nn.Linear  # type: ignore[assignment]
            elif type(child) is ROIAlign:
                size, scale = child.output_size, child.spatial_scale
                setattr(module, name, RoIAlign(size, scale, child.sampling_ratio, child.aligned))
    return model


def smooth_image(size: tuple[int, int], seed: int = 0) -> Tensor:
    """(3, H, W) uint8: blobs of random colours, some sixteen pixels wide."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, size[0] // 16 + 2, size[1] // 16 + 2, generator=generator)
    return (255 * F.interpolate(coarse, size=size, mode="bilinear")[0]).to(torch.uint8)
