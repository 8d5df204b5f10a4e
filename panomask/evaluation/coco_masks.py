"""Segmentations in COCO's format: every kind as compressed RLE, checked and measured many at a time.

pycocotools trusts what it reads. A text that breaks off makes it write beyond its memory, runs that do not
fill the image make it compare two masks forever: what comes from files is looked through before.

COCO's RLE lists how long the runs of pixels are, down the columns, background first. From the fourth on, a
run is stored as the difference to the last but one. A number has 5 bits a character, the lowest first; 32
says that it goes on, 16 in its last character that it is negative; 48 is added
(https://github.com/cocodataset/cocoapi, maskApi.c).

N masks, L characters of all of them, V runs of all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

MIN_POLYGON_NUMBERS = 6
"""Three points: pycocotools takes a list of four numbers for a box."""
LARGEST_COORDINATE = 1e6
"""Beyond it, pycocotools runs out of memory or numbers while it draws a polygon's border."""
CHARACTERS_AT_A_TIME = 100_000
"""Their arrays stay within a processor's cache, which is twice as fast as a million."""
AREAS_AT_A_TIME = 255
"""pycocotools puts their number into eight bits, and fails if it is more."""
MAX_CHARACTERS = 7
"""Of a number: 35 bits, more than the pixels of an image need."""
MAX_PIXELS = 2**32 - 1
FIRST, MORE, NEGATIVE = 48, 32, 16
TEXT, WHOLE, REAL = (str, bytes), (int, np.integer), (int, float)


def to_rle(segmentation: Any, height: int | None, width: int | None) -> dict[str, Any] | None:
    """One compressed RLE of any COCO segmentation: polygons, uncompressed or compressed RLE.

    Of a compressed one only the form is looked at; see `are_readable` and `fill_their_images`.

    Returns:
        None where there is no mask: no segmentation, or polygons of fewer than three points.

    Raises:
        ValueError: polygons without the image's size, or something that is no segmentation.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        if not polygons:
            return None
        if height is None or width is None:
            raise ValueError("polygons need 'height' and 'width' of their image")
        _check_size((height, width))
        return mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise ValueError("segmentation must be a list of polygons or a dict with 'size' and 'counts'")
    size, counts = segmentation["size"], segmentation["counts"]
    _check_size(size)
    if isinstance(counts, TEXT):
        return segmentation
    if not isinstance(counts, list) or not all(isinstance(run, WHOLE) and run >= 0 for run in counts):
        raise ValueError("the 'counts' of an RLE must be text or a list of whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"the runs of an RLE are {sum(counts)} pixels, its size is {size[0]} x {size[1]}")
    return mask_util.frPyObjects(segmentation, *size)


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list) or len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
        return False
    if not all(isinstance(x, REAL) and -LARGEST_COORDINATE <= x <= LARGEST_COORDINATE for x in polygon):
        raise ValueError(f"a polygon must be numbers (x, y, ...) between +-{LARGEST_COORDINATE:g}")
    return True


def _check_size(size: Any) -> None:
    try:
        height, width = size
    except (TypeError, ValueError):
        height = width = None
    if not (isinstance(height, WHOLE) and isinstance(width, WHOLE) and height > 0 < width):
        raise ValueError(
            f"the size {size!s:.60} of a mask must be two whole numbers above 0, [height, width]"
        )
    if height * width > MAX_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels is too large for RLE")


def rle_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Pixels of readable RLEs: (N,)."""
    pieces = [
        mask_util.area(list(rles[i : i + AREAS_AT_A_TIME])) for i in range(0, len(rles), AREAS_AT_A_TIME)
    ]
    return np.concatenate([np.zeros(0), *pieces])


def rle_boxes(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Boxes of readable RLEs: (N, 4), xywh; 0 0 0 0 for no pixel."""
    return mask_util.toBbox(list(rles)) if rles else np.zeros((0, 4))


def are_readable(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Whether `counts` (text or bytes) of each are whole numbers: (N,). Their sum is not looked at."""
    return _by_pieces(rles, _is_text_whole)


def fill_their_images(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Whether the runs of each are as many pixels as its `size`, (height, width), says: (N,)."""
    return _by_pieces(rles, _is_image_filled)


def _by_pieces(
    rles: Sequence[dict[str, Any]], check: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    texts = [text if isinstance(text := rle["counts"], str) else text.decode("latin-1") for rle in rles]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    passed = lengths > 0
    for start, stop in _pieces(np.cumsum(lengths)):
        kept = np.flatnonzero(passed[start:stop]) + start
        if len(kept):
            num_pixels = np.array([rles[i]["size"] for i in kept], np.int64).prod(axis=1)
            passed[kept] = check(_codes("".join(texts[start:stop])), np.cumsum(lengths[kept]), num_pixels)
    return passed


def _pieces(num_characters: np.ndarray) -> Iterator[tuple[int, int]]:
    """From where to where masks are looked at together, given how many characters there are up to each."""
    cuts = np.flatnonzero(np.diff(num_characters // CHARACTERS_AT_A_TIME, prepend=-1)).tolist()
    yield from pairwise([*cuts, len(num_characters)])


def _codes(text: str) -> np.ndarray:
    """Characters (L,) less what COCO adds; those that do not belong there are 64 and more."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8) - np.uint8(FIRST)  # below 0 is around 255
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).clip(max=255).astype(
        np.uint8
    ) - np.uint8(FIRST)


def _is_text_whole(codes: np.ndarray, text_ends: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Characters (L,) without what is added, and where each mask's end, (N,) -> (N,)."""
    starts = np.append(0, text_ends[:-1])
    return (codes[text_ends - 1] < MORE) & (np.maximum.reduceat(codes, starts) < 2 * MORE)


def _is_image_filled(codes: np.ndarray, text_ends: np.ndarray, num_pixels: np.ndarray) -> np.ndarray:
    """As `_is_text_whole`; (N,) pixels of each image."""
    is_whole = _is_text_whole(codes, text_ends, num_pixels)
    is_last = codes & MORE == 0
    is_last[text_ends - 1] = True
    ends = np.flatnonzero(is_last)  # (V,)
    first = np.append(0, np.searchsorted(ends, text_ends[:-1]))  # (N,) the first number of each mask
    numbers, is_short = _read_numbers(codes, ends)
    runs = _undo_differences(numbers, first)
    is_whole &= np.logical_and.reduceat(is_short & (runs >= 0), first)
    return is_whole & (np.add.reduceat(runs, first) == num_pixels)


def _read_numbers(codes: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (V,) whose last characters are at `ends`, and whether they are short enough to be one."""
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    numbers = (codes[starts] & (MORE - 1)).astype(np.int64)
    for place in range(1, min(int(lengths.max()), MAX_CHARACTERS)):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= (codes[starts[longer] + place] & (MORE - 1)).astype(np.int64) << 5 * place
    negative = np.flatnonzero(codes[ends] & NEGATIVE)
    numbers[negative] -= np.int64(1) << 5 * np.minimum(lengths[negative], MAX_CHARACTERS)
    return numbers, lengths <= MAX_CHARACTERS


def _undo_differences(numbers: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Runs (V,): a mask's number from the fourth on is added to the last but one.

    Sums of every other number are taken over all masks at once, and what came before a mask is subtracted.
    """
    sums = np.zeros(len(numbers) + 2, np.int64)
    sums[2:] = numbers
    sums[2 + first] = 0  # the second number after it begins anew
    for parity in (0, 1):
        np.cumsum(sums[parity::2], out=sums[parity::2])
    counts = np.diff(np.append(first, len(numbers)))
    is_odd = (np.arange(len(numbers)) - np.repeat(first, counts)) & 1 > 0
    before = np.where(is_odd, np.repeat(sums[first + 1], counts), np.repeat(sums[first], counts))
    runs = sums[2:] - before
    runs[first] = numbers[first]
    return runs
