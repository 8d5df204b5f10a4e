import pytest
import torch

from panomask.structures import ImageList


def test_pads_right_and_bottom():
    small, large = torch.ones(3, 2, 5), 2 * torch.ones(3, 4, 3)
    images = ImageList.from_tensors([small, large], pad_value=-1)
    assert images.tensor.shape == (2, 3, 4, 5)
    assert images.image_sizes == [(2, 5), (4, 3)]
    assert (images.tensor[0, :, 2:] == -1).all()
    assert (images.tensor[1, :, :, 3:] == -1).all()
    torch.testing.assert_close(images[0], small)
    torch.testing.assert_close(images[1], large)
    assert len(images) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_size_divisibility(count):
    images = ImageList.from_tensors([torch.ones(3, 33, 64)] * count, size_divisibility=32)
    assert images.tensor.shape == (count, 3, 64, 64)
    assert images.tensor.sum() == count * 3 * 33 * 64


def test_maps_without_channels():
    images = ImageList.from_tensors(
        [torch.ones(2, 3, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64)], 4, 255
    )
    assert images.tensor.shape == (2, 4, 4)
    assert images.tensor.dtype == torch.int64
    assert images[1].tolist() == [[1, 1]] * 3
    assert images.tensor[0, 2].tolist() == [255] * 4


@pytest.mark.parametrize("count", [1, 2])
def test_square(count):
    constraints = {"square_size": 64, "size_divisibility": 16}
    images = ImageList.from_tensors([torch.ones(3, 20, 40)] * count, padding_constraints=constraints)
    assert images.tensor.shape == (count, 3, 64, 64)
    constraints["square_size"] = 0
    images = ImageList.from_tensors([torch.ones(3, 20, 40)] * count, 3, padding_constraints=constraints)
    assert images.tensor.shape == (count, 3, 32, 48)


def test_square_smaller_than_the_image():
    with pytest.raises(AssertionError, match="20x40"):
        ImageList.from_tensors([torch.ones(3, 20, 40)], padding_constraints={"square_size": 32})


def test_gradients_reach_the_images():
    leaf = torch.ones(1, 2, 2, requires_grad=True)
    ImageList.from_tensors([leaf, torch.ones(1, 3, 3)]).tensor.sum().backward()
    assert leaf.grad.tolist() == [[[1, 1], [1, 1]]]


def test_to():
    images = ImageList.from_tensors([torch.ones(1, 2, 2)]).to(torch.float64)
    assert images.tensor.dtype == torch.float64
    assert images.device == torch.device("cpu")
