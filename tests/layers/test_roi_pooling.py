import pytest
import torch

from panomask.layers import ROIAlign, ROIPool, ROIWarp


def _ramp(height: int, width: int) -> torch.Tensor:
    """A feature map (1, 2, H, W) whose channels hold x and y of each cell's centre, in feature cells."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


def test_on_a_ramp_each_cell_gives_its_centre():
    """Bilinear sampling of a linear function is exact, so the mean over a cell is the value at its centre."""
    roi = torch.tensor([[0, 8.0, 12.0, 24.0, 20.0]])  # in feature cells of stride 4: x 2..6, y 3..5
    for sampling_ratio in (0, 1, 2):
        out = ROIAlign(2, 0.25, sampling_ratio, aligned=True)(_ramp(10, 10), roi)
        torch.testing.assert_close(out[0, 0], torch.tensor([[3.0, 5.0]] * 2))
        torch.testing.assert_close(out[0, 1], torch.tensor([[3.5, 3.5], [4.5, 4.5]]))


def test_not_aligned_reads_half_a_cell_further():
    roi = torch.tensor([[0, 8.0, 12.0, 24.0, 20.0]])
    aligned, shifted = (ROIAlign((2, 2), 0.25, 2, aligned=a)(_ramp(10, 10), roi) for a in (True, False))
    torch.testing.assert_close(shifted, aligned + 0.5)


def test_picks_the_image_of_each_roi():
    features = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    rois = torch.tensor([[1, 0.0, 0.0, 4.0, 4.0], [0, 0.0, 0.0, 4.0, 4.0]])
    assert ROIAlign(1, 1.0, 0)(features, rois).flatten().tolist() == [1, 0]


def test_no_rois():
    features = torch.zeros(2, 3, 8, 8, requires_grad=True)
    out = ROIAlign((7, 5), 0.5, 0)(features, torch.zeros(0, 5))
    assert out.shape == (0, 3, 7, 5)
    out.sum().backward()
    assert features.grad.abs().sum() == 0


def test_half_precision_features_keep_exact_boxes():
    """In bfloat16 the corner 1003 would become 1004; the ramp shows where the samples were taken."""
    features = torch.zeros(1, 1, 4, 260)
    features[..., 250:252] = 1
    roi = torch.tensor([[0, 1001.0, 0.0, 1003.0, 16.0]])
    pool = ROIAlign(1, 0.25, 1)
    out = pool(features.bfloat16(), roi)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), pool(features, roi))


def test_max_of_the_samples():
    """One cell of two samples a side, at x = 2.5 and 3.5 and the same y, on the ramp x + 10 y."""
    ramp = (torch.arange(8.0) + 10 * torch.arange(8.0)[:, None])[None, None]  # cell i lies at i + 0.5
    roi = torch.tensor([[0, 2.0, 2.0, 4.0, 4.0]])
    assert ROIAlign(1, 1.0, 2, aggregation="max")(ramp, roi).item() == 33  # of 22, 23, 32, 33
    assert ROIAlign(1, 1.0, 2)(ramp, roi).item() == 27.5
    assert ROIAlign(1, 1.0, 1, aggregation="max")(ramp, roi).item() == 27.5  # one sample, at the centre
    assert ROIAlign(1, 1.0, 2, aligned=False, aggregation="max")(ramp, roi).item() == 38.5


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_max_is_at_the_places_of_the_mean(sampling_ratio, aligned):
    """A grid so fine that a cell has one sample: blocks of it give the mean of RoIAlign, and the maximum."""
    torch.manual_seed(0)
    features = torch.randn(2, 3, 12, 15)
    rois = torch.tensor(
        [[0, 1.3, 2.1, 9.7, 8.2], [1, 0.0, 0.0, 3.0, 11.0], [0, 4.0, 4.0, 4.5, 4.2], [1, 2.0, 3.0, 14.5, 4.0]]
    )
    mean = ROIAlign((2, 3), 1.0, sampling_ratio, aligned=aligned)(features, rois)
    largest = ROIAlign((2, 3), 1.0, sampling_ratio, aligned=aligned, aggregation="max")(features, rois)
    for roi, of_mean, of_max in zip(rois, mean, largest, strict=True):
        width, height = (roi[3:] - roi[1:3]).clamp(min=0 if aligned else 1).tolist()
        rows = sampling_ratio or max(1, -int(-height // 2))
        columns = sampling_ratio or max(1, -int(-width // 3))
        fine = ROIAlign((2 * rows, 3 * columns), 1.0, 1, aligned=aligned)(features, roi[None])[0]
        samples = fine.reshape(3, 2, rows, 3, columns)
        torch.testing.assert_close(of_mean, samples.mean(dim=(2, 4)))
        torch.testing.assert_close(of_max, samples.amax(dim=(2, 4)))


def test_warp_samples_the_cells_that_the_rounded_box_holds():
    """Box 5..11 at stride 4 is 1.25..2.75 cells: rounded 1 and 3, the cells 1, 2, 3, so from 1 to 4."""
    roi = torch.tensor([[0, 5.0, 5.0, 11.0, 11.0]])
    out = ROIWarp(1, 0.25, 1)(_ramp(8, 8), roi)
    assert out.flatten().tolist() == [2.5, 2.5]
    assert ROIAlign(1, 0.25, 1)(_ramp(8, 8), roi).flatten().tolist() == [2.0, 2.0]
    # Three cells of the output over three cells of the map give each as it is.
    torch.testing.assert_close(ROIWarp(3, 0.25, 1)(_ramp(8, 8), roi)[0, 0, 0], torch.tensor([1.5, 2.5, 3.5]))


def test_warp_pools_the_region_of_roi_pool():
    """With output cells of whole feature cells RoIPool's bins are exact, and both take the largest value."""
    torch.manual_seed(0)
    features = torch.randn(1, 4, 12, 12)
    # Rounded, 1 to 4 by 2 to 7 and 3 to 10 by 2 to 4: 4 x 6 and 8 x 3 cells.
    rois = torch.tensor([[0, 3.0, 7.0, 17.0, 27.0], [0, 10.0, 6.0, 38.0, 16.0]])
    for roi, size in zip(rois, ((6, 4), (3, 8)), strict=True):
        warped = ROIWarp(size, 0.25, 1, "max")(features, roi[None])
        torch.testing.assert_close(warped, ROIPool(size, 0.25)(features, roi[None]))


def test_warp_rounds_halves_up_and_keeps_a_cell():
    """2 / 4 = 0.5 becomes 1, where the even neighbour would be 0; a box without extent keeps its cell."""
    roi = torch.tensor([[0, 2.0, 2.0, 2.0, 2.0]])
    assert ROIWarp(1, 0.25, 1)(_ramp(8, 8), roi).flatten().tolist() == [1.5, 1.5]
    assert ROIPool(1, 0.25)(_ramp(8, 8), roi).flatten().tolist() == [1.5, 1.5]


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("pool", [ROIAlign, ROIWarp])
@pytest.mark.parametrize("aggregation", ["average", "max"])
def test_gradients(pool, aggregation, sampling_ratio):
    torch.manual_seed(0)
    features = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.7, 4.1, 3.9], [0, 2.2, 1.1, 6.4, 2.6]], dtype=torch.float64)
    module = pool(2, 1.0, sampling_ratio, aggregation=aggregation)
    assert torch.autograd.gradcheck(lambda x: module(x, rois), features)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_max_of_no_rois(sampling_ratio):
    features = torch.zeros(2, 3, 8, 8, requires_grad=True)
    out = ROIWarp((7, 5), 0.5, sampling_ratio, "max")(features, torch.zeros(0, 5))
    assert out.shape == (0, 3, 7, 5)
    out.sum().backward()
    assert features.grad.abs().sum() == 0


def test_repr_and_pool():
    assert "sampling_ratio=2, aligned=True, aggregation=max" in repr(ROIAlign(7, 0.25, 2, aggregation="max"))
    assert ROIPool((7, 7), 0.25)(torch.zeros(1, 2, 9, 9), torch.zeros(0, 5)).shape == (0, 2, 7, 7)
    with pytest.raises(AssertionError):
        ROIAlign(7, 0.25, 2, aggregation="median")
