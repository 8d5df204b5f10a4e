"""Second stage: sample proposals, pool their features, and run box, mask and keypoint heads on them.

Shapes: N images, L levels (N, C, Hi, Wi), R proposals of one image, M objects of one image, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.layers import ShapeSpec
from panomask.modeling.matcher import Matcher
from panomask.modeling.poolers import ROIPooler
from panomask.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from panomask.modeling.roi_heads.box_head import build_box_head
from panomask.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from panomask.modeling.roi_heads.keypoint_head import build_keypoint_head
from panomask.modeling.roi_heads.mask_head import build_mask_head
from panomask.modeling.sampling import subsample_indices
from panomask.registry import ROI_HEADS_REGISTRY
from panomask.structures import Boxes, ImageList, Instances, pairwise_iou


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """What MODEL.ROI_HEADS.NAME names, on feature maps of these shapes."""
    return ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)


def select_foreground_proposals(
    proposals: Sequence[Instances], bg_label: int
) -> tuple[list[Instances], list[torch.Tensor]]:
    """Each image's proposals that are matched with an object, and the (R,) bool masks that chose them.

    Where they come first, as in a sample of `ROIHeads`, they share memory with what is given.
    """
    if not proposals:
        return [], []
    masks = [(x.gt_classes != -1) & (x.gt_classes != bg_label) for x in proposals]
    # Slices, whose sizes come to the host in one transfer; choosing by a mask waits for every image.
    counts = [torch.stack([mask.sum(), mask.long().cumprod(dim=0).sum()]) for mask in masks]
    sizes = torch.stack(counts).tolist()  # (N, 2): how many there are, and how many lead
    return [
        x[:leading] if count == leading else x[mask]
        for x, mask, (count, leading) in zip(proposals, masks, sizes, strict=True)
    ], masks


def select_proposals_with_visible_keypoints(proposals: Sequence[Instances]) -> list[Instances]:
    """Each image's foreground proposals that hold at least one of their object's labelled keypoints.

    The others have nothing to teach a keypoint head: they neither reach it nor count in its loss.

    Args:
        proposals: N `Instances` of foreground alone with `proposal_boxes` and `gt_keypoints`; an image
            without proposals needs no fields.
    """
    selected = [x[_holds_a_keypoint(x)] if len(x) > 0 else x for x in proposals]
    counts = [len(chosen) for chosen, given in zip(selected, proposals, strict=True) if len(given) > 0]
    get_event_storage().put_scalar("keypoint_head/num_fg_samples", sum(counts) / max(len(counts), 1))
    return selected


def _holds_a_keypoint(proposals: Instances) -> torch.Tensor:
    """(R,) bool: whether a labelled keypoint lies in the box or on its border."""
    x, y, visibility = proposals.gt_keypoints.tensor.unbind(dim=2)  # (R, keypoints) each
    x0, y0, x1, y1 = proposals.proposal_boxes.tensor[:, :, None].unbind(dim=1)  # (R, 1) each
    return ((visibility >= 1) & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any(dim=1)


class ROIHeads(nn.Module):
    """What all second stages share: labelling and sampling of proposals. Subclasses define `forward`.

    Args:
        num_classes: K.
        batch_size_per_image: proposals sampled for training.
        positive_fraction: at most this part of them is foreground.
        proposal_matcher: labels proposals by their IoU with the objects.
        proposal_append_gt: add the true boxes to the proposals before sampling.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ):
        super().__init__()
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.num_classes = num_classes
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        heads = cfg.MODEL.ROI_HEADS
        return {
            "num_classes": heads.NUM_CLASSES,
            "batch_size_per_image": heads.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": heads.POSITIVE_FRACTION,
            "proposal_matcher": Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
            "proposal_append_gt": heads.PROPOSAL_APPEND_GT,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Detect.

        Args:
            images: N images.
            features: maps (N, C, Hi, Wi) by name.
            proposals: N `Instances` with `proposal_boxes` and `objectness_logits`.
            targets: N `Instances` with `gt_boxes`, `gt_classes` and what the heads need, in training.

        Returns:
            In training the sampled proposals and the losses; otherwise N detections and no losses.
        """
        raise NotImplementedError

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Match proposals with objects and draw the training sample.

        Args:
            proposals: N `Instances` with `proposal_boxes` and `objectness_logits`.
            targets: N `Instances` with `gt_boxes`, `gt_classes` and further `gt_*` fields.

        Returns:
            N `Instances` of at most `batch_size_per_image` proposals with `gt_classes` (K for background)
            and, in images with objects, every `gt_*` field of the matched object (meaningless for
            background).
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        samples = []
        num_fg = torch.zeros((), device=proposals[0].proposal_boxes.device)
        for image_proposals, image_targets in zip(proposals, targets, strict=True):
            iou = pairwise_iou(image_targets.gt_boxes, image_proposals.proposal_boxes)  # (M, R)
            matches, labels = self.proposal_matcher(iou)
            sampled_idx, gt_classes = self._sample_proposals(matches, labels, image_targets.gt_classes)
            sample = image_proposals[sampled_idx]
            sample.gt_classes = gt_classes
            if len(image_targets) > 0:
                sampled_targets = matches[sampled_idx]
                for name, value in image_targets.get_fields().items():
                    if name.startswith("gt_") and not sample.has(name):
                        sample.set(name, value[sampled_targets])
            num_fg += (gt_classes != self.num_classes).sum()
            samples.append(sample)

        storage = get_event_storage()
        mean_fg = num_fg / len(samples)
        mean_samples = sum(len(sample) for sample in samples) / len(samples)
        storage.put_scalar("roi_head/num_fg_samples", mean_fg)
        storage.put_scalar("roi_head/num_bg_samples", mean_samples - mean_fg)
        return samples

    def _sample_proposals(
        self, matched_idxs: torch.Tensor, matched_labels: torch.Tensor, gt_classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the sample of one image; projects override this to sample otherwise.

        Args:
            matched_idxs, matched_labels: (R,) each, as `Matcher` returns them.
            gt_classes: (M,).

        Returns:
            Indices of the sampled proposals, foreground first, and their classes (K for background).
        """
        if gt_classes.numel() > 0:
            classes = gt_classes[matched_idxs]
            classes = classes.masked_fill(matched_labels == 0, self.num_classes)
            classes = classes.masked_fill(matched_labels == -1, -1)
        else:
            classes = torch.full_like(matched_idxs, self.num_classes)
        sampled_idx = subsample_indices(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        return sampled_idx, classes[sampled_idx]


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(ROIHeads):
    """Heads that each pool for themselves; masks and keypoints are predicted in the boxes that were found.

    Args:
        box_in_features: names of the feature maps of the box head.
        box_pooler, box_head, box_predictor: RoI features, to vectors, to scores and deltas; None in
            subclasses whose `_forward_box` needs none.
        mask_in_features, mask_pooler, mask_head: likewise; None for no masks. A head without a pooler gets
            the dict of feature maps.
        keypoint_in_features, keypoint_pooler, keypoint_head: likewise, for keypoints.
        train_on_pred_boxes: train mask and keypoint heads in predicted boxes instead of proposals.
        kwargs: of `ROIHeads`.
    """

    box_pooler: Any
    box_head: Any
    box_predictor: Any
    mask_pooler: nn.Module | None
    mask_head: Any
    keypoint_pooler: nn.Module | None
    keypoint_head: Any

    @configurable
    def __init__(
        self,
        *,
        box_in_features: Sequence[str] = (),
        box_pooler: ROIPooler | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.in_features = self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if mask_in_features is not None:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.keypoint_on = keypoint_in_features is not None
        if keypoint_in_features is not None:
            self.keypoint_in_features = list(keypoint_in_features)
            self.keypoint_pooler = keypoint_pooler
            self.keypoint_head = keypoint_head
        self.train_on_pred_boxes = train_on_pred_boxes

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:  # type: ignore[override]
        return {
            **super().from_config(cfg),
            "train_on_pred_boxes": cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES,
            **cls._init_box_head(cfg, input_shape),
            **cls._init_mask_head(cfg, input_shape),
            **cls._init_keypoint_head(cfg, input_shape),
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments of the box branch; for subclasses to override."""
        return _build_box_branch(cfg, input_shape)

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments of the mask branch, none without masks; for subclasses to override."""
        return _build_mask_branch(cfg, input_shape)

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments of the keypoint branch, none without it; for subclasses to override."""
        return _build_keypoint_branch(cfg, input_shape)

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See `ROIHeads.forward`."""
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        assert targets is not None, "RoI heads need ground truth in training"
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = dict(self._box_losses(features, proposals, targets))
        losses.update(self._forward_mask(features, proposals))
        losses.update(self._forward_keypoint(features, proposals))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks and keypoints in given boxes.

        Args:
            instances: N `Instances` with `pred_boxes` and `pred_classes`.

        Returns:
            The same instances, with `pred_masks` and `pred_keypoints` (if the model predicts them).
        """
        assert not self.training, "given boxes are for inference"
        assert all(x.has("pred_boxes") and x.has("pred_classes") for x in instances)
        return self._forward_keypoint(features, self._forward_mask(features, instances))

    def _box_losses(
        self, features: dict[str, torch.Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """`_forward_box` in training; heads that label boxes of their own need the targets for it."""
        return self._forward_box(features, proposals)

    def _forward_box(self, features: dict[str, torch.Tensor], proposals: list[Instances]) -> Any:
        """Losses in training, else N `Instances` of detections."""
        maps = [features[name] for name in self.box_in_features]
        box_features = self.box_head(self.box_pooler(maps, [x.proposal_boxes for x in proposals]))
        predictions = self.box_predictor(box_features)
        if not self.training:
            return self.box_predictor.inference(predictions, proposals)[0]
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:  # proposals are this step's own: the heads that follow read their boxes
            with torch.no_grad():
                pred_boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
            for image_proposals, boxes in zip(proposals, pred_boxes, strict=True):
                image_proposals.proposal_boxes = Boxes(boxes)
        return losses

    def _forward_mask(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """Losses in training (instances are proposals), else the instances (detections) with their masks."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        inputs = self._pool(self.mask_pooler, self.mask_in_features, features, instances)
        return self.mask_head(inputs, instances)

    def _forward_keypoint(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """As `_forward_mask`, for keypoints."""
        if not self.keypoint_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
            instances = select_proposals_with_visible_keypoints(instances)
        inputs = self._pool(self.keypoint_pooler, self.keypoint_in_features, features, instances)
        return self.keypoint_head(inputs, instances)

    def _pool(
        self,
        pooler: nn.Module | None,
        in_features: Sequence[str],
        features: dict[str, torch.Tensor],
        instances: list[Instances],
    ) -> Any:
        """Features of the proposals (in training) or detections; without a pooler the maps themselves."""
        maps = {name: features[name] for name in in_features}
        if pooler is None:
            return maps
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        return pooler(list(maps.values()), boxes)


def _build_box_branch(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    in_features = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    pooler, pooled_shape = build_pooler(cfg.MODEL.ROI_BOX_HEAD, in_features, input_shape)
    box_head = build_box_head(cfg, pooled_shape)
    return {
        "box_in_features": in_features,
        "box_pooler": pooler,
        "box_head": box_head,
        "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),  # type: ignore[call-arg, arg-type]
    }


def _build_mask_branch(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    if not cfg.MODEL.MASK_ON:
        return {}
    in_features = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    pooler, shape = _build_optional_pooler(cfg.MODEL.ROI_MASK_HEAD, in_features, input_shape)
    return {
        "mask_in_features": in_features,
        "mask_pooler": pooler,
        "mask_head": build_mask_head(cfg, shape),
    }


def _build_keypoint_branch(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
    if not cfg.MODEL.KEYPOINT_ON:
        return {}
    in_features = list(cfg.MODEL.ROI_HEADS.IN_FEATURES)
    pooler, shape = _build_optional_pooler(cfg.MODEL.ROI_KEYPOINT_HEAD, in_features, input_shape)
    return {
        "keypoint_in_features": in_features,
        "keypoint_pooler": pooler,
        "keypoint_head": build_keypoint_head(cfg, shape),
    }


def _build_optional_pooler(
    head_cfg: CfgNode, in_features: list[str], input_shape: dict[str, ShapeSpec]
) -> tuple[ROIPooler | None, Any]:
    """A pooler and its output's shape; where POOLER_TYPE is empty None and the shapes of the maps by name."""
    if head_cfg.POOLER_TYPE:
        return build_pooler(head_cfg, in_features, input_shape)
    return None, {name: input_shape[name] for name in in_features}


def build_pooler(
    head_cfg: CfgNode, in_features: list[str], input_shape: dict[str, ShapeSpec]
) -> tuple[ROIPooler, ShapeSpec]:
    """The pooler that a head's POOLER_* keys describe, and the shape of what it returns."""
    missing = [name for name in in_features if name not in input_shape]
    if missing or not in_features:
        raise InputError(
            f"MODEL.ROI_HEADS.IN_FEATURES: {in_features}: the backbone returns {list(input_shape)}"
        )
    shapes = [input_shape[name] for name in in_features]
    if len({shape.channels for shape in shapes}) != 1:
        raise InputError(
            f"MODEL.ROI_HEADS.IN_FEATURES: {in_features}: one head serves all levels, so their channels must"
            f" be the same, not {[shape.channels for shape in shapes]}"
        )
    side = head_cfg.POOLER_RESOLUTION
    pooler = ROIPooler(
        output_size=side,
        scales=[1.0 / (shape.stride or 1) for shape in shapes],
        sampling_ratio=head_cfg.POOLER_SAMPLING_RATIO,
        pooler_type=head_cfg.POOLER_TYPE,
    )
    return pooler, ShapeSpec(channels=shapes[0].channels, height=side, width=side)
