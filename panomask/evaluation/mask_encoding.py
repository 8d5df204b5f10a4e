"""Binary masks as run lengths, COCO's RLE, without a look at every pixel of a mostly empty image."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Masks as compressed RLE, the same as pycocotools' `encode` gives.

    Args:
        masks: (M, H, W) bool, or numbers whose integer part is 0 outside of the object.

    Returns:
        M dicts `{"size": [H, W], "counts": text}`.
    """
    masks = masks.detach().cpu()
    if masks.dtype != torch.bool:  # one at a time, to spare memory
        return [encode_masks(mask[None].to(torch.uint8) != 0)[0] for mask in masks]
    if masks.numel() == 0:
        return [_encode(mask, np.zeros(0, dtype=np.int64)) for mask in masks.numpy()]
    # As the largest byte: on a CPU many times as fast as `any`.
    has_object = masks.view(torch.uint8).amax(dim=2).numpy()  # (M, H)
    return [_encode(mask, np.flatnonzero(rows)) for mask, rows in zip(masks.numpy(), has_object, strict=True)]


def _encode(mask: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Compressed RLE of a (H, W) bool array and the rows (h,) in which it holds something.

    RLE counts pixels down the columns, so runs end where a pixel differs from the one above it. Those places
    are found in the order in which the pixels lie in memory, among the rows that hold something, and sorted:
    pycocotools' `encode` wants a copy with the columns in a row, and then looks at every pixel.
    """
    height, width = mask.shape
    ends = _run_ends(mask[rows[0] : rows[-1] + 1], int(rows[0]), height) if len(rows) else rows
    counts = np.diff(ends, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:  # pycocotools writes no empty run at the end
        counts = counts[:-1]
    rle = mask_util.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _run_ends(band: np.ndarray, first_row: int, height: int) -> np.ndarray:
    """Where runs end, in pixels counted down the columns of an image, ascending.

    Args:
        band: (h, W) bool, h > 0, the rows from `first_row` on; the others are empty.
        height: of the image.
    """
    is_end = np.empty((len(band) + 1, band.shape[1]), dtype=bool)  # between each pixel and the one above it
    is_end[0], is_end[-1] = band[0], band[-1]
    np.not_equal(band[1:], band[:-1], out=is_end[1:-1])
    row, column = np.divmod(np.flatnonzero(is_end), band.shape[1])
    ends, times = np.unique(column * height + row + first_row, return_counts=True)
    return ends[times == 1]  # twice: a run ends at a column's foot and the next one begins at a column's top
