"""Two-stage detectors: backbone, proposals, RoI heads; and the first two alone.

Shapes: N images, C image channels, H x W padded image.
Input: a list of N dicts, each with "image" (C, H0, W0) in the range and channel order of INPUT.FORMAT;
"instances" in training; optionally "height" and "width" of the output, and "proposals".
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.modeling.backbone import Backbone, build_backbone
from panomask.modeling.meta_arch.image_model import ImageModel, output_size, put_boxes_image
from panomask.modeling.postprocessing import detector_postprocess
from panomask.modeling.proposal_generator import build_proposal_generator
from panomask.modeling.roi_heads import build_roi_heads
from panomask.registry import META_ARCH_REGISTRY
from panomask.structures import ImageList, Instances


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(ImageModel):
    """Backbone, region proposals, and heads on the proposals (Faster R-CNN, Mask R-CNN and their kin).

    Args:
        backbone, pixel_mean, pixel_std: images to feature maps.
        proposal_generator: feature maps to proposals; None: the input's "proposals" are used.
        roi_heads: feature maps and proposals to detections.
        input_format: channel order of the images, for drawing; needed with `vis_period`.
        vis_period: put an image of the best proposals into the event storage every so many training
            iterations; 0: never.
    """

    roi_heads: Any

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ):
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        assert vis_period == 0 or input_format is not None, "input_format is needed for drawing"
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, backbone.output_shape()),
            "roi_heads": build_roi_heads(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """In training a dict of losses, to be added up; otherwise see `inference`."""
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = self._ground_truth(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self._propose(images, features, batched_inputs, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Detect.

        Args:
            batched_inputs: N dicts, see the top of this file.
            detected_instances: N `Instances` with `pred_boxes` and `pred_classes`, in pixels of the input:
                only the per-box outputs (masks, keypoints) are predicted then, in these boxes.
            do_postprocess: bring the results to the output size.

        Returns:
            N dicts {"instances": Instances}, each of its input's "height" x "width" (by default the image's
            size); without post-processing N `Instances` as the heads return them.
        """
        assert not self.training, "inference needs eval mode"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals, _ = self._propose(images, features, batched_inputs, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def _propose(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        batched_inputs: list[dict[str, Any]],
        gt_instances: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        if self.proposal_generator is not None:
            return self.proposal_generator(images, features, gt_instances)
        if "proposals" not in batched_inputs[0]:
            raise InputError(
                "an input has no 'proposals', which MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals"
                " takes; set MODEL.LOAD_PROPOSALS True and DATASETS.PROPOSAL_FILES_TRAIN and _TEST, or RPN"
            )
        return [self._move(x["proposals"]) for x in batched_inputs], {}

    @staticmethod
    def _postprocess(
        instances: Sequence[Instances],
        batched_inputs: Sequence[dict[str, Any]],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Instances]]:
        results = zip(instances, batched_inputs, image_sizes, strict=True)
        return [{"instances": _to_output_size(*result)} for result in results]

    def visualize_training(
        self, batched_inputs: Sequence[dict[str, Any]], proposals: Sequence[Instances]
    ) -> None:
        """Put the batch's first image into the event storage, with its true boxes and its best proposals."""
        assert self.input_format is not None, "input_format is needed for drawing"
        put_boxes_image(
            "Left: GT bounding boxes;  Right: Predicted proposals",
            batched_inputs[0],
            proposals[0].proposal_boxes,
            self.input_format,
        )


@META_ARCH_REGISTRY.register()
class ProposalNetwork(ImageModel):
    """Backbone and proposal generator alone.

    Args:
        backbone, pixel_mean, pixel_std: images to feature maps.
        proposal_generator: feature maps to proposals.

    Raises:
        InputError: no proposal generator.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        if proposal_generator is None:
            raise InputError(
                "MODEL.META_ARCHITECTURE is ProposalNetwork, which makes proposals, but"
                " MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals; set it to RPN"
            )
        self.proposal_generator = proposal_generator

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """In training a dict of losses; otherwise N dicts {"proposals": Instances} of the output size."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        gt_instances = self._ground_truth(batched_inputs)
        proposals, losses = self.proposal_generator(images, features, gt_instances)
        if self.training:
            return losses
        results = zip(proposals, batched_inputs, images.image_sizes, strict=True)
        return [{"proposals": _to_output_size(*result)} for result in results]


def _to_output_size(
    instances: Instances, batched_input: dict[str, Any], image_size: tuple[int, int]
) -> Instances:
    return detector_postprocess(instances, *output_size(batched_input, image_size))
