"""Convolution, norm, RoI pooling, NMS, losses, mask pasting: pure functions and small modules."""

from torch.nn import BatchNorm2d, ConvTranspose2d
from torch.nn.functional import interpolate
from torchvision.ops import RoIPool as ROIPool
from torchvision.ops import nms

from panomask.layers.batch_norm import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    SyncBatchNorm,
    get_norm,
)
from panomask.layers.blocks import CNNBlockBase, conv3x3_relu
from panomask.layers.deform_conv import DeformConv, ModulatedDeformConv
from panomask.layers.device import resolve_device
from panomask.layers.focal_loss import sigmoid_focal_loss
from panomask.layers.initialization import msra_fill, xavier_fill
from panomask.layers.linear import Linear
from panomask.layers.losses import ciou_loss, diou_loss, giou_loss, iou_loss, smooth_l1_loss
from panomask.layers.mask_paste import paste_masks_in_image
from panomask.layers.memory import retry_if_cuda_oom
from panomask.layers.roi_pooling import ROIAlign, ROIWarp
from panomask.layers.roi_sampling import roi_align
from panomask.layers.shape_spec import ShapeSpec
from panomask.layers.suppression import batched_nms
from panomask.layers.wrappers import (
    Conv2d,
    at_least_float32,
    cat,
    cross_entropy,
    empty_input_loss_func_wrapper,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)

__all__ = [
    "BatchNorm2d",
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "CycleBatchNormList",
    "DeformConv",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "Linear",
    "ModulatedDeformConv",
    "NaiveSyncBatchNorm",
    "ROIAlign",
    "ROIPool",
    "ROIWarp",
    "ShapeSpec",
    "SyncBatchNorm",
    "at_least_float32",
    "batched_nms",
    "cat",
    "ciou_loss",
    "conv3x3_relu",
    "cross_entropy",
    "diou_loss",
    "empty_input_loss_func_wrapper",
    "get_norm",
    "giou_loss",
    "interpolate",
    "iou_loss",
    "move_device_like",
    "msra_fill",
    "nms",
    "nonzero_tuple",
    "paste_masks_in_image",
    "resolve_device",
    "retry_if_cuda_oom",
    "roi_align",
    "shapes_to_tensor",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "xavier_fill",
]
