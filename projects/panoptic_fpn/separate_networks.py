"""Instance and semantic segmentation by two networks, the rival of a shared one (arXiv:1901.02446, table 3).

Shapes: N images, K semantic classes, H x W output.
"""

from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.modeling import GeneralizedRCNN, SemanticSegmentor
from panomask.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from panomask.registry import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class SeparatePanopticNetworks(nn.Module):
    """A Mask R-CNN and a semantic FPN, each with a backbone of its own, trained in one run and merged.

    They share the batches and the schedule, and no parameter. SOLVER.CLIP_GRADIENTS clips the gradient of
    each parameter by itself, so that neither network feels the other: each learns as in a run of its own.

    Args:
        detector: a `GeneralizedRCNN`, or what is called like one and predicts masks.
        segmentor: a `SemanticSegmentor`, or what is called like one.
        combine_overlap_thresh, combine_stuff_area_thresh, combine_instances_score_thresh: see
            `combine_semantic_and_instance_outputs`.
        combine: whether the output has a panoptic map.
    """

    networks = ("detector.", "segmentor.")
    """What stands before the names of each network in the state dict: MODEL.WEIGHTS fills both."""

    @configurable
    def __init__(
        self,
        *,
        detector: nn.Module,
        segmentor: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        combine: bool = True,
    ):
        super().__init__()
        self.detector = detector
        self.segmentor = segmentor
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh
        self.combine = combine

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        panoptic = cfg.MODEL.PANOPTIC_FPN
        if panoptic.INSTANCE_LOSS_WEIGHT != 1:
            raise InputError(
                f"MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT is {panoptic.INSTANCE_LOSS_WEIGHT}, but the"
                " detector of SeparatePanopticNetworks shares no weights with another task to be weighed"
                " against; set it to 1"
            )
        return {
            "detector": GeneralizedRCNN(cfg),
            "segmentor": SemanticSegmentor(cfg),
            "combine_overlap_thresh": panoptic.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": panoptic.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
            "combine": panoptic.COMBINE.ENABLED,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor] | list[dict[str, Any]]:
        """In training the losses of both networks, to be added up.

        Otherwise N dicts, each of its input's "height" x "width" (by default the image's size): "instances",
        "sem_seg" (K, H, W) logits and, if `combine`, "panoptic_seg", as `PanopticFPN` returns them.

        Raises:
            InputError: no "sem_seg" in an input of training.
        """
        detected, segmented = self.detector(batched_inputs), self.segmentor(batched_inputs)
        if self.training:
            return {**detected, **segmented}
        return [self._merge({**x, **y}) for x, y in zip(detected, segmented, strict=True)]

    def _merge(self, output: dict[str, Any]) -> dict[str, Any]:
        """The output for one image with its panoptic map, if that is asked for."""
        if not self.combine:
            return output
        panoptic_seg = combine_semantic_and_instance_outputs(
            output["instances"],
            output["sem_seg"].max(dim=0).indices,
            self.combine_overlap_thresh,
            self.combine_stuff_area_thresh,
            self.combine_instances_score_thresh,
        )
        return {**output, "panoptic_seg": panoptic_seg}
