import numpy as np
import pytest
import torch
import torch.nn.functional as F

import panomask.structures.heatmap_peaks as heatmap_peaks_module
from panomask.structures.heatmap_peaks import _pad, _upper_bounds, heatmap_peaks


def _plain(maps: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """The whole heatmaps (N, K, Hm, Wm) at their size, flat."""
    return F.interpolate(maps, size=(height, width), mode="bicubic", align_corners=False).flatten(2)


def _random_maps(kind: str, shape: tuple[int, int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, *shape, generator=generator, dtype=dtype)
    if kind == "noise":
        return maps
    y, x = (torch.arange(cells, dtype=dtype) for cells in shape)
    at_y, at_x = torch.rand(2, 3, 5, 1, 1, generator=generator, dtype=dtype) * torch.tensor(shape).view(
        2, 1, 1, 1, 1
    )
    return maps / 3 - 5 + 12 * torch.exp(-((y[:, None] - at_y) ** 2 + (x - at_x) ** 2) / 18)


@pytest.mark.parametrize("kind", ["noise", "peaks"])
@pytest.mark.parametrize("shape", [(56, 56), (7, 12), (1, 1), (2, 1)])
@pytest.mark.parametrize("size", [(131, 187), (56, 56), (57, 20), (3, 200), (5, 4), (1, 1)])
def test_equals_the_maximum_of_the_resized_heatmap(kind, shape, size):
    maps = _random_maps(kind, shape)
    values, places = heatmap_peaks(maps, [size] * 3)
    expected_values, expected_places = _plain(maps, *size).max(dim=2)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, expected_values)
    if shape[0] * shape[1] > 2:  # else pixels before the first cell's centre are all the same
        assert torch.equal(places, expected_places)


@pytest.mark.parametrize("kind", ["noise", "peaks"])
def test_single_precision(kind):
    maps = _random_maps(kind, (56, 56), torch.float32)
    values, places = heatmap_peaks(maps, [(90, 300)] * 3)
    resized = _plain(maps, 90, 300)
    torch.testing.assert_close(values, resized.amax(dim=2))
    torch.testing.assert_close(values, resized.gather(2, places[..., None])[..., 0])


def test_objects_of_different_sizes():
    maps = _random_maps("peaks", (14, 14))
    sizes = [(30, 50), (9, 80), (100, 14)]
    values, places = heatmap_peaks(maps, sizes)
    for i, size in enumerate(sizes):
        expected = _plain(maps[i : i + 1], *size)[0].max(dim=1)
        torch.testing.assert_close(values[i], expected.values)
        assert torch.equal(places[i], expected.indices)


def test_no_pixel_exceeds_the_bound_of_its_patch():
    maps = torch.cat([_random_maps("noise", (9, 8)), _random_maps("noise", (9, 8)) ** 9]).flatten(0, 1)
    bounds = torch.from_numpy(_upper_bounds(_pad(maps.numpy())))
    assert bounds.shape == (len(maps), 10, 9)
    scale = 20  # even: no pixel lies on a cell's centre, and patches begin half a cell before the first one
    pixels = _plain(maps[None], 8 * scale, 9 * scale).view(1, -1, 9 * scale, 8 * scale)
    pixels = F.pad(pixels, (scale // 2,) * 4, value=-torch.inf)
    highest = F.max_pool2d(pixels, scale)[0]
    assert (highest <= bounds + 1e-9 * maps.abs().amax()).all()
    assert (highest > bounds - 0.05 * maps.abs().amax(dim=(1, 2), keepdim=True)).any(), "a bound of no use"


def test_few_patches_can_hold_a_peak():
    """What makes it fast: those below the peak are not looked at."""
    maps = _random_maps("peaks", (56, 56)).flatten(0, 1)
    share = (_upper_bounds(_pad(maps.numpy())) >= maps.amax(dim=(1, 2))[:, None, None].numpy()).mean()
    assert share < 0.02


def test_of_equal_peaks_the_first():
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 2, 5] = maps[0, 0, 2, 1] = maps[0, 0, 6, 0] = 1
    maps[0, 1, 4, 3] = maps[0, 1, 5, 3] = 1  # the resized heatmap is highest between them, twice
    for scale in (1, 3, 4):
        size = (8 * scale, 8 * scale)
        values, places = heatmap_peaks(maps, [size])
        resized = _plain(maps, *size)
        torch.testing.assert_close(values, resized.amax(dim=2))
        is_highest = resized > resized.amax(dim=2, keepdim=True) - 1e-6
        assert torch.equal(places, is_highest.int().argmax(dim=2))


def test_pixels_are_computed_in_portions(monkeypatch):
    maps = _random_maps("noise", (10, 10))
    expected = heatmap_peaks(maps, [(40, 60)] * 3)
    portions = []

    def count(windows, y_weights, x_weights):
        pixels = interpolate(windows, y_weights, x_weights)
        portions.append(pixels.size)
        return pixels

    interpolate = heatmap_peaks_module._interpolate
    monkeypatch.setattr(heatmap_peaks_module, "_interpolate", count)
    monkeypatch.setattr(heatmap_peaks_module, "MAX_CANDIDATE_PIXELS", 100)
    for ours, whole in zip(heatmap_peaks(maps, [(40, 60)] * 3), expected, strict=True):
        assert torch.equal(ours, whole)
    assert len(portions) > 6
    assert max(portions) <= 100


def test_an_object_as_large_as_a_large_image():
    """Resized as a whole, five heatmaps of 10,000 x 10,000 pixels would take 2 GB."""
    maps = _random_maps("peaks", (56, 56), torch.float32)[:1]
    values, places = heatmap_peaks(maps, [(10000, 10000)])
    row, column = places // 10000, places % 10000
    coarse_values, coarse = heatmap_peaks(maps, [(1000, 1000)])
    torch.testing.assert_close(values, coarse_values, rtol=1e-3, atol=1e-3)
    assert ((row / 10 - coarse // 1000).abs() < 5).all()
    assert ((column / 10 - coarse % 1000).abs() < 5).all()


def test_a_flat_heatmap_has_its_peak_anywhere():
    values, places = heatmap_peaks(torch.full((1, 1, 6, 6), -0.3), [(20, 30)])
    assert values.item() == pytest.approx(-0.3)
    assert 0 <= places.item() < 600


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_models_heatmaps(bad, recwarn):
    maps = _random_maps("peaks", (6, 6))[:1]
    expected = heatmap_peaks(maps, [(20, 30)])
    maps[0, 1, 2, 3] = bad
    values, places = heatmap_peaks(maps, [(20, 30)])
    assert values[0, 1].isnan()
    assert 0 <= places[0, 1] < 600
    keep = [0, 2, 3, 4]
    assert torch.equal(values[:, keep], expected[0][:, keep])
    assert torch.equal(places[:, keep], expected[1][:, keep])
    assert not recwarn.list


def test_a_traced_graph_finds_other_peaks_too():
    maps = torch.randn(1, 2, 7, 7)
    graph = torch.jit.trace(lambda x: heatmap_peaks(x, [(9, 11)]), maps)
    for found, expected in zip(graph(-maps), heatmap_peaks(-maps, [(9, 11)]), strict=True):
        torch.testing.assert_close(found, expected)
