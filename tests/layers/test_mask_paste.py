import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import panomask.layers.mask_paste as mask_paste
from panomask.layers import paste_masks_in_image
from panomask.layers.mask_paste import pad_masks, scale_boxes

HEIGHT, WIDTH = 40, 50


@pytest.fixture
def masks_and_boxes() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(6, 28, 28, generator=generator)
    masks = F.avg_pool2d(masks[:, None], 7, 1, 3)[:, 0] * 1.1
    corners = torch.rand(6, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT]) - 8
    boxes = torch.cat([corners, corners + 3 + 40 * torch.rand(6, 2, generator=generator)], dim=1)
    return masks, boxes


def _hat_weights(low: torch.Tensor, high: torch.Tensor, pixels: int, cells: int) -> torch.Tensor:
    """Bilinear weights (pixels, cells) of one axis by definition: hats around the cells' centres."""
    at = (torch.arange(pixels) + 0.5 - low) / (high - low) * cells - 0.5
    return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def _soft(masks: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    pasted = []
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        rows, columns = _hat_weights(y0, y1, HEIGHT, 28), _hat_weights(x0, x1, WIDTH, 28)
        pasted.append(rows @ mask @ columns.T)
    return torch.stack(pasted)


def test_a_full_mask_fills_its_box():
    out = paste_masks_in_image(torch.ones(1, 28, 28), torch.tensor([[3.0, 2.0, 9.0, 7.0]]), (10, 12))
    expected = torch.zeros(1, 10, 12, dtype=torch.bool)
    expected[0, 2:7, 3:9] = True
    assert torch.equal(out, expected)


def test_halves_of_a_mask():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    out = paste_masks_in_image(mask, torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (8, 8))
    assert out[0].tolist() == [[True] * 4 + [False] * 4] * 8


def test_equals_the_definition(masks_and_boxes):
    masks, boxes = masks_and_boxes
    out = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH))
    assert out.dtype == torch.bool
    assert out.float().mean() > 0.05
    assert (out != (_soft(masks, boxes) >= 0.5)).float().mean() < 1e-4


def test_soft_values_for_a_negative_threshold(masks_and_boxes):
    masks, boxes = masks_and_boxes
    masks = masks.clamp(max=1)
    out = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH), threshold=-1)
    assert out.dtype == torch.uint8
    inside = paste_masks_in_image(torch.ones_like(masks), boxes, (HEIGHT, WIDTH))
    difference = (out.float() - _soft(masks, boxes) * 255)[inside]
    assert (difference.abs() <= 1.001).all()


def test_pasting_everywhere_equals_pasting_inside_boxes(masks_and_boxes):
    """The way of other devices, which samples every pixel, run on the CPU."""
    alone = paste_masks_in_image(*masks_and_boxes, (HEIGHT, WIDTH))
    assert torch.equal(mask_paste._paste_everywhere(*masks_and_boxes, (HEIGHT, WIDTH), 0.5), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (1, 1)])
def test_pasting_inside_boxes_is_sampling_to_the_last_digits(shape, dtype):
    """Boxes of all sizes, down to less than a pixel, also over the image's border and far outside."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(200, *shape, generator=generator).to(dtype)
    corners = (torch.rand(200, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([WIDTH, HEIGHT])
    sides = torch.exp(6 * torch.rand(200, 2, generator=generator) - 2)
    boxes = torch.cat([corners - sides / 2, corners + sides / 2], dim=1)
    sampled = mask_paste._sample_masks(masks, boxes, (0, 0, WIDTH, HEIGHT))
    undecided = (sampled - 0.5).abs() < 1e-6
    pasted = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH))
    assert torch.equal(pasted | undecided, (sampled >= 0.5) | undecided)
    assert undecided.float().mean() < 1e-4
    inside = paste_masks_in_image(torch.ones_like(masks), boxes, (HEIGHT, WIDTH))
    pasted = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH), threshold=-1)
    assert ((pasted - sampled * 255)[inside].abs() < 1.001).all()


def test_nan_spoils_only_the_pixels_beside_it(masks_and_boxes):
    masks, boxes = masks_and_boxes
    masks[0, 10, 20] = torch.nan
    sampled = mask_paste._sample_masks(masks, boxes, (0, 0, WIDTH, HEIGHT)) >= 0.5
    assert torch.equal(paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH)), sampled)


@pytest.mark.parametrize("constant", ["MAX_RESIZED_PIXELS", "MAX_SAMPLED_PIXELS"])
@pytest.mark.parametrize("pixels", [1, 100, 3 * WIDTH])
def test_chunks_of_rows_change_nothing(masks_and_boxes, monkeypatch, constant, pixels):
    expected = paste_masks_in_image(*masks_and_boxes, (HEIGHT, WIDTH))
    monkeypatch.setattr(mask_paste, constant, pixels)
    for way in (paste_masks_in_image, mask_paste._paste_everywhere):
        assert torch.equal(way(*masks_and_boxes, (HEIGHT, WIDTH), 0.5), expected)


def test_autocast_and_gradients_change_nothing(masks_and_boxes):
    masks, boxes = masks_and_boxes
    expected = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH))
    with torch.autocast("cpu", torch.bfloat16):
        pasted = paste_masks_in_image(masks.requires_grad_(), boxes.requires_grad_(), (HEIGHT, WIDTH))
    assert torch.equal(pasted, expected)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")
def test_large_images_take_memory_only_around_the_boxes():
    """20 masks of 10,000 x 10,000 pixels are 2 GB."""

    def used_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = used_bytes()
    boxes = torch.tensor([[4000.0, 4000.0, 4050.0, 4050.0]]).repeat(20, 1)
    pasted = paste_masks_in_image(torch.ones(20, 28, 28), boxes, (10000, 10000))
    assert used_bytes() - before < 3e8
    assert pasted[:, 4000:4050, 4000:4050].all()


@pytest.mark.parametrize("threshold, dtype", [(0.5, torch.bool), (-1, torch.uint8)])
def test_no_masks(threshold, dtype):
    out = paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6), threshold)
    assert out.shape == (0, 5, 6)
    assert out.dtype == dtype


@pytest.mark.parametrize("box", [[60.0, 5, 80, 9], [-9.0, -9, -2, -2], [3.0, 3, 3, 9]])
def test_boxes_outside_the_image_or_without_area_leave_it_empty(box):
    assert not paste_masks_in_image(torch.ones(1, 28, 28), torch.tensor([box]), (HEIGHT, WIDTH)).any()


def test_half_precision_and_integer_masks(masks_and_boxes):
    masks, boxes = masks_and_boxes
    masks = (masks > 0.5).float()
    expected = paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH))
    for dtype in (torch.float16, torch.uint8, torch.bool):
        assert torch.equal(paste_masks_in_image(masks.to(dtype), boxes, (HEIGHT, WIDTH)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_half_precision_and_integer_boxes(masks_and_boxes, dtype):
    masks, boxes = masks_and_boxes
    boxes = boxes.to(dtype)
    expected = paste_masks_in_image(masks, boxes.float(), (HEIGHT, WIDTH))
    assert torch.equal(paste_masks_in_image(masks, boxes, (HEIGHT, WIDTH)), expected)


def test_pad_masks_with_boxes_that_grow_as_much():
    masks, boxes = torch.ones(1, 4, 4), torch.tensor([[2.0, 4, 10, 8]])
    padded, scale = pad_masks(masks, 1)
    assert padded.shape == (1, 6, 6)
    assert padded.sum() == 16
    assert scale == 1.5
    assert scale_boxes(boxes, scale).tolist() == [[0, 3, 12, 9]]
    # Padding adds what is outside the box anyway.
    pasted = [
        paste_masks_in_image(m, b, (12, 14)) for m, b in ((masks, boxes), (padded, scale_boxes(boxes, 1.5)))
    ]
    assert torch.equal(*pasted)


def test_a_traced_graph_pastes_other_masks_too():
    masks, boxes = torch.rand(2, 4, 4), torch.tensor([[1.0, 2, 9, 8], [0, 0, 5, 5]])
    graph = torch.jit.trace(lambda m, b: paste_masks_in_image(m, b, (10, 12)), (masks, boxes))
    others = 1 - masks, boxes + 1
    assert torch.equal(graph(*others), paste_masks_in_image(*others, (10, 12)))
