"""Images of different sizes in one tensor."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class ImageList:
    """N images padded at the right and at the bottom to one size.

    Attributes:
        tensor: (N, H, W) or (N, C, H, W).
        image_sizes: (height, width) of each image before padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """Image `idx` without its padding, (H, W) or (C, H, W)."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        """The same list, its tensor on another device or of another type."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    def pin_memory(self) -> "ImageList":
        """The same list, its tensor in memory that a GPU copies from by itself."""
        return ImageList(self.tensor.pin_memory(), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> "ImageList":
        """Pad and stack images.

        Args:
            tensors: at least one image, each (H, W) or each (C, H, W).
            size_divisibility: make height and width multiples of this (0 and 1: as they are).
            pad_value: what the padding holds.
            padding_constraints: optional "square_size" (pad to a square of this side; 0: no square) and
                "size_divisibility" (goes before the argument).
        """
        assert len(tensors) > 0, "no images"
        assert all(t.shape[:-2] == tensors[0].shape[:-2] for t in tensors), [t.shape for t in tensors]
        constraints = padding_constraints or {}
        divisor = max(1, constraints.get("size_divisibility", size_divisibility))
        sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
        square_size = constraints.get("square_size", 0)
        if square_size > 0:
            assert max(height, width) <= square_size, (
                f"images up to {height}x{width} do not fit into {square_size}"
            )
            height = width = square_size
        height, width = -(-height // divisor) * divisor, -(-width // divisor) * divisor

        if len(tensors) == 1:
            (h, w), image = sizes[0], tensors[0]
            return ImageList(F.pad(image, [0, width - w, 0, height - h], value=pad_value)[None], sizes)
        batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], height, width), pad_value)
        for i, (image, (h, w)) in enumerate(zip(tensors, sizes, strict=True)):
            batch[i, ..., :h, :w] = image
        return ImageList(batch, sizes)
