"""Keypoints of objects, and their heatmaps.

Shapes: N objects, K keypoints, S cells on each side of a heatmap.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panomask.layers import at_least_float32
from panomask.structures.heatmap_peaks import heatmap_peaks


class Keypoints:
    """N objects with K keypoints each.

    The attribute `tensor` is float32 (N, K, 3) with rows (x, y, visibility) in image pixels. Visibility as in
    COCO: 0 not labelled, 1 labelled but hidden, 2 labelled and visible.
    """

    def __init__(self, keypoints: Tensor | np.ndarray | Sequence[Any]) -> None:
        """`keypoints`: (N, K, 3) numbers."""
        keypoints = np.asarray(keypoints) if isinstance(keypoints, Sequence) else keypoints
        self.tensor = torch.as_tensor(keypoints).to(torch.float32)
        assert self.tensor.dim() == 3, self.tensor.shape
        assert self.tensor.shape[2] == 3, self.tensor.shape

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> "Keypoints":
        """The keypoints on another device."""
        return Keypoints(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to_heatmap(self, boxes: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """Training targets: the heatmap cell of each keypoint, seen from its object's box.

        Args:
            boxes: (N, 4) xyxy.
            heatmap_size: S.

        Returns:
            cells: (N, K) int64, y * S + x; 0 where not valid.
            valid: (N, K) int64, 1 where the keypoint is labelled and lies in its box. A point on the right
                or bottom side of the box counts for the last cell.
        """
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        xy = self.tensor[..., :2]
        cell = ((xy - corner) * (heatmap_size / size)).floor().long()  # (N, K, 2)
        cell = torch.where(xy == boxes[:, None, 2:], heatmap_size - 1, cell)
        inside = ((cell >= 0) & (cell < heatmap_size)).all(dim=2)
        valid = (inside & (self.tensor[..., 2] > 0)).long()
        return (cell[..., 1] * heatmap_size + cell[..., 0]) * valid, valid

    def __getitem__(self, item: Any) -> "Keypoints":
        """The objects at an int (gives one object), a slice, or an index or mask tensor."""
        return Keypoints(self.tensor[item].unsqueeze(0) if isinstance(item, int) else self.tensor[item])

    @staticmethod
    def cat(keypoints_list: Sequence["Keypoints"]) -> "Keypoints":
        """The objects of several Keypoints one after the other."""
        assert len(keypoints_list) > 0
        return Keypoints(torch.cat([each.tensor for each in keypoints_list]))

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)})"


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """The best place of each keypoint in its heatmap, in image pixels.

    Each heatmap is resized (bicubic) to the whole pixels of its box and the highest value taken, at the
    centre of its pixel (He et al., Mask R-CNN, arXiv:1703.06870, section 5).

    Args:
        maps: (N, K, S, S) heatmap logits; those of less than 32 bits are resized in float32.
        rois: (N, 4) boxes xyxy.

    Returns:
        (N, K, 4) rows (x, y, logit, score); the score is a softmax normalised over the heatmap's S x S cells.
    """
    maps = at_least_float32(maps)
    sizes = (rois[:, 2:] - rois[:, :2]).clamp(min=1)  # (N, 2) width, height
    pixels = sizes.ceil()
    logits, best = heatmap_peaks(maps, pixels.long().tolist())
    widths = pixels[:, :1].long()
    cells = torch.stack([best % widths, best // widths], dim=2)  # (N, K, 2) x, y
    xy = (cells + 0.5) * (sizes / pixels)[:, None] + rois[:, None, :2]
    normalisers = (maps.flatten(2) - logits[:, :, None]).exp_().sum(dim=2)
    scores = 1 / normalisers  # exp(logit - logit) over the sum
    return torch.cat([xy, logits[:, :, None], scores[:, :, None]], dim=2)


COCO_PERSON_KEYPOINT_NAMES = (
    "nose",
    *("left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""COCO's 17 keypoints of a person, in its order."""

COCO_PERSON_OKS_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""Their constants of object keypoint similarity (https://cocodataset.org/#keypoints-eval)."""


def default_oks_sigmas(names: Sequence[str]) -> list[float] | None:
    """COCO's sigmas for COCO's keypoints, whatever their order; None for any others."""
    known = dict(zip(COCO_PERSON_KEYPOINT_NAMES, COCO_PERSON_OKS_SIGMAS, strict=True))
    return [known[name] for name in names] if set(names) == set(known) else None
