"""Choose proposals from dense predictions, and add the true boxes to them.

Shapes: N images, L levels, Ri anchors of level i, R proposals of one image.
"""

import math
from collections.abc import Sequence

import torch

from panomask.errors import DivergedError
from panomask.layers import batched_nms, cat
from panomask.structures import Boxes, Instances

GT_LOGIT = math.log((1.0 - 1e-10) / (1 - (1.0 - 1e-10)))
"""Objectness of a true box among the proposals: as sure as a probability of 1 - 1e-10."""


def find_top_rpn_proposals(
    proposals: Sequence[torch.Tensor],
    pred_objectness_logits: Sequence[torch.Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """The best proposals of each image.

    Top scores per level, clipping, NMS within each level, top scores overall.

    Args:
        proposals: per level (N, Ri, 4).
        pred_objectness_logits: per level (N, Ri).
        image_sizes: (height, width) of each image without its padding.
        nms_thresh: IoU above which the lower-scored box of the same level goes.
        pre_nms_topk: how many go into NMS, per level and image.
        post_nms_topk: how many remain, per image.
        min_box_size: sides (input pixels) must exceed this.
        training: see Raises; otherwise boxes that are not finite are dropped.

    Returns:
        N `Instances` with `proposal_boxes` and `objectness_logits`, best first.

    Raises:
        DivergedError: in training, when a box or score is infinite or NaN.
    """
    boxes, logits, level_idx = _top_per_level(proposals, pred_objectness_logits, pre_nms_topk)
    is_finite = boxes.isfinite().all(dim=2) & logits.isfinite()  # (N, R)
    chosen, num_valid = [], []
    for image_idx, image_size in enumerate(image_sizes):
        image_boxes, image_logits, keep = _choose_proposals(
            Boxes(boxes[image_idx]),
            logits[image_idx],
            is_finite[image_idx],
            level_idx,
            image_size=image_size,
            nms_thresh=nms_thresh,
            min_box_size=min_box_size,
        )
        keep = keep[:post_nms_topk]
        chosen.append((image_boxes[keep], image_logits[keep]))
        num_valid.append((image_logits[keep] > -math.inf).sum())
    if torch.jit.is_tracing():  # a count would become a constant of the graph
        return [
            _as_instances(size, found, scores, scores > -math.inf)
            for size, (found, scores) in zip(image_sizes, chosen, strict=True)
        ]
    # What the host must know comes to it together, after NMS, which waits for the device anyway.
    *counts, all_finite = torch.stack([*num_valid, is_finite.all().long()]).tolist()
    if training and not all_finite:
        raise DivergedError(
            "predicted boxes or scores contain Inf/NaN: training has diverged; a lower SOLVER.BASE_LR,"
            " a longer SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS.ENABLED True may help"
        )
    return [
        _as_instances(size, found, scores, slice(count))
        for size, (found, scores), count in zip(image_sizes, chosen, counts, strict=True)
    ]


def _as_instances(
    image_size: tuple[int, int], boxes: torch.Tensor, logits: torch.Tensor, keep: slice | torch.Tensor
) -> Instances:
    return Instances(image_size, proposal_boxes=Boxes(boxes[keep]), objectness_logits=logits[keep])


def _choose_proposals(
    boxes: Boxes,
    logits: torch.Tensor,
    is_finite: torch.Tensor,
    level_idx: torch.Tensor,
    *,
    image_size: tuple[int, int],
    nms_thresh: float,
    min_box_size: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clip the R boxes of one image and suppress.

    Boxes that are too small or not finite stay in, as taking them out would wait for the device: without
    extent and with a logit of -inf, they suppress nothing and come last.

    Returns:
        (R, 4) boxes, (R,) logits, and the indices of those that NMS keeps, best first.
    """
    boxes.clip(image_size)
    is_invalid = ~(boxes.nonempty(threshold=min_box_size) & is_finite)
    kept_boxes = boxes.tensor.masked_fill(is_invalid[:, None], 0.0)
    kept_logits = logits.masked_fill(is_invalid, -math.inf)
    return kept_boxes, kept_logits, batched_nms(kept_boxes, kept_logits, level_idx, nms_thresh)


def _top_per_level(
    proposals: Sequence[torch.Tensor], pred_objectness_logits: Sequence[torch.Tensor], topk: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes (N, R, 4), logits (N, R) and level indices (R,) of each level's `topk` highest logits."""
    boxes, logits, level_idx = [], [], []
    for level, (level_boxes, level_logits) in enumerate(zip(proposals, pred_objectness_logits, strict=True)):
        count = min(topk, level_logits.shape[1])
        top_logits, top_idx = level_logits.topk(count, dim=1)
        boxes.append(level_boxes.gather(1, top_idx[:, :, None].expand(-1, -1, level_boxes.shape[2])))
        logits.append(top_logits)
        level_idx.append(torch.full((count,), level, dtype=torch.int64, device=top_idx.device))
    return cat(boxes, dim=1), cat(logits, dim=1), cat(level_idx)


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: Sequence[Instances]
) -> list[Instances]:
    """Append each image's true boxes to its proposals: good boxes to learn from while the RPN is still bad.

    Args:
        gt: N `Instances` with `gt_boxes` (and every further field that the proposals have), or N `Boxes`.
        proposals: N `Instances` with `proposal_boxes` and `objectness_logits`.
    """
    assert len(gt) == len(proposals), (len(gt), len(proposals))
    pairs = zip(gt, proposals, strict=True)
    return [add_ground_truth_to_proposals_single_image(truth, found) for truth, found in pairs]


def add_ground_truth_to_proposals_single_image(gt: Instances | Boxes, proposals: Instances) -> Instances:
    """`add_ground_truth_to_proposals` for one image."""
    gt_boxes = gt if isinstance(gt, Boxes) else gt.gt_boxes
    logits = proposals.objectness_logits
    fields = {} if isinstance(gt, Boxes) else gt.get_fields()
    fields = {
        **fields,
        "proposal_boxes": gt_boxes,
        "objectness_logits": logits.new_full((len(gt_boxes),), GT_LOGIT),
    }
    missing = set(proposals.get_fields()) - set(fields)
    assert not missing, f"proposals have the fields {sorted(missing)}, which the ground truth lacks"
    added = Instances(proposals.image_size, **{name: fields[name] for name in proposals.get_fields()})
    return Instances.cat([proposals, added])
