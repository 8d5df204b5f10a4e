import pytest
import torch

from panomask.structures import Keypoints, heatmaps_to_keypoints

BOX = torch.tensor([[10.0, 20.0, 18.0, 36.0]])  # 8 wide, 16 high


def _one(x: float, y: float, visibility: float = 2) -> Keypoints:
    return Keypoints([[[x, y, visibility]]])


@pytest.mark.parametrize(
    "x, y, visibility, cell, valid",
    [
        (10.0, 20.0, 2, 0, 1),
        (13.0, 29.0, 1, 2 * 4 + 1, 1),  # x 3 of 8 is 1.5 of 4; y 9 of 16 is 2.25 of 4
        (18.0, 36.0, 2, 15, 1),  # the far corner counts for the last cell
        (13.0, 29.0, 0, 0, 0),  # not labelled
        (9.0, 29.0, 2, 0, 0),  # left of the box
        (18.5, 29.0, 2, 0, 0),
    ],
)
def test_heatmap_cell_by_hand(x, y, visibility, cell, valid):
    cells, is_valid = _one(x, y, visibility).to_heatmap(BOX, 4)
    assert cells.dtype == is_valid.dtype == torch.int64
    assert (cells.tolist(), is_valid.tolist()) == ([[cell]], [[valid]])


def test_container():
    keypoints = Keypoints(torch.arange(18, dtype=torch.float64).reshape(3, 2, 3))
    assert keypoints.tensor.dtype == torch.float32
    assert keypoints[1].tensor.tolist() == [[[6, 7, 8], [9, 10, 11]]]
    assert len(keypoints[torch.tensor([True, False, True])]) == 2
    assert len(Keypoints.cat([keypoints, keypoints[:1]])) == 4
    assert len(keypoints.to("cpu")) == 3
    assert "3" in repr(keypoints)


def test_no_objects():
    none = Keypoints(torch.zeros(0, 17, 3))
    cells, valid = none.to_heatmap(torch.zeros(0, 4), 56)
    assert cells.shape == valid.shape == (0, 17)
    assert heatmaps_to_keypoints(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4)).shape == (0, 17, 4)


def test_heatmap_of_the_boxs_own_size_gives_the_peaks_centre():
    maps = torch.zeros(1, 2, 16, 16)
    maps[0, 0, 3, 5] = 6
    maps[0, 1, 15, 0] = 4
    box = torch.tensor([[10.0, 20.0, 26.0, 36.0]])
    out = heatmaps_to_keypoints(maps, box)
    assert out[0, :, :3].tolist() == [[15.5, 23.5, 6], [10.5, 35.5, 4]]
    softmax = maps.flatten(2).softmax(dim=2).amax(dim=2)
    torch.testing.assert_close(out[..., 3], softmax)


def test_there_and_back():
    """A keypoint's cell, drawn as a peak, leads back to within a cell of the keypoint."""
    boxes = torch.tensor([[3.2, 4.7, 80.9, 60.1], [0.0, 0.0, 30.5, 200.0]])
    fractions = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(1))
    points = boxes[:, None, :2] + fractions * (boxes[:, None, 2:] - boxes[:, None, :2])
    keypoints = Keypoints(torch.cat([points, torch.full((2, 5, 1), 2.0)], dim=2))
    cells, valid = keypoints.to_heatmap(boxes, 56)
    assert valid.all()
    maps = torch.zeros(2, 5, 56 * 56).scatter_(2, cells[..., None], 10.0).reshape(2, 5, 56, 56)
    back = heatmaps_to_keypoints(maps, boxes)[..., :2]
    cell_size = (boxes[:, 2:] - boxes[:, :2])[:, None] / 56
    assert ((back - points).abs() <= cell_size + 1).all()
