"""Panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446): two-stage detector and semantic head on one pyramid.

Shapes: N images, R detections, K semantic classes, H x W output.
Semantic classes: 0 is every thing, 1..K-1 are stuff.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.modeling.meta_arch.image_model import output_size
from panomask.modeling.meta_arch.rcnn import GeneralizedRCNN
from panomask.modeling.meta_arch.semantic_seg import build_sem_seg_head
from panomask.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from panomask.registry import META_ARCH_REGISTRY
from panomask.structures import Instances


@META_ARCH_REGISTRY.register()
class PanopticFPN(GeneralizedRCNN):
    """Backbone, region proposals, heads on them, a semantic head, and the merge of both.

    Args:
        sem_seg_head: feature maps and targets to logits and losses; its `ignore_value` pads the targets.
        combine_overlap_thresh, combine_stuff_area_thresh, combine_instances_score_thresh: see
            `combine_semantic_and_instance_outputs`.
        combine: whether the output has a panoptic map.
        instance_loss_weight: factor of the RoI heads' losses (lambda_i of the paper's equation 1).
        kwargs: of `GeneralizedRCNN`.
    """

    sem_seg_head: Any

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        combine: bool = True,
        instance_loss_weight: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh
        self.combine = combine
        self.instance_loss_weight = instance_loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        rcnn = super().from_config(cfg)
        panoptic = cfg.MODEL.PANOPTIC_FPN
        return {
            **rcnn,
            "sem_seg_head": build_sem_seg_head(cfg, rcnn["backbone"].output_shape()),
            "combine_overlap_thresh": panoptic.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": panoptic.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
            "combine": panoptic.COMBINE.ENABLED,
            "instance_loss_weight": panoptic.INSTANCE_LOSS_WEIGHT,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """In training a dict of losses, to be added up; otherwise see `inference`.

        An input of training has "instances" and "sem_seg" (H0, W0) int64: 0..K-1 or the ignored value.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = self._ground_truth(batched_inputs)
        gt_sem_seg = self._semantic_truth(batched_inputs, self.sem_seg_head.ignore_value)
        features = self.backbone(images.tensor)
        _, losses = self.sem_seg_head(features, gt_sem_seg)
        proposals, proposal_losses = self._propose(images, features, batched_inputs, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        weighted = {name: loss * self.instance_loss_weight for name, loss in detector_losses.items()}
        return {**losses, **proposal_losses, **weighted}

    def inference(  # type: ignore[override]  # Detectron2's: boxes cannot be given
        self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True
    ) -> Any:
        """Segment.

        Args:
            batched_inputs: N dicts, see rcnn.py.
            do_postprocess: bring the results to the output size and merge them.

        Returns:
            N dicts, each of its input's "height" x "width" (by default the image's size): "sem_seg" (K, H, W)
            logits, "instances" and, if `combine`, "panoptic_seg" as `combine_semantic_and_instance_outputs`
            returns it. Without post-processing N `Instances` and the padded batch's logits, (N, K, H, W).
        """
        assert not self.training, "inference needs eval mode"
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        logits, _ = self.sem_seg_head(features, None)
        proposals, _ = self._propose(images, features, batched_inputs, None)
        detections, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return detections, logits
        sizes = images.image_sizes
        return [
            self._merge(*result) for result in zip(detections, logits, batched_inputs, sizes, strict=True)
        ]

    def _merge(
        self,
        detections: Instances,
        logits: torch.Tensor,
        batched_input: dict[str, Any],
        image_size: tuple[int, int],
    ) -> dict[str, Any]:
        """The output for one image, of its output size."""
        height, width = output_size(batched_input, image_size)
        sem_seg = sem_seg_postprocess(logits, image_size, height, width)
        instances = detector_postprocess(detections, height, width)
        if not self.combine:
            return {"sem_seg": sem_seg, "instances": instances}
        panoptic_seg = combine_semantic_and_instance_outputs(
            instances,
            sem_seg.max(dim=0).indices,  # argmax takes 2 to 10 times as long on the CPU
            self.combine_overlap_thresh,
            self.combine_stuff_area_thresh,
            self.combine_instances_score_thresh,
        )
        return {"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic_seg}


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: torch.Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Merge things and stuff into one map in which each pixel belongs to at most one segment.

    As for the baselines of Panoptic Segmentation (Kirillov et al. 2018, arXiv:1801.00868): instances take
    their pixels in the order of their scores; what is left goes to stuff.

    Args:
        instance_results: of size H x W, with `scores`, `pred_classes` and `pred_masks` (R, H, W).
        semantic_results: (H, W) labels; 0 is every thing.
        overlap_threshold: an instance goes if more than this part of it is taken by better ones.
        stuff_area_thresh: a stuff class goes if fewer pixels are left for it.
        instances_score_thresh: instances of lower scores go.

    Returns:
        (H, W) int32 ids, from 1, 0 where there is no segment; and what the ids mean, a dict a segment: "id",
        "isthing", "category_id"; of things also "score" and "instance_id" (its index in `instance_results`),
        of stuff "area" in pixels. A segment of which no pixel is left is not among them.
    """
    scores, classes = instance_results.scores.tolist(), instance_results.pred_classes.tolist()
    best = [i for i, score in enumerate(scores) if score >= instances_score_thresh]
    best.sort(key=lambda i: -scores[i])
    ranks, is_kept = _paint_things(instance_results, best, semantic_results, overlap_threshold)
    left = semantic_results.long().masked_fill(ranks > 0, 0)  # (H, W), no stuff where there is an instance
    segments_info: list[dict[str, Any]] = []
    thing_ids, stuff_ids = [0], []
    for i, kept in zip(best, is_kept, strict=True):
        thing_ids.append(len(segments_info) + 1 if kept else 0)
        if kept:
            thing = {"isthing": True, "score": scores[i], "category_id": classes[i], "instance_id": i}
            segments_info.append({"id": thing_ids[-1], **thing})
    for label, area in enumerate(torch.bincount(left.flatten(), minlength=1).tolist()):
        is_segment = label > 0 and area > 0 and area >= stuff_area_thresh
        stuff_ids.append(len(segments_info) + 1 if is_segment else 0)
        if is_segment:
            stuff = {"isthing": False, "category_id": label, "area": area}
            segments_info.append({"id": stuff_ids[-1], **stuff})
    # A pixel has a rank or a label of stuff, never both: one of the two ids is 0.
    things, stuffs = (
        torch.tensor(ids, dtype=torch.int32, device=left.device) for ids in (thing_ids, stuff_ids)
    )
    # Of one dimension, as looking up a table by a map takes five times as long on the CPU.
    ids = things.index_select(0, ranks.flatten()) + stuffs.index_select(0, left.flatten())
    return ids.reshape(ranks.shape), segments_info


def _paint_things(
    instances: Instances, best: Sequence[int], semantic_results: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, list[bool]]:
    """Let the instances `best` take pixels, one after the other, without a wait for the device between them.

    Returns:
        (H, W) int32: 0, or from 1 the position in `best` of the instance that has the pixel; and of each of
        `best` whether it took any.
    """
    ranks = torch.zeros_like(semantic_results, dtype=torch.int32)
    taken = torch.zeros_like(semantic_results, dtype=torch.bool)
    is_kept = taken.new_zeros(len(best))
    for position, i in enumerate(best):
        mask = instances.pred_masks[i].to(taken)
        free = mask & ~taken
        area, num_free = mask.count_nonzero(), free.count_nonzero()
        # Doubles, as an area may exceed what float32 counts; 0 / 0 of an empty mask fits nowhere.
        is_kept[position] = ((area - num_free).double() / area <= overlap_threshold) & (num_free > 0)
        # As bytes: on the CPU torch takes 20 times as long to combine a map of bool with a single one.
        free.view(torch.uint8).mul_(is_kept[position])
        taken |= free
        ranks.add_(free, alpha=position + 1)
    return ranks, is_kept.tolist()
