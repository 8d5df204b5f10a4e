"""What one-stage detectors share: a backbone, a dense head, and where wanted RoI heads on what was found.

Shapes: N images, L levels of Hi x Wi cells, Ri anchors of level i, R of all levels, K classes.
Input: a list of N dicts, each with "image" (C, H0, W0) in the range and channel order of INPUT.FORMAT;
"instances" in training; optionally "height" and "width" of the output.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from panomask.config import CfgNode
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.layers import ShapeSpec, sigmoid_focal_loss
from panomask.modeling.backbone import Backbone
from panomask.modeling.box_regression import BoxCoding
from panomask.modeling.dense_heads.dense_predictions import by_anchor, detect_in_image
from panomask.modeling.meta_arch.image_model import ImageModel, output_size, put_boxes_image
from panomask.modeling.postprocessing import detector_postprocess
from panomask.modeling.roi_heads import GivenBoxROIHeads, build_roi_heads
from panomask.structures import Boxes, ImageList, Instances


class DenseDetector(ImageModel):
    """Backbone and a head that predicts at every cell; subclasses say what is learnt and what is found.

    A subclass sets `num_classes`, `box2box_transform`, `focal_loss_alpha`, `focal_loss_gamma`,
    `test_score_thresh`, `test_topk_candidates`, `test_nms_thresh` and `max_detections_per_image`, which the
    methods here use, and defines `forward_training` and `forward_inference`.

    Args:
        backbone, pixel_mean, pixel_std: images to feature maps.
        head: L feature maps to predictions, several lists of one tensor a level.
        head_in_features: names of the maps that it takes, by default all, finest first.
        initial_normalizer: see `update_normalizer`.
        roi_heads: work on the boxes that were found, as on proposals: `GivenBoxROIHeads` adds masks and
            keypoints to them, `StandardROIHeads` makes this the first of two stages.
        input_format: channel order of the images, for drawing; needed with `vis_period`.
        vis_period: put an image of the best boxes into the event storage every so many training iterations;
            0: never.
    """

    num_classes: int
    box2box_transform: BoxCoding
    focal_loss_alpha: float
    focal_loss_gamma: float
    test_score_thresh: float
    test_topk_candidates: int
    test_nms_thresh: float
    max_detections_per_image: int
    loss_normalizer: torch.Tensor
    roi_heads: Any

    training_buffers = ("loss_normalizer",)
    """What training changes outside of parameters and state dict; a run that is resumed needs it."""

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        initial_normalizer: float = 1.0,
        roi_heads: nn.Module | None = None,
        input_format: str | None = None,
        vis_period: int = 0,
    ):
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        assert vis_period == 0 or input_format is not None, "input_format is needed for drawing"
        self.head = head
        shapes = backbone.output_shape()
        if head_in_features is None:
            head_in_features = sorted(shapes, key=lambda name: shapes[name].stride or 0)
        self.head_in_features = list(head_in_features)
        self.initial_normalizer = initial_normalizer
        self.register_buffer("loss_normalizer", torch.tensor(float(initial_normalizer)), persistent=False)
        self.roi_heads = roi_heads
        self.input_format = input_format
        self.vis_period = vis_period

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor] | list[dict[str, Instances]]:
        """In training a dict of losses, to be added up. Otherwise N dicts {"instances": Instances} of the
        output size, with `pred_boxes`, `scores`, `pred_classes`, and what the RoI heads add.
        """
        images = self.preprocess_image(batched_inputs)
        if self.training:
            return self._train(images, batched_inputs)
        features = self.backbone(images.tensor)
        maps = [features[name] for name in self.head_in_features]
        results = self.forward_inference(images, maps, self.head(maps))
        if self.roi_heads is not None:
            results, _ = self.roi_heads(images, features, _as_proposals(results, with_classes=True), None)
        sized = zip(results, batched_inputs, images.image_sizes, strict=True)
        return [{"instances": detector_postprocess(x, *output_size(y, size))} for x, y, size in sized]

    def _train(self, images: ImageList, batched_inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        # Moved to the device before the backbone's work is queued there, which it would wait for.
        gt_instances = self._ground_truth(batched_inputs)
        if gt_instances is None:
            raise InputError(
                f"{type(self).__name__} learns from 'instances', which an input does not have; train it on a"
                " data set with objects"
            )
        features = self.backbone(images.tensor)
        maps = [features[name] for name in self.head_in_features]
        predictions = self.head(maps)
        losses = self.forward_training(images, maps, predictions, gt_instances)
        is_drawn = self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0
        if self.roi_heads is None and not is_drawn:
            return losses
        with torch.no_grad():
            results = self.forward_inference(images, maps, predictions)
        if is_drawn:
            self.visualize_training(batched_inputs, results)
        if self.roi_heads is None:
            return losses
        proposals = _as_proposals(results, with_classes=False)
        _, further = self.roi_heads(images, features, proposals, gt_instances)
        # Both stages of a RetinaNet with a box head have a loss_cls and a loss_box_reg.
        renamed = {f"{name}_roi" if name in losses else name: loss for name, loss in further.items()}
        return {**losses, **renamed}

    def forward_training(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
        gt_instances: list[Instances],
    ) -> dict[str, torch.Tensor]:
        """The losses.

        Args:
            images: N images; their sizes without padding are what is used.
            features: L maps (N, C, Hi, Wi).
            predictions: of the head.
            gt_instances: N `Instances` with `gt_boxes` and `gt_classes`.
        """
        raise NotImplementedError

    def forward_inference(
        self,
        images: ImageList,
        features: list[torch.Tensor],
        predictions: tuple[list[torch.Tensor], ...],
    ) -> list[Instances]:
        """N `Instances` with `pred_boxes` in pixels of the input, `scores` and `pred_classes`, best first."""
        raise NotImplementedError

    def inference_single_image(
        self,
        anchors: list[Boxes],
        box_cls: list[torch.Tensor],
        box_delta: list[torch.Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """`detect_in_image` with the numbers of this detector.

        Args:
            anchors: per level (Ri, 4).
            box_cls: per level scores (Ri, K).
            box_delta: per level (Ri, 4).
            image_size: (height, width).
        """
        return detect_in_image(
            anchors,
            box_cls,
            box_delta,
            image_size,
            box_coding=self.box2box_transform,
            score_thresh=self.test_score_thresh,
            topk_per_level=self.test_topk_candidates,
            nms_thresh=self.test_nms_thresh,
            topk=self.max_detections_per_image,
        )

    def classification_loss(self, pred_logits: list[torch.Tensor], gt_labels: torch.Tensor) -> torch.Tensor:
        """Focal loss of all levels, summed; each by itself, so that the logits are not put together first.

        Args:
            pred_logits: per level (N, Ri, K).
            gt_labels: (N, R): 0..K-1, background K, ignored -1.
        """
        of_levels = gt_labels.split([logits.shape[1] for logits in pred_logits], dim=1)
        losses = [
            sigmoid_focal_loss(
                logits.flatten(0, 1), labels.flatten(), self.focal_loss_alpha, self.focal_loss_gamma
            )
            for logits, labels in zip(pred_logits, of_levels, strict=True)
        ]
        return torch.stack(losses).sum()

    def targets_of_matches(
        self, instances: Instances, matches: torch.Tensor, is_positive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class and box that each anchor of an image learns.

        Args:
            instances: M objects with `gt_boxes` and `gt_classes`.
            matches: (R,) int64, each anchor's object (0 for M = 0).
            is_positive: (R,) bool.

        Returns:
            (R,) int64 classes, K where not positive; and (R, 4) the objects' boxes.
        """
        # One entry more stands for background, and for the match of an image without objects.
        classes = F.pad(instances.gt_classes, (0, 1), value=self.num_classes)  # (M + 1,)
        boxes = F.pad(instances.gt_boxes.tensor, (0, 0, 0, 1))  # (M + 1, 4)
        return classes[torch.where(is_positive, matches, len(instances))], boxes[matches]

    @torch.no_grad()
    def update_normalizer(self, is_positive: torch.Tensor) -> torch.Tensor:
        """What losses are divided by: a moving average over steps of the number of positives in the batch.

        A batch with few of them then does not get large gradients. The average starts at
        `initial_normalizer`, and a step has the weight 0.1 in it.

        Args:
            is_positive: (N, R) bool.
        """
        num_positive = is_positive.sum()
        get_event_storage().put_scalar("num_pos_anchors", num_positive / len(is_positive))
        return self._ema_update("loss_normalizer", num_positive.clamp(min=1), self.initial_normalizer)

    def _ema_update(self, name: str, value: Any, initial_value: float, momentum: float = 0.9) -> Any:
        """The attribute `name` becomes its moving average with `value`; by the name that subclasses call."""
        # A new tensor, since the graph of another forward pass may still need the old one.
        average = momentum * getattr(self, name, initial_value) + (1 - momentum) * value
        setattr(self, name, average)
        return average

    def _transpose_dense_predictions(
        self, predictions: Sequence[Sequence[torch.Tensor]], dims_per_anchor: Sequence[int]
    ) -> list[list[torch.Tensor]]:
        """`by_anchor`, by the name that subclasses call."""
        return by_anchor(predictions, *dims_per_anchor)

    def visualize_training(
        self, batched_inputs: Sequence[dict[str, Any]], results: Sequence[Instances]
    ) -> None:
        """Put the batch's first image into the event storage, with its true boxes and its best detections."""
        assert self.input_format is not None, "input_format is needed for drawing"
        put_boxes_image(
            "Left: GT bounding boxes;  Right: Highest Scoring Results",
            batched_inputs[0],
            results[0].pred_boxes,
            self.input_format,
        )


def _as_proposals(detections: Sequence[Instances], *, with_classes: bool) -> list[Instances]:
    """Detections with the fields that RoI heads know, and their classes and scores where they are taken over.

    The boxes are clipped to the image, as masks will be pasted into clipped ones.
    """
    proposals = []
    for found in detections:
        boxes = found.pred_boxes.clone()
        boxes.clip(found.image_size)
        given = Instances(
            found.image_size, proposal_boxes=boxes, objectness_logits=found.scores.logit(eps=1e-6)
        )
        if with_classes:
            given.scores, given.pred_classes = found.scores, found.pred_classes
        proposals.append(given[boxes.nonempty()])
    return proposals


def roi_heads_from_config(
    cfg: CfgNode, input_shape: dict[str, ShapeSpec], num_classes: int
) -> dict[str, Any]:
    """`roi_heads`, where there are masks or keypoints, and `max_detections_per_image`.

    For RoI heads that refine boxes, what is detected are proposals: MODEL.RPN.POST_NMS_TOPK_TEST of them.

    Raises:
        InputError: RoI heads for another number of classes than that of the detector.
    """
    max_detections = cfg.TEST.DETECTIONS_PER_IMAGE
    if not (cfg.MODEL.MASK_ON or cfg.MODEL.KEYPOINT_ON):
        return {"roi_heads": None, "max_detections_per_image": max_detections}
    if cfg.MODEL.ROI_HEADS.NUM_CLASSES != num_classes:
        raise InputError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, but the boxes are of the"
            f" {num_classes} classes of a {cfg.MODEL.META_ARCHITECTURE}; set it to {num_classes}"
        )
    roi_heads = build_roi_heads(cfg, input_shape)
    if not isinstance(roi_heads, GivenBoxROIHeads):
        max_detections = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    return {"roi_heads": roi_heads, "max_detections_per_image": max_detections}
