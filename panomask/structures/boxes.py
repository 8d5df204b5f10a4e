"""Axis-aligned boxes: the container, its formats and pairwise measures.

Shapes: N, M boxes; P points. Boxes are xyxy in absolute pixels, continuous coordinates.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum, unique
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

BoxArray = TypeVar("BoxArray", list, tuple, np.ndarray, Tensor)


@unique
class BoxMode(IntEnum):
    """The format of a box in a dataset dict."""

    XYXY_ABS = 0
    """(x0, y0, x1, y1) in pixels."""
    XYWH_ABS = 1
    """(x0, y0, width, height) in pixels."""
    XYXY_REL = 2
    """(x0, y0, x1, y1) as fractions of the image's size. No conversion: the size is unknown here."""
    XYWH_REL = 3
    """(x0, y0, width, height) as fractions of the image's size. No conversion."""
    XYWHA_ABS = 4
    """(x centre, y centre, width, height, degrees counter-clockwise) in pixels."""

    @staticmethod
    def convert(box: BoxArray, from_mode: "BoxMode", to_mode: "BoxMode") -> BoxArray:
        """The same boxes in another format. The argument is left as it is, and returned when the modes agree.

        Args:
            box: a list or tuple of 4 numbers (5 for XYWHA_ABS), or an array or tensor (N, 4) or (N, 5).
            from_mode, to_mode: any two of XYXY_ABS and XYWH_ABS; from XYWHA_ABS also, to the box around it.

        Returns:
            The same type as `box`.

        Raises:
            ValueError: there is no such conversion.
        """
        if from_mode == to_mode:
            return box
        convert = _CONVERSIONS.get((BoxMode(from_mode), BoxMode(to_mode)))
        if convert is None:
            raise ValueError(
                f"no conversion of boxes from {BoxMode(from_mode).name} to {BoxMode(to_mode).name}"
            )
        if isinstance(box, list | tuple):
            return type(box)(convert(*box))
        if isinstance(box, np.ndarray):
            columns = [box[..., i] for i in range(box.shape[-1])]
            return np.stack([np.asarray(c) for c in convert(*columns)], axis=-1)
        return torch.stack(list(convert(*box.unbind(-1))), dim=-1)


def _add_corner(x0: Any, y0: Any, width: Any, height: Any) -> tuple[Any, ...]:
    return x0, y0, x0 + width, y0 + height


def _subtract_corner(x0: Any, y0: Any, x1: Any, y1: Any) -> tuple[Any, ...]:
    return x0, y0, x1 - x0, y1 - y0


def _enclose_rotated(xc: Any, yc: Any, width: Any, height: Any, angle: Any) -> tuple[Any, ...]:
    namespace: Any = torch if isinstance(angle, Tensor) else np if isinstance(angle, np.ndarray) else math
    theta = angle * (math.pi / 180)
    cos, sin = abs(namespace.cos(theta)), abs(namespace.sin(theta))
    half_w, half_h = (cos * width + sin * height) / 2, (cos * height + sin * width) / 2
    return xc - half_w, yc - half_h, xc + half_w, yc + half_h


_CONVERSIONS: dict[tuple[BoxMode, BoxMode], Callable[..., tuple[Any, ...]]] = {
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _add_corner,
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _subtract_corner,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _enclose_rotated,
}


class Boxes:
    """N boxes (x0, y0, x1, y1) in a float32 tensor (N, 4), the attribute `tensor`."""

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Any]) -> None:
        """`tensor`: (N, 4) numbers; anything empty gives N = 0."""
        tensor = torch.as_tensor(np.asarray(tensor) if isinstance(tensor, Sequence) else tensor)
        tensor = tensor.to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        assert tensor.dim() == 2, tensor.shape
        assert tensor.size(-1) == 4, tensor.shape
        self.tensor: Tensor = tensor

    def clone(self) -> "Boxes":
        """A copy with memory of its own."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Boxes":
        """The boxes on another device; they stay float32. `non_blocking`: as of a tensor."""
        return Boxes(self.tensor.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> "Boxes":
        """The boxes in memory that a GPU copies from by itself; torch's loaders call this."""
        return Boxes(self.tensor.pin_memory())

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        """(N,) width times height."""
        return (self.tensor[:, 2] - self.tensor[:, 0]) * (self.tensor[:, 3] - self.tensor[:, 1])

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move every corner into an image of `box_size` (height, width), in place."""
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        self.tensor = torch.stack(
            [x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], dim=1
        )

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool: wider and higher than `threshold`."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """(N,) bool: at most `boundary_threshold` pixels outside an image of `box_size` (height, width)."""
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (
            (x0 >= -boundary_threshold)
            & (y0 >= -boundary_threshold)
            & (x1 < width + boundary_threshold)
            & (y1 < height + boundary_threshold)
        )

    def get_centers(self) -> Tensor:
        """(N, 2) centres (x, y)."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the x and y coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence["Boxes"]) -> "Boxes":
        """All boxes one after the other; none from an empty list."""
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def __getitem__(self, item: Any) -> "Boxes":
        """The boxes at an int (gives one box), a slice, or an index or mask tensor. Slices share memory."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        selected = self.tensor[item]
        assert selected.dim() == 2, f"indexing {len(self)} boxes with {item} does not give boxes"
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor (4,) after the other."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Area that every box of one set shares with every box of the other, (N, M)."""
    first = boxes1.tensor[:, :, None].unbind(1)  # x0, y0, x1, y1, (N, 1) each
    second = boxes2.tensor.t().contiguous()  # (4, M)
    width = _shared_length(first[0], first[2], second[0], second[2])  # (N, M)
    height = _shared_length(first[1], first[3], second[1], second[3])
    return width * height


def _shared_length(start1: Tensor, end1: Tensor, start2: Tensor, end2: Tensor) -> Tensor:
    """Length that intervals share. Axis by axis: one (N, M, 2) tensor is seven times slower on a CPU."""
    return (torch.min(end1, end2) - torch.max(start1, start2)).clamp(min=0)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of every pair, (N, M); 0 where two boxes do not overlap."""
    intersection = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - intersection
    return torch.where(intersection > 0, intersection / union, 0.0)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over the area of the second box of every pair, (N, M); 0 where two do not overlap."""
    intersection = pairwise_intersection(boxes1, boxes2)
    return torch.where(intersection > 0, intersection / boxes2.area(), 0.0)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """Signed distance of every point to the left, top, right and bottom side of every box.

    Args:
        points: (P, 2), (x, y).
        boxes: N boxes.

    Returns:
        (P, N, 4); all four are positive where the point lies inside.
    """
    points = points[:, None]  # (P, 1, 2)
    return torch.cat([points - boxes.tensor[:, :2], boxes.tensor[:, 2:] - points], dim=2)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of the first pair, the second pair, ... of two sets of N boxes, (N,)."""
    assert len(boxes1) == len(boxes2), (len(boxes1), len(boxes2))
    first, second = boxes1.tensor.unbind(1), boxes2.tensor.unbind(1)  # x0, y0, x1, y1, (N,) each
    width = _shared_length(first[0], first[2], second[0], second[2])
    height = _shared_length(first[1], first[3], second[1], second[3])
    intersection = width * height
    union = boxes1.area() + boxes2.area() - intersection
    return torch.where(intersection > 0, intersection / union, 0.0)
