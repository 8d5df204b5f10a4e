"""Assign anchors or proposals to true objects by a quality such as IoU.

Shapes: M objects, R predictions.
"""

import itertools
from collections.abc import Sequence

import torch

from panomask.errors import InputError


class Matcher:
    """Each prediction gets the object of highest quality, and a label by the interval that this falls in.

    Args:
        thresholds: increasing bounds; a quality from thresholds[i - 1] to below thresholds[i] gets labels[i].
        labels: 0 (negative), 1 (positive) or -1 (ignore), one more than thresholds.
        allow_low_quality_matches: also label 1 whatever has the highest quality for some object, ties
            included (Faster R-CNN, arXiv:1506.01497, section 3.1.2, rule (i)).

    Raises:
        InputError: thresholds that do not increase or labels that do not fit.
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality_matches: bool = False
    ):
        bounds = list(thresholds)
        if bounds != sorted(bounds) or any(bound <= 0 for bound in bounds[:1]):
            raise InputError(f"IOU_THRESHOLDS: {bounds}: must be positive and increasing")
        if len(labels) != len(bounds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise InputError(
                f"IOU_LABELS: {list(labels)}: {len(bounds)} thresholds need {len(bounds) + 1} labels, each of"
                " them -1, 0 or 1"
            )
        self.thresholds = [-float("inf"), *bounds, float("inf")]
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Match.

        Args:
            match_quality_matrix: (M, R), not negative.

        Returns:
            (R,) int64, the matched object of each prediction (0 where there are no objects), and (R,) int8
            labels (the lowest interval's where there are no objects).
        """
        assert match_quality_matrix.dim() == 2, match_quality_matrix.shape
        num_objects, num_predictions = match_quality_matrix.shape
        device = match_quality_matrix.device
        if num_objects == 0:
            matches = torch.zeros(num_predictions, dtype=torch.int64, device=device)
            return matches, torch.full((num_predictions,), self.labels[0], dtype=torch.int8, device=device)
        quality, matches = match_quality_matrix.max(dim=0)  # (R,) each
        labels = torch.ones(num_predictions, dtype=torch.int8, device=device)
        for label, (low, high) in zip(self.labels, itertools.pairwise(self.thresholds), strict=True):
            labels.masked_fill_((quality >= low) & (quality < high), label)
        if self.allow_low_quality_matches and num_predictions > 0:
            self.set_low_quality_matches_(labels, match_quality_matrix)
        return matches, labels

    def set_low_quality_matches_(
        self, match_labels: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Set to 1, in place, the label of every prediction that is some object's best.

        Its match stays as it is, and may be another object.
        """
        best_per_object = match_quality_matrix.max(dim=1, keepdim=True).values  # (M, 1)
        match_labels.masked_fill_((match_quality_matrix == best_per_object).any(dim=0), 1)
