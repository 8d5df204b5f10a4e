import torch

from panomask.layers import ROIAlign, ROIPool


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


def test_gradient():
    features = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.7, 4.1, 3.9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ROIAlign(2, 1.0, 2)(x, rois), features)


def test_repr_and_pool():
    assert "sampling_ratio=2, aligned=True" in repr(ROIAlign(7, 0.25, 2))
    assert ROIPool((7, 7), 0.25)(torch.zeros(1, 2, 9, 9), torch.zeros(0, 5)).shape == (0, 2, 7, 7)
