"""The sums of the CPU against torchvision's kernel, and against numbers derived by hand."""

import pytest
import torch
from torchvision import ops

from panomask.layers import roi_align, roi_pooling

CHANNELS = 32


def _features(num_images=2, height=20, width=27, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(num_images, CHANNELS, height, width, generator=generator, dtype=dtype)
    return features.contiguous(memory_format=torch.channels_last)


def _rois(num_rois=40, num_images=2):
    """Boxes inside, over every border, wholly outside, thin and empty, in image pixels of stride 4."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(num_rois, 2, generator=generator) * 140 - 20
    sides = torch.rand(num_rois, 2, generator=generator) ** 3 * 120
    image_idx = torch.randint(num_images, (num_rois, 1), generator=generator)
    rois = torch.cat([image_idx, corners, corners + sides], dim=1)
    rois[0, 1:] = torch.tensor([300.0, 300, 320, 330])  # outside
    rois[1, 3] = rois[1, 1]  # no width
    rois[2, 1:] = torch.tensor([0.0, 0, 108, 80])  # all
    return rois


def _is_summed(features, rois, *args, monkeypatch):
    """Whether torchvision's kernel stays out of it."""
    calls = []
    monkeypatch.setattr(ops, "roi_align", lambda *a: calls.append(a) or torch.zeros(0))
    roi_align(features, rois, *args)
    monkeypatch.undo()
    return not calls


def test_is_the_one_in_use():
    assert roi_pooling.roi_align is roi_align


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size", [7, (2, 5)])
def test_equals_torchvision(sampling_ratio, aligned, size, monkeypatch):
    features, rois = _features(), _rois()
    arguments = (size, 0.25, sampling_ratio, aligned)
    assert _is_summed(features, rois, *arguments, monkeypatch=monkeypatch)
    ours = roi_align(features, rois, *arguments)
    torch.testing.assert_close(ours, ops.roi_align(features, rois, *arguments), atol=1e-5, rtol=0)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_boxes_without_extent_alone():
    """As many samples as the box has cells: none, and 0 comes out."""
    rois = torch.tensor([[0, 40.0, 10.0, 40.0, 30.0], [1, 20.0, 50.0, 60.0, 50.0]])
    for some in (rois, rois[:1], rois[1:]):
        out = roi_align(_features(), some, 7, 0.25, 0, True)
        assert out.shape == (len(some), CHANNELS, 7, 7)
        assert not out.any()


def test_samples_on_the_outermost_line():
    """One cell outside is still read, as the border's value; torchvision includes both lines."""
    rois = torch.tensor([[0, -1.5, -1.5, 0.5, 0.5], [0, 26.5, 19.5, 28.5, 21.5]])
    features = _features(1)
    for aligned in (True, False):
        at = rois + (0 if aligned else torch.tensor([0.0, *[-0.5] * 4]))
        ours, reference = (pool(features, at, 1, 1.0, 1, aligned) for pool in (roi_align, ops.roi_align))
        torch.testing.assert_close(ours, reference)
        assert ours[0].any()


def test_gradient_equals_torchvision():
    features, rois = _features(), _rois()
    gradient = torch.randn(len(rois), CHANNELS, 7, 7, generator=torch.Generator().manual_seed(2))
    found = []
    for pool in (roi_align, ops.roi_align):
        x = features.clone().requires_grad_()
        pool(x, rois, 7, 0.25, 0, True).backward(gradient)
        found.append(x.grad)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_gradient_by_differences():
    features, rois = _features(1, 3, 4, torch.float64).requires_grad_(), _rois(6, 1).double()
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, 2, 0.04, 2, True), features)


def test_by_hand():
    """One sample at (2.5, 1.5) of cells centred at half numbers is cell (2, 1); one at the border between."""
    features = torch.zeros(1, CHANNELS, 4, 4)
    features[0, 3] = torch.arange(16.0).reshape(4, 4)
    features = features.contiguous(memory_format=torch.channels_last)
    rois = torch.tensor([[0, 2.0, 1.0, 3.0, 2.0], [0, 1.5, 1.0, 2.5, 2.0], [0, -4.0, 0.0, -2.0, 2.0]])
    found = roi_align(features, rois, 1, 1.0, 1, True)[:, 3].flatten().tolist()
    assert found == [6.0, 5.5, 0.0]  # the third is more than a cell outside


def test_other_memory_format_and_few_regions(monkeypatch):
    """A map in the usual format is copied, which pays for many regions only."""
    features = _features().contiguous()
    many, few = _rois(40), _rois(40)[:1]
    assert _is_summed(features, many, 7, 0.25, 0, True, monkeypatch=monkeypatch)
    assert not _is_summed(features, few, 1, 0.25, 0, True, monkeypatch=monkeypatch)
    torch.testing.assert_close(
        roi_align(features, many, 7, 0.25, 0, True), ops.roi_align(features, many, 7, 0.25, 0, True)
    )


def test_result_is_laid_out_as_the_map():
    features, rois = _features(), _rois()
    usual = roi_align(features.contiguous(), rois, 7, 0.25, 0, True)
    assert usual.is_contiguous()
    assert usual.view(len(rois), -1).shape == (40, CHANNELS * 49)


def test_few_channels_and_graphs_are_left_to_torchvision(monkeypatch):
    rois = _rois()
    assert not _is_summed(_features()[:, :16], rois, 7, 0.25, 0, True, monkeypatch=monkeypatch)
    graph = torch.jit.trace(lambda x: roi_align(x, rois, 7, 0.25, 0, True), _features()).inlined_graph
    assert "torchvision::roi_align" in str(graph)


def test_boxes_of_another_type_are_refused_as_by_torchvision():
    with pytest.raises(RuntimeError, match="same type"):
        roi_align(_features(), _rois().double(), 7, 0.25)


def test_parts_are_joined(monkeypatch):
    features, rois = _features(), _rois()
    whole = roi_align(features, rois, 7, 0.25, 0, True)
    monkeypatch.setattr("panomask.layers.roi_sampling.MAX_WEIGHTS", 5000)
    torch.testing.assert_close(roi_align(features, rois, 7, 0.25, 0, True), whole, atol=0, rtol=0)


@pytest.mark.parametrize("bad", [1e6, float("nan")])
def test_absurd_boxes_are_left_to_torchvision(bad, monkeypatch):
    rois = torch.tensor([[0, 0.0, 0.0, bad, 10.0]])
    assert not _is_summed(_features(), rois, 7, 0.25, 0, True, monkeypatch=monkeypatch)


def test_nothing_to_pool():
    features = _features().requires_grad_()
    out = roi_align(features, torch.zeros(0, 5), (7, 5), 0.5)
    assert out.shape == (0, CHANNELS, 7, 5)
    out.sum().backward()
    assert not features.grad.any()


def test_boxes_of_each_image():
    features, rois = _features(), _rois()
    lists = [rois[rois[:, 0] == image, 1:] for image in (0, 1)]
    by_list = roi_align(features, lists, 3, 0.25)
    by_rois = roi_align(features, torch.cat([rois[rois[:, 0] == image] for image in (0, 1)]), 3, 0.25)
    torch.testing.assert_close(by_list, by_rois, atol=1e-5, rtol=0)
