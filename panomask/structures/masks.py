"""Masks of objects, as pixels, as polygons, or as small grids inside boxes.

Shapes: N objects, H x W the image, S cells on each side of a mask target.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from panomask.errors import InputError
from panomask.layers import ROIAlign, paste_masks_in_image
from panomask.structures.boxes import Boxes
from panomask.structures.rasterization import draw_polygons, rasterize_polygons_within_box

Polygons = list[np.ndarray]
"""One object: rings of flat float64 coordinates x0, y0, x1, y1, ..."""

_MASKS_AT_ONCE = 4


class BitMasks:
    """N masks of whole images: the attribute `tensor` is bool (N, H, W), `image_size` is (H, W)."""

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        """`tensor`: (N, H, W), nonzero where the object is."""
        self.tensor = torch.as_tensor(tensor).to(torch.bool)
        assert self.tensor.dim() == 3, self.tensor.shape
        self.image_size: tuple[int, int] = (self.tensor.shape[1], self.tensor.shape[2])

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | Sequence[Sequence[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        """Rasterise polygons by COCO's rule."""
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        masks = np.zeros((len(polygon_masks), height, width), dtype=bool)
        for mask, polygons in zip(masks, polygon_masks, strict=True):
            draw_polygons(mask, polygons)
        return BitMasks(masks)

    @staticmethod
    def from_roi_masks(
        roi_masks: "ROIMasks", height: int, width: int, *, boxes: Boxes | Tensor, threshold: float = 0.5
    ) -> "BitMasks":
        """Paste masks that live inside `boxes` (N, 4) xyxy into images of height x width."""
        return roi_masks.to_bitmasks(boxes, height, width, threshold)

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        """The masks on another device."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def pin_memory(self) -> "BitMasks":
        """The masks in memory that a GPU copies from by itself; torch's loaders call this."""
        return BitMasks(self.tensor.pin_memory())

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        """(N,) int64 number of pixels."""
        return self.tensor.flatten(1).sum(dim=1)

    def nonempty(self) -> Tensor:
        """(N,) bool: does the mask have a pixel?"""
        return _any(self.tensor.flatten(1), dim=1)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Each mask inside its box at S x S cells: the mean over a cell (RoIAlign) of at least one half.

        Args:
            boxes: (N, 4) xyxy, on any device.
            mask_size: S.

        Returns:
            (N, S, S) bool on the device of the masks.
        """
        assert len(boxes) == len(self), (len(boxes), len(self))
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        # As floats, a hundred masks of whole images take 400 MB, more time to write than to pool.
        portion = _MASKS_AT_ONCE if self.device.type == "cpu" else max(len(self), 1)
        pairs = zip(self.tensor.split(portion), boxes.split(portion), strict=True)
        return torch.cat([_pool_masks(masks, inside, mask_size) for masks, inside in pairs])  # (N, S, S)

    def get_bounding_boxes(self) -> Boxes:
        """The boxes around the pixels, the right and bottom sides after the last one; zeros if none."""
        if self.tensor.numel() == 0:
            return Boxes(torch.zeros(len(self), 4, device=self.device))
        x0, x1 = _first_and_last(_any(self.tensor, dim=1))
        y0, y1 = _first_and_last(_any(self.tensor, dim=2))
        return Boxes(torch.stack([x0, y0, x1, y1], dim=1))

    @staticmethod
    def cat(bitmasks_list: Sequence["BitMasks"]) -> "BitMasks":
        """The masks of several BitMasks of one image size, one after the other."""
        assert len(bitmasks_list) > 0
        return BitMasks(torch.cat([each.tensor for each in bitmasks_list]))

    def __getitem__(self, item: Any) -> "BitMasks":
        """The masks at an int (gives one mask), a slice, or an index or mask tensor. Slices share memory."""
        selected = self.tensor[item].unsqueeze(0) if isinstance(item, int) else self.tensor[item]
        assert selected.dim() == 3, f"indexing {len(self)} masks with {item} does not give masks"
        return BitMasks(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One bool tensor (H, W) after the other."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"


def _pool_masks(masks: Tensor, boxes: Tensor, mask_size: int) -> Tensor:
    """(N, S, S) bool of masks (N, H, W) and boxes (N, 4), see `BitMasks.crop_and_resize`."""
    index = torch.arange(len(masks), device=masks.device, dtype=torch.float32)[:, None]
    pool = ROIAlign((mask_size, mask_size), spatial_scale=1.0, sampling_ratio=0, aligned=True)
    return pool(masks[:, None].float(), torch.cat([index, boxes], dim=1))[:, 0] >= 0.5


def _any(masks: Tensor, dim: int) -> Tensor:
    """`masks.any(dim)` of bool masks, as the largest byte: twenty times faster on a CPU."""
    if masks.shape[dim] == 0:
        return masks.any(dim)
    return masks.view(torch.uint8).amax(dim).bool()


def _first_and_last(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First True of each row (N, L) and the place after the last; 0 and 0 where there is none."""
    length = occupied.shape[1]
    place = torch.arange(length, device=occupied.device)
    first = torch.where(occupied, place, length).amin(dim=1)
    last = torch.where(occupied, place + 1, 0).amax(dim=1)
    return torch.where(last > 0, first, 0), last


class PolygonMasks:
    """N masks, each a list of polygons: the attribute `polygons`. Always on the CPU, in float64."""

    def __init__(self, polygons: Sequence[Sequence[Any]]) -> None:
        """
        Args:
            polygons: for each object the rings that together cover it, flat x0, y0, x1, y1, ... of at least
                three points, as lists, arrays or tensors.

        Raises:
            InputError: a ring with an odd number of coordinates or fewer than three points.
        """
        if isinstance(polygons, np.ndarray | Tensor):
            raise ValueError("PolygonMasks takes one list of polygons for each object, not one array")
        self.polygons: list[Polygons] = [[_as_ring(ring) for ring in rings] for rings in polygons]

    def __getstate__(self) -> dict[str, Any]:
        """To another process go three arrays, not one for every ring."""
        rings = [ring for rings in self.polygons for ring in rings]
        packed = (
            np.concatenate([np.zeros(0), *rings]),
            np.array([len(ring) for ring in rings], dtype=np.int64),
            np.array([len(rings) for rings in self.polygons], dtype=np.int64),
        )
        return {**self.__dict__, "polygons": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(state["polygons"], list):  # from a file of before they were packed
            return
        coordinates, ring_lengths, num_rings = state["polygons"]
        rings = iter(np.split(coordinates, ring_lengths.cumsum()[:-1]))
        self.polygons = [list(itertools.islice(rings, count)) for count in num_rings.tolist()]

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        """Self: polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def area(self) -> Tensor:
        """(N,) float64 sum of the rings' areas (shoelace formula); overlapping rings count twice."""
        areas = [sum(_ring_area(ring) for ring in rings) for rings in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    def nonempty(self) -> Tensor:
        """(N,) bool: does the object have a polygon?"""
        return torch.tensor([len(rings) > 0 for rings in self.polygons], dtype=torch.bool)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Each mask inside its box at S x S cells.

        Args:
            boxes: (N, 4) xyxy.
            mask_size: S.

        Returns:
            (N, S, S) bool on the device of `boxes`.
        """
        assert len(boxes) == len(self), (len(boxes), len(self))
        if len(self) == 0:
            return torch.zeros(0, mask_size, mask_size, dtype=torch.bool, device=boxes.device)
        masks = [
            rasterize_polygons_within_box(rings, box, mask_size)
            for rings, box in zip(self.polygons, boxes.tolist(), strict=True)
        ]
        return torch.stack(masks).to(boxes.device)

    def get_bounding_boxes(self) -> Boxes:
        """The boxes around all points of each object; zeros for an object without polygons."""
        boxes = np.zeros((len(self), 4))
        for box, rings in zip(boxes, self.polygons, strict=True):
            if rings:
                points = np.concatenate(rings).reshape(-1, 2)
                box[:2], box[2:] = points.min(axis=0), points.max(axis=0)
        return Boxes(boxes)

    @staticmethod
    def cat(polymasks_list: Sequence["PolygonMasks"]) -> "PolygonMasks":
        """The objects of several PolygonMasks one after the other."""
        assert len(polymasks_list) > 0
        return _from_checked([rings for each in polymasks_list for rings in each.polygons])

    def __getitem__(self, item: Any) -> "PolygonMasks":
        """The objects at an int (gives one object), a slice, a list of ints, or an index or mask tensor."""
        if isinstance(item, int):
            return _from_checked([self.polygons[item]])
        if isinstance(item, slice):
            return _from_checked(self.polygons[item])
        index = torch.as_tensor(item)
        if index.dtype == torch.bool:
            assert index.shape == (len(self),), (index.shape, len(self))
            index = index.nonzero()[:, 0]
        return _from_checked([self.polygons[i] for i in index.tolist()])

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[Polygons]:
        """One object's list of rings after the other."""
        yield from self.polygons

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _as_ring(ring: Any) -> np.ndarray:
    if isinstance(ring, Tensor):
        ring = ring.cpu().numpy()
    if not (isinstance(ring, np.ndarray) and ring.dtype == np.float64 and ring.ndim == 1):
        ring = np.asarray(ring, dtype=np.float64).ravel()
    if len(ring) < 6 or len(ring) % 2:
        raise InputError(
            f"polygon of {len(ring)} coordinates; allowed: x, y of at least three points; mend or drop it"
        )
    return ring


def _from_checked(polygons: list[Polygons]) -> PolygonMasks:
    out = PolygonMasks([])
    out.polygons = polygons
    return out


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring[0::2], ring[1::2]
    return float(0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


class ROIMasks:
    """N soft masks inside boxes: the attribute `tensor` is (N, S, S), values 0 to 1."""

    def __init__(self, tensor: Tensor) -> None:
        """`tensor`: (N, S, S)."""
        assert tensor.dim() == 3, tensor.shape
        self.tensor = tensor

    def to(self, device: torch.device | str) -> "ROIMasks":
        """The masks on another device."""
        return ROIMasks(self.tensor.to(device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to_bitmasks(self, boxes: Boxes | Tensor, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Paste each mask into its box (N, 4) xyxy in an image of height x width."""
        tensor = boxes.tensor if isinstance(boxes, Boxes) else boxes
        return BitMasks(paste_masks_in_image(self.tensor, tensor, (height, width), threshold))

    def __getitem__(self, item: Any) -> "ROIMasks":
        """The masks at a slice, or an index or mask tensor."""
        selected = self.tensor[item]
        assert selected.dim() == 3, f"indexing {len(self)} masks with {item} does not give masks"
        return ROIMasks(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"
