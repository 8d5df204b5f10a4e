"""The highest value of heatmaps that are resized with bicubic interpolation, without resizing all of them.

Shapes: K heatmaps of one object, Hm x Wm cells, resized to height x width pixels; C candidates.

Cubic convolution (Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981) with a = -0.75,
as `torch.nn.functional.interpolate` has it: a pixel between two cells' centres, at t of the way, is a sum of
four cells. The inner two have weights >= 0 with the sum 1 + n, the outer two <= 0 with the sum -n, and
n = 0.75 t (1 - t) is at most 3/16.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_CANDIDATE_PIXELS = 2**16
"""Pixels computed in one go on the CPU: 256 KB of float32, which stay in its cache."""

_A = -0.75
_OVERSHOOT = 3 / 16
_ROUNDING = 1e-5  # of the largest value: some twenty times what float32 sums of 16 products are off


def heatmap_peaks(maps: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The highest value of each heatmap at its object's size, and where it is.

    Args:
        maps: (N, K, Hm, Wm) float32 or float64.
        sizes: of each of N objects, (width, height) in pixels, 1 or more.

    Returns:
        values: (N, K); NaN for a heatmap that holds NaN.
        places: (N, K) int64, y * width + x of the first pixel that has this value.
    """
    values = maps.new_zeros(maps.shape[:2])
    places = maps.new_zeros(maps.shape[:2], dtype=torch.int64)
    on_cpu = maps.device.type == "cpu" and not torch.jit.is_tracing()  # NumPy would end the graph
    for i, (width, height) in enumerate(sizes):  # every object has a size of its own
        if on_cpu:
            top, place = _find_peaks(maps[i].detach().numpy(), height, width)
            values[i], places[i] = torch.from_numpy(top), torch.from_numpy(place)
        else:  # the number of candidates would have to be waited for
            resized = F.interpolate(maps[i : i + 1], (height, width), mode="bicubic", align_corners=False)
            values[i], places[i] = resized[0].flatten(1).max(dim=1)
    return values, places


@np.errstate(invalid="ignore")  # infinite values give NaN, as they do in PyTorch
def _find_peaks(maps: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (K,) and places (K,) of the peaks of maps (K, Hm, Wm).

    The pixels whose 16 cells are the same make a patch. Of each patch's pixels a bound is known from its
    cells; those whose bound is below some pixel of the heatmap, which is computed first, cannot hold its
    peak. Some 20 of 3,000 patches remain where a heatmap has a peak to speak of, 500 in pure noise.
    """
    y, x = _axis(height, maps.shape[1], maps.dtype), _axis(width, maps.shape[2], maps.dtype)
    padded = _pad(maps)
    reached = _pixels_at_highest_cells(maps, padded, y, x)
    reached -= _ROUNDING * np.maximum(maps.max(axis=(1, 2)), -maps.min(axis=(1, 2)))
    is_candidate = ~(_upper_bounds(padded) < reached[:, None, None])  # where there is NaN: every patch
    is_candidate &= y.has_pixels[:, None] & x.has_pixels
    # Three times as fast as np.nonzero of three dimensions.
    which, patch = np.divmod(np.flatnonzero(is_candidate), is_candidate[0].size)
    patch_y, patch_x = np.divmod(patch, is_candidate.shape[2])  # (C,) each, as `which`
    values = np.empty(len(which), maps.dtype)
    places = np.empty(len(which), np.int64)
    step = max(1, MAX_CANDIDATE_PIXELS // (len(y.pixels) * len(x.pixels)))
    for first in range(0, len(which), step):
        some = slice(first, first + step)
        at_y, at_x = patch_y[some], patch_x[some]
        windows = _windows(padded, which[some], at_y, at_x)
        pixels = _interpolate(windows, y.patch_weights[..., at_y], x.patch_weights[..., at_x])
        pixels = pixels.reshape(-1, len(at_y))
        highest = pixels.argmax(axis=0)
        values[some] = pixels[highest, np.arange(len(at_y))]
        row, column = np.divmod(highest, len(x.pixels))
        places[some] = y.pixels[row, at_y] * width + x.pixels[column, at_x]
    return _first_maxima(which, values, places, len(maps))


def _pixels_at_highest_cells(maps: np.ndarray, padded: np.ndarray, y: "_Axis", x: "_Axis") -> np.ndarray:
    """Of each map (K, Hm, Wm) the pixel that is nearest to the highest cell (K,)."""
    num_maps, rows, columns = maps.shape
    row, column = np.divmod(maps.reshape(num_maps, -1).argmax(axis=1), columns)
    at_y = (2 * row + 1) * len(y.patch_of) // (2 * rows)
    at_x = (2 * column + 1) * len(x.patch_of) // (2 * columns)
    windows = _windows(padded, np.arange(num_maps), y.patch_of[at_y], x.patch_of[at_x])
    return _interpolate(windows, y.weights[:, None, at_y], x.weights[:, None, at_x])[0, 0]


def _first_maxima(
    which: np.ndarray, values: np.ndarray, places: np.ndarray, num_maps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The highest of the values (C,) of each heatmap, and the first place among those that have it.

    Args:
        which: (C,) heatmap of each value, 0 to `num_maps` - 1; all of them occur.
        places: (C,).
    """
    top = np.full(num_maps, -np.inf, values.dtype)
    np.maximum.at(top, which, values)  # NaN wins
    is_top = (values == top[which]) | np.isnan(values)
    first = np.full(num_maps, np.iinfo(np.int64).max)
    np.minimum.at(first, which[is_top], places[is_top])
    return top, first


class _Axis(NamedTuple):
    """How an axis of S cells becomes P pixels in S + 1 patches, the first before the first cell's centre.

    A patch has up to r pixels; those that have fewer repeat their last one.
    """

    patch_of: np.ndarray  # (P,) of each pixel
    weights: np.ndarray  # (4, P) of the four cells around it
    has_pixels: np.ndarray  # (S + 1,) bool, of each patch
    pixels: np.ndarray  # (r, S + 1) of each patch
    patch_weights: np.ndarray  # (4, r, S + 1) of its pixels


def _axis(num_pixels: int, num_cells: int, dtype: np.dtype) -> _Axis:
    """In the heatmap's precision and PyTorch's order, so that pixels round to the same sides of cells."""
    centers = np.arange(num_pixels, dtype=dtype) + dtype.type(0.5)
    at = centers * dtype.type(num_cells / num_pixels) - dtype.type(0.5)  # 0 at the first cell's centre
    before = np.floor(at)
    t = at - before  # of the way from the cell before to the one after
    s = 1 - t
    outer = (_A * t * s * s, _A * s * t * t)
    inner = (((_A + 2) * near - (_A + 3)) * near * near + 1 for near in (t, s))
    weights = np.stack([outer[0], *inner, outer[1]])
    patch_of = before.astype(np.int64) + 1
    counts = np.bincount(patch_of, minlength=num_cells + 1)
    ends = counts.cumsum()
    pixels = np.minimum(ends - counts + np.arange(counts.max())[:, None], ends - 1).clip(min=0)
    return _Axis(patch_of, weights, counts > 0, pixels, weights[:, pixels])


def _pad(maps: np.ndarray) -> np.ndarray:
    """Maps with their border repeated twice (K, Hm + 4, Wm + 4); `np.pad` takes several times as long."""
    num_maps, height, width = maps.shape
    padded = np.empty((num_maps, height + 4, width + 4), maps.dtype)
    padded[:, 2:-2, 2:-2] = maps
    padded[:, :2, 2:-2], padded[:, -2:, 2:-2] = maps[:, :1], maps[:, -1:]
    padded[:, :, :2], padded[:, :, -2:] = padded[:, :, 2:3], padded[:, :, -3:-2]
    return padded


def _windows(padded: np.ndarray, which: np.ndarray, patch_y: np.ndarray, patch_x: np.ndarray) -> np.ndarray:
    """The 4 x 4 cells of patches (C,) of the padded heatmaps `which` -> (4, 4, C)."""
    _, height, width = padded.shape
    first = (which * height + patch_y) * width + patch_x
    steps = np.arange(4)[:, None] * width + np.arange(4)
    return padded.reshape(-1)[steps[:, :, None] + first]


def _interpolate(windows: np.ndarray, y_weights: np.ndarray, x_weights: np.ndarray) -> np.ndarray:
    """Windows (4, 4, C) by weights (4, ry, C) and (4, rx, C) -> pixels (ry, rx, C).

    Candidates come last, where NumPy runs over thousands of them in one go; sums are in PyTorch's order.
    """
    rows = windows[:, 0, None] * x_weights[0]  # (4, rx, C)
    for i in range(1, 4):
        rows += windows[:, i, None] * x_weights[i]
    pixels = rows[0] * y_weights[0][:, None]  # (ry, rx, C)
    for i in range(1, 4):
        pixels += rows[i] * y_weights[i][:, None]
    return pixels


def _upper_bounds(padded: np.ndarray) -> np.ndarray:
    """What no pixel of each patch exceeds: padded maps (K, Hm + 4, Wm + 4) -> (K, Hm + 1, Wm + 1).

    With n as above, a pixel's weights are >= 0 for the inner 2 x 2 cells (sum (1 + n)^2) and the four corners
    (n^2), and <= 0 for the others (-2 n (1 + n)). The highest value of the first, the highest and the lowest
    of all in their places give a bound, which grows with n.
    """
    pairs = _sliding(np.maximum, padded, 1)
    inner = pairs[:, 1:-1, 1:-1]
    highest = _sliding(np.maximum, pairs, 2)
    lowest = _sliding(np.minimum, _sliding(np.minimum, padded, 1), 2)
    inner_sum, corner_sum = (1 + _OVERSHOOT) ** 2, _OVERSHOOT**2
    return inner_sum * inner + corner_sum * highest - (inner_sum + corner_sum - 1) * lowest


def _sliding(extreme: np.ufunc, maps: np.ndarray, step: int) -> np.ndarray:
    """The extreme of the values at 0 and `step` along both axes: (K, H, W) -> (K, H - step, W - step)."""
    maps = extreme(maps[:, step:], maps[:, :-step])
    return extreme(maps[:, :, step:], maps[:, :, :-step])
