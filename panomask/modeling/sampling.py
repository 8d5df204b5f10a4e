"""Random subsets of labelled anchors or proposals.

Shapes: R labels. Foreground 0..K-1, background `bg_label`, ignore -1.
"""

import torch

from panomask.layers import nonzero_tuple


def subsample_labels(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of a random sample of at most `num_samples` labels.

    Args:
        labels: (R,) ints.
        num_samples: size of the sample where there are enough labels.
        positive_fraction: at most this part of it is foreground; background fills the rest.
        bg_label: the label of background.

    Returns:
        int64 indices of the foreground and of the background in the sample, each in increasing order.
    """
    positive, negative = subsample_masks(labels, num_samples, positive_fraction, bg_label)
    return nonzero_tuple(positive)[0], nonzero_tuple(negative)[0]


def subsample_indices(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> torch.Tensor:
    """What `subsample_labels` returns, the foreground first, in one tensor: one wait for the device."""
    masks = torch.cat(subsample_masks(labels, num_samples, positive_fraction, bg_label))  # (2 * R,)
    return masks.nonzero()[:, 0] % max(len(labels), 1)


def subsample_masks(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`subsample_labels` as two (R,) bool masks, whose known size spares waiting for the device."""
    max_positive = int(num_samples * positive_fraction)
    is_negative = labels == bg_label
    positive = _random_subset(~is_negative & (labels != -1), max_positive)
    negative = _random_subset(is_negative, num_samples, room=num_samples - positive.sum())
    return positive, negative


def _random_subset(mask: torch.Tensor, most: int, room: torch.Tensor | None = None) -> torch.Tensor:
    """A random choice of `most` members of a bool mask, or of the first `room` (<= most) of that choice."""
    # Members draw a key in [0, 1) and others get -1: the largest keys are a random choice of members.
    keys = torch.where(mask, torch.rand(mask.shape, device=mask.device), -1.0)
    keys, chosen = keys.topk(min(most, mask.numel()))
    is_kept = keys >= 0
    if room is not None:
        is_kept &= torch.arange(len(chosen), device=mask.device) < room
    return torch.zeros_like(mask).scatter_(0, chosen, is_kept)
