import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from panomask.evaluation import encode_masks


def _usual(mask: torch.Tensor) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _assert_as_usual(masks: torch.Tensor) -> None:
    assert encode_masks(masks) == [_usual(mask) for mask in masks]


def test_by_hand():
    mask = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    (rle,) = encode_masks(mask[None])  # down the columns: 0 0, 1 0, 1 1
    counts = [2, 1, 1, 2]
    assert rle == {**_usual(mask), "size": [2, 3]}
    expected = mask_util.frPyObjects({"size": [2, 3], "counts": counts}, 2, 3)["counts"]
    assert rle["counts"] == expected.decode()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 9), (64, 130)])
def test_any_mask_gives_the_bytes_of_pycocotools(size, share):
    generator = torch.Generator().manual_seed(1)
    _assert_as_usual(torch.rand(40, *size, generator=generator) < share)


def test_rectangles_at_and_over_every_side():
    """Runs that go on from a column's foot to the next one's top join, those elsewhere do not."""
    places = [
        slice(None),
        slice(0, 3),
        slice(2, 5),
        slice(4, None),
        slice(0, 1),
        slice(-1, None),
        slice(0, 0),
    ]
    masks = torch.zeros(len(places) ** 2, 7, 6, dtype=torch.bool)
    for mask, (rows, columns) in zip(masks, ((r, c) for r in places for c in places), strict=True):
        mask[rows, columns] = True
    _assert_as_usual(masks)
    _assert_as_usual(~masks)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_images_without_pixels(size):
    _assert_as_usual(torch.zeros(2, *size, dtype=torch.bool))


def test_no_masks():
    assert encode_masks(torch.zeros(0, 4, 5, dtype=torch.bool)) == []


def test_a_long_run():
    mask = torch.zeros(1, 3000, 4000, dtype=torch.bool)
    mask[0, 17:2900, 3000:] = True
    _assert_as_usual(mask)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_masks_of_numbers(dtype):
    masks = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(2)) > 0.6
    assert encode_masks(masks.to(dtype)) == encode_masks(masks)
    assert encode_masks(masks.to(torch.uint8) * 255) == encode_masks(masks)


def test_the_integer_part_of_a_number_decides():
    masks = torch.tensor([[[0.0, 0.4, 0.99], [1.0, 1.5, 255.0]]])
    assert encode_masks(masks) == encode_masks(masks >= 1)


def test_masks_that_do_not_lie_in_a_row_in_memory():
    masks = torch.rand(9, 8, 4, generator=torch.Generator().manual_seed(3)) > 0.6
    _assert_as_usual(masks.permute(2, 1, 0))
    _assert_as_usual(masks[:, ::2, 1:])
