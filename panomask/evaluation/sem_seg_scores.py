"""Scores of semantic label maps: pixels counted by (predicted, true) class, IoU and accuracy from the counts.

Shapes: K classes, H x W image. Labels are 0..K-1; K is void in the truth. Boundary IoU: Cheng et al., CVPR
2021, eq. 2, with the width of the boundary in their section 5: 2 % of the image's diagonal.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from panomask.evaluation.results import mean_measured

BOUNDARY_WIDTH = 0.02
"""Of the image's diagonal."""


def count_pairs(predicted: torch.Tensor, truth: torch.Tensor, num_classes: int) -> torch.Tensor:
    """(K + 1, K + 1) int64: the number of pixels of each (predicted, true) label, on the device of the maps.

    Args:
        predicted, truth: (H, W) integer labels 0..K of one device.
    """
    side = num_classes + 1
    pairs = predicted.to(torch.int32) * side + truth.to(torch.int32)
    return torch.bincount(pairs.reshape(-1), minlength=side * side).reshape(side, side)


def count_boundary_pairs(predicted: torch.Tensor, truth: torch.Tensor, num_classes: int) -> torch.Tensor:
    """`count_pairs` of the boundaries alone; pixels inside, and all that are void in the truth, are K.

    What is void in the truth is taken out of the prediction first, so that the edge of void is an edge of
    both: a prediction right in every scored pixel has 100.

    The numbers are those of each class's own mask. Detectron2 erodes the map of class numbers, which is the
    same for the second of two classes alone.
    """
    predicted = torch.where(truth == num_classes, num_classes, predicted)
    on_boundary = [torch.where(boundary_region(labels), labels, num_classes) for labels in (predicted, truth)]
    return count_pairs(on_boundary[0], on_boundary[1], num_classes)


def boundary_region(labels: torch.Tensor, width: int | None = None) -> torch.Tensor:
    """(H, W) bool: pixels at most `width` from another label or from the outside of the image.

    Distance is the larger of rows and columns, so that for each class these are the pixels which `width`
    erosions of its mask by a 3 x 3 square take away. The cost does not depend on the width.

    Args:
        labels: (H, W) integers.
        width: pixels, at least 1; by default `BOUNDARY_WIDTH` of the diagonal.
    """
    height, columns = labels.shape
    if width is None:
        width = max(1, round(BOUNDARY_WIDTH * float(np.hypot(height, columns))))
    region = torch.ones_like(labels, dtype=torch.bool)
    if 2 * width >= min(height, columns):
        return region
    corner = labels[:-1, :-1]
    is_mixed = (corner != labels[1:, :-1]) | (corner != labels[:-1, 1:]) | (corner != labels[1:, 1:])
    # A window is of one label if none of its 2 x 2 blocks is mixed: sums from a summed-area table.
    table = is_mixed.new_zeros(height, columns, dtype=torch.int32)
    table[1:, 1:] = is_mixed.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    window = 2 * width
    mixed = table[window:, window:] - table[:-window, window:] - table[window:, :-window]
    mixed += table[:-window, :-window]
    region[width : height - width, width : columns - width] = mixed != 0
    return region


def semantic_scores(
    counts: np.ndarray, class_names: Sequence[str], boundary_counts: np.ndarray | None = None
) -> dict[str, float]:
    """Detectron2's metrics in percent, by its names; NaN for what the truth does not hold.

    Args:
        counts: (K + 1, K + 1) of `count_pairs`; what is void in the truth counts nowhere.
        class_names: K names; one that two classes share is followed by the label.
        boundary_counts: of `count_boundary_pairs`; adds `mBoundaryIoU`, and `BoundaryIoU` and
            `min(IoU, B-Iou)` of each class.

    Returns:
        mIoU, fwIoU (weighted by the class's share of the true pixels), IoU-<class>, mACC, pACC, ACC-<class>.
    """
    times = Counter(class_names)
    class_names = [name if times[name] == 1 else f"{name} ({k})" for k, name in enumerate(class_names)]
    scored = counts[:, :-1]  # a prediction of K occurs in a boundary's counts alone
    hits = scored.diagonal().astype(float)
    in_truth = scored.sum(axis=0).astype(float)
    in_prediction = scored[:-1].sum(axis=1).astype(float)
    accuracy = 100 * _divide(hits, in_truth)
    iou = 100 * _iou(hits, in_truth, in_prediction)
    is_measured = in_truth > 0
    num_pixels = in_truth.sum()
    scores = {
        "mIoU": mean_measured(iou),
        "fwIoU": float((iou * in_truth)[is_measured].sum() / num_pixels) if num_pixels else float("nan"),
    }
    boundary = None
    if boundary_counts is not None:
        boundary = 100 * _iou(
            boundary_counts.diagonal()[:-1].astype(float),
            boundary_counts[:, :-1].sum(axis=0).astype(float),
            boundary_counts[:-1].sum(axis=1).astype(float),
        )
        scores["mBoundaryIoU"] = mean_measured(boundary)
    for k, name in enumerate(class_names):
        scores[f"IoU-{name}"] = float(iou[k])
        if boundary is not None:
            scores[f"BoundaryIoU-{name}"] = float(boundary[k])
            scores[f"min(IoU, B-Iou)-{name}"] = float(np.minimum(iou[k], boundary[k]))
    scores["mACC"] = mean_measured(accuracy)
    scores["pACC"] = float(100 * hits.sum() / num_pixels) if num_pixels else float("nan")
    scores |= {f"ACC-{name}": float(accuracy[k]) for k, name in enumerate(class_names)}
    return scores


def _iou(hits: np.ndarray, in_truth: np.ndarray, in_prediction: np.ndarray) -> np.ndarray:
    """(K,) fractions; NaN for a class that the truth does not hold, even where it is predicted."""
    return _divide(hits, np.where(in_truth > 0, in_truth + in_prediction - hits, 0))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
