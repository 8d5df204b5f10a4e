"""What dense predictions have in common: their layout, and how detections are chosen from them.

Shapes: N images, L levels of Hi x Wi cells, A anchors per cell, Ri = Hi * Wi * A anchors of a level,
K classes, B = 4 numbers of a box, D detections of an image.
"""

from collections.abc import Sequence

import torch

from panomask.layers import batched_nms, cat, nonzero_tuple
from panomask.modeling.box_regression import BoxCoding
from panomask.structures import Boxes, Instances


def permute_to_N_HWA_K(tensor: torch.Tensor, K: int) -> torch.Tensor:
    """(N, A * K, Hi, Wi), as a convolution predicts -> (N, Hi * Wi * A, K), in the order of the anchors."""
    return tensor.unflatten(1, (-1, K)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def by_anchor(predictions: Sequence[Sequence[torch.Tensor]], *sizes: int) -> list[list[torch.Tensor]]:
    """What a dense head predicts, several lists of L maps (N, A * size, Hi, Wi): the same by (N, Ri, size).

    `sizes`: of each list the numbers that an anchor has.
    """
    pairs = zip(predictions, sizes, strict=True)
    return [[permute_to_N_HWA_K(x, size) for x in levels] for levels, size in pairs]


def detect_in_image(
    anchors: Sequence[Boxes],
    scores: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    image_size: tuple[int, int],
    *,
    box_coding: BoxCoding,
    score_thresh: float,
    topk_per_level: int,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """Take the best scores of each level, suppress per class, keep the best of what is left.

    Args:
        anchors: per level (Ri, 4).
        scores: per level (Ri, K), of each class by itself.
        deltas: per level (Ri, B), what `box_coding` decodes.
        image_size: (height, width); boxes are not clipped to it.
        score_thresh: scores must exceed this.
        topk_per_level: how many boxes of a level are decoded.
        nms_thresh: IoU above which the lower-scored box of the same class goes.
        topk: how many detections to keep; negative: all.

    Returns:
        `Instances` with `pred_boxes`, `scores` and `pred_classes` (D,), best first. An anchor may give
        several detections of different classes; a score that is NaN and a box that is not finite give none.
    """
    level_boxes, level_scores, level_classes = [], [], []
    for boxes, of_anchors, of_deltas in zip(anchors, scores, deltas, strict=True):
        best, anchor_idx, classes = _top_scores(of_anchors, score_thresh, topk_per_level)
        level_boxes.append(box_coding.apply_deltas(of_deltas[anchor_idx], boxes.tensor[anchor_idx]))
        level_scores.append(best)
        level_classes.append(classes)
    found = Instances(
        image_size,
        pred_boxes=Boxes(cat(level_boxes)),
        scores=cat(level_scores),
        pred_classes=cat(level_classes),
    )
    found = found[found.pred_boxes.tensor.isfinite().all(dim=1)]
    keep = batched_nms(found.pred_boxes.tensor, found.scores, found.pred_classes, nms_thresh)
    return found[keep[:topk] if topk >= 0 else keep]


def _top_scores(
    scores: torch.Tensor, thresh: float, topk: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `topk` highest of scores (Ri, K) above `thresh`, their anchors and their classes, best first."""
    anchor_idx, classes = nonzero_tuple(scores > thresh)
    best, order = scores[anchor_idx, classes].topk(min(topk, len(anchor_idx)))
    return best, anchor_idx[order], classes[order]
