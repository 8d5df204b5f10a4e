"""Anchor boxes on a regular grid over each feature map (Faster R-CNN, arXiv:1506.01497, section 3.1.1).

Shapes: L levels of Hi x Wi cells, A anchors per cell.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode, configurable
from panomask.errors import InputError
from panomask.layers import ShapeSpec
from panomask.registry import ANCHOR_GENERATOR_REGISTRY
from panomask.structures import Boxes


class BufferList(nn.Module):
    """A list of tensors that move with the module and stay out of its state dict."""

    def __init__(self, buffers: Sequence[torch.Tensor]):
        super().__init__()
        for idx, buffer in enumerate(buffers):
            self.register_buffer(str(idx), buffer, persistent=False)

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._buffers.values())  # type: ignore[arg-type]


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultAnchorGenerator(nn.Module):
    """Every combination of the level's sizes and aspect ratios, centred in every cell.

    Args:
        sizes: per level a list of sizes (square root of the area, pixels); one list, or a flat list of
            numbers, serves all levels.
        aspect_ratios: height / width, given in the same three ways.
        strides: pixels per cell, one a level.
        offset: where in a cell the first centre lies, as a part of the stride, 0 (its corner) to below 1.

    Raises:
        InputError: `offset` out of range, or a number of lists that is neither 1 nor the number of levels.
    """

    box_dim: int = 4

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        offset: float = 0.5,
    ):
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise InputError(f"MODEL.ANCHOR_GENERATOR.OFFSET: {offset}: allowed is 0 <= offset < 1")
        self.strides = list(strides)
        self.offset = offset
        level_sizes = _one_list_per_level(sizes, len(self.strides), "SIZES")
        level_ratios = _one_list_per_level(aspect_ratios, len(self.strides), "ASPECT_RATIOS")
        self.cell_anchors = BufferList(
            [self.generate_cell_anchors(*level) for level in zip(level_sizes, level_ratios, strict=True)]
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        anchors = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "sizes": anchors.SIZES,
            "aspect_ratios": anchors.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": anchors.OFFSET,
        }

    @property
    def num_cell_anchors(self) -> list[int]:
        """A of every level."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    def num_anchors(self) -> list[int]:
        """`num_cell_anchors` under its older name."""
        return self.num_cell_anchors

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> torch.Tensor:
        """The anchors of one cell, centred at the origin: (A, 4) xyxy, ratios varying fastest."""
        corners = []
        for size in sizes:
            for ratio in aspect_ratios:
                half_width = (size**2 / ratio) ** 0.5 / 2
                half_height = ratio * half_width
                corners.append([-half_width, -half_height, half_width, half_height])
        return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)

    def forward(self, features: Sequence[torch.Tensor]) -> list[Boxes]:
        """Feature maps (N, Ci, Hi, Wi), one a level -> Hi * Wi * A anchors each, the same for all images."""
        return [
            Boxes(self._grid_anchors(feature.shape[-2:], stride, cell_anchors))
            for feature, stride, cell_anchors in zip(features, self.strides, self.cell_anchors, strict=True)
        ]

    def _grid_anchors(self, size: torch.Size, stride: int, cell_anchors: torch.Tensor) -> torch.Tensor:
        height, width = size
        first = self.offset * stride
        ys = torch.arange(height, device=cell_anchors.device) * stride + first
        xs = torch.arange(width, device=cell_anchors.device) * stride + first
        ys, xs = torch.meshgrid(ys, xs, indexing="ij")
        centers = torch.stack([xs, ys, xs, ys], dim=-1)  # (Hi, Wi, 4)
        return (centers[:, :, None] + cell_anchors).reshape(-1, 4)  # (Hi * Wi * A, 4)


def _one_list_per_level(values: Sequence[Any], num_levels: int, key: str) -> list[Sequence[float]]:
    lists = list(values) if values and isinstance(values[0], Sequence) else [values]
    if len(lists) not in (1, num_levels) or not all(lists):
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR.{key}: {values}: expected one non-empty list for all levels, or one for"
            f" each of the {num_levels} feature maps that the anchors are laid on"
        )
    return lists * (num_levels if len(lists) == 1 else 1)


def build_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> nn.Module:
    """The generator that MODEL.ANCHOR_GENERATOR.NAME names, for feature maps of these strides."""
    return ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME)(cfg, input_shape)
