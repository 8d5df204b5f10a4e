import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from panomask.errors import InputError
from panomask.structures import BitMasks, Boxes, PolygonMasks, ROIMasks

TRIANGLE = [0.0, 0.0, 8.0, 0.0, 0.0, 4.0]
SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]
HEIGHT, WIDTH = 192, 256


@pytest.fixture(scope="module")
def golden() -> dict:
    """The case "hflip" of Detectron2's numbers for six objects in an image of 192 x 256."""
    return json.loads(Path(__file__).with_name("golden_masks.json").read_text())


@pytest.fixture(scope="module")
def flipped(golden_recipe) -> PolygonMasks:
    objects = golden_recipe.instances(HEIGHT, WIDTH, 6, 80, seed=3)
    rings = [np.array(each["polygon"]).reshape(-1, 2) for each in objects]
    return PolygonMasks([[(ring * (-1, 1) + (WIDTH, 0)).ravel()] for ring in rings])


@pytest.fixture
def bit_masks() -> BitMasks:
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:4, 2:6] = True
    masks[1, 5, 7] = True
    return BitMasks(masks)


def test_golden_polygons(golden, flipped):
    boxes = torch.tensor(golden["boxes"])
    np.testing.assert_allclose(flipped.area(), golden["polygon_area"], rtol=1e-9)
    torch.testing.assert_close(flipped.get_bounding_boxes().tensor, boxes)
    assert flipped.crop_and_resize(boxes, 28).flatten(1).sum(1).tolist() == golden["polygon_targets_28"]


def test_golden_bit_masks(golden, flipped):
    masks = BitMasks.from_polygon_masks(flipped, HEIGHT, WIDTH)
    runs = [{"size": [HEIGHT, WIDTH], "counts": counts} for counts in golden["bitmask_rle"]]
    assert torch.equal(masks.tensor, BitMasks(coco_mask.decode(runs).transpose(2, 0, 1)).tensor)
    assert masks.area().tolist() == golden["bitmask_area"]
    assert masks.get_bounding_boxes().tensor.tolist() == golden["bitmask_boxes"]
    targets = masks.crop_and_resize(torch.tensor(golden["boxes"]), 28)
    assert targets.flatten(1).sum(1).tolist() == golden["bitmask_targets_28"]


def test_bit_masks_by_hand(bit_masks: BitMasks):
    assert bit_masks.image_size == (6, 8)
    assert bit_masks.area().tolist() == [12, 1, 0]
    assert bit_masks.nonempty().tolist() == [True, True, False]
    assert bit_masks.get_bounding_boxes().tensor.tolist() == [[2, 1, 6, 4], [7, 5, 8, 6], [0, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 5, 6), (3, 5, 6), (3, 0, 6), (3, 5, 0), (3, 1, 1)])
@pytest.mark.parametrize("density", [0, 0.05, 1])
def test_which_masks_have_pixels(shape, density):
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density
    expected = torch.tensor([bool(mask.any()) for mask in tensor], dtype=torch.bool)
    masks = BitMasks(tensor)
    assert torch.equal(masks.nonempty(), expected)
    turned = BitMasks(tensor.transpose(1, 2))  # a view
    assert torch.equal(turned.nonempty(), expected)
    boxes = masks.get_bounding_boxes().tensor
    assert torch.equal(turned.get_bounding_boxes().tensor, boxes[:, [1, 0, 3, 2]])
    for mask, box in zip(tensor, boxes.tolist(), strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0])


def test_bit_masks_are_pinned_whole(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    masks = BitMasks(torch.ones(2, 3, 4))
    pinned = masks.pin_memory()
    assert torch.equal(pinned.tensor, masks.tensor)
    assert pinned.tensor.data_ptr() != masks.tensor.data_ptr()


def test_bounding_box_ignores_holes():
    mask = torch.zeros(1, 9, 9)
    mask[0, [2, 7], [6, 3]] = 1
    assert BitMasks(mask).get_bounding_boxes().tensor.tolist() == [[3, 2, 7, 8]]


def test_bit_masks_crop_to_their_boxes(bit_masks: BitMasks):
    inside = bit_masks.crop_and_resize(bit_masks.get_bounding_boxes().tensor, 4)
    assert inside.dtype == torch.bool
    assert inside[0].all()
    assert not inside[2].any()
    # A box twice as wide, starting at the mask's left side: the left half is full.
    halves = bit_masks[:1].crop_and_resize(torch.tensor([[2.0, 1.0, 10.0, 4.0]]), 4)
    assert halves[0].tolist() == [[True, True, False, False]] * 4


def test_many_bit_masks_crop_as_each_alone():
    generator = torch.Generator().manual_seed(0)
    masks = BitMasks(torch.rand(11, 20, 30, generator=generator) < 0.5)
    corners = torch.rand(11, 2, generator=generator) * 15
    boxes = torch.cat([corners, corners + 1 + 10 * torch.rand(11, 2, generator=generator)], dim=1)
    together = masks.crop_and_resize(boxes, 7)
    alone = [masks[i].crop_and_resize(boxes[i : i + 1], 7) for i in range(11)]
    assert together.shape == (11, 7, 7)
    assert torch.equal(together, torch.cat(alone))


def test_bit_masks_index_and_cat(bit_masks: BitMasks):
    assert bit_masks[1].tensor.shape == (1, 6, 8)
    assert len(bit_masks[bit_masks.nonempty()]) == 2
    assert bit_masks[torch.tensor([1, 0])].area().tolist() == [1, 12]
    assert BitMasks.cat([bit_masks, bit_masks[0]]).area().tolist() == [12, 1, 0, 12]
    assert [mask.shape for mask in bit_masks] == [(6, 8)] * 3
    assert len(bit_masks.to("cpu")) == 3


def test_no_bit_masks():
    for none in (BitMasks(torch.zeros(0, 6, 8)), BitMasks.from_polygon_masks([], 6, 8)):
        assert none.image_size == (6, 8)
        assert none.area().shape == none.nonempty().shape == (0,)
        assert none.get_bounding_boxes().tensor.shape == (0, 4)
        assert none.crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert BitMasks(torch.zeros(0, 0, 0)).get_bounding_boxes().tensor.shape == (0, 4)


def test_polygons_by_hand():
    masks = PolygonMasks([[TRIANGLE], [SQUARE, TRIANGLE], []])
    assert masks.area().tolist() == [16, 28, 0]
    assert masks.nonempty().tolist() == [True, True, False]
    assert masks.get_bounding_boxes().tensor.tolist() == [[0, 0, 8, 4], [0, 0, 8, 4], [0, 0, 0, 0]]


def test_polygons_below_zero_keep_their_box():
    ring = [-9.0, -8.0, -3.0, -8.0, -3.0, -4.0]
    assert PolygonMasks([[ring]]).get_bounding_boxes().tensor.tolist() == [[-9, -8, -3, -4]]


@pytest.mark.parametrize("ring", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], []])
def test_bad_polygon(ring):
    with pytest.raises(InputError, match=f"{len(ring)} coordinates"):
        PolygonMasks([[ring]])


def test_polygons_must_be_listed_per_object():
    with pytest.raises(ValueError, match="list of polygons"):
        PolygonMasks(np.zeros((2, 8)))


def test_polygons_take_arrays_and_tensors_without_changing_them():
    array = np.array(SQUARE, np.float32)
    masks = PolygonMasks([[array], [torch.tensor(SQUARE)]])
    masks.crop_and_resize(torch.tensor([[0.0, 0.0, 5.0, 5.0]] * 2), 8)
    assert array.tolist() == SQUARE
    assert masks.polygons[1][0].tolist() == SQUARE
    assert masks.polygons[1][0].dtype == np.float64


@pytest.mark.parametrize(
    "index, areas",
    [
        (0, [16]),
        (-1, [0]),
        (slice(1, None), [12, 0]),
        ([2, 0], [0, 16]),
        (torch.tensor([1, 1]), [12, 12]),
        (torch.tensor([True, False, True]), [16, 0]),
        (torch.zeros(3, dtype=torch.bool), []),
        (np.array([0, 1]), [16, 12]),
        ([], []),
    ],
)
def test_polygons_index(index, areas):
    assert PolygonMasks([[TRIANGLE], [SQUARE], []])[index].area().tolist() == areas


def test_polygons_cat_and_to():
    masks = PolygonMasks([[TRIANGLE]])
    assert PolygonMasks.cat([masks, PolygonMasks([[SQUARE]])]).area().tolist() == [16, 12]
    assert masks.to("cpu") is masks
    assert [len(rings) for rings in masks] == [1]


def test_no_polygons():
    none = PolygonMasks([])
    assert none.area().shape == none.nonempty().shape == (0,)
    assert none.get_bounding_boxes().tensor.shape == (0, 4)
    assert none.crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert len(none[torch.zeros(0, dtype=torch.int64)]) == 0


def test_both_kinds_of_masks_crop_alike(flipped, golden):
    boxes = torch.tensor(golden["boxes"])
    from_bits = BitMasks.from_polygon_masks(flipped, HEIGHT, WIDTH).crop_and_resize(boxes, 28)
    from_polygons = flipped.crop_and_resize(boxes, 28)
    assert (from_bits != from_polygons).float().mean() < 0.05


def test_roi_masks_become_bit_masks():
    soft = ROIMasks(torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]))
    boxes = Boxes([[2, 1, 6, 4], [0, 0, 5, 5]])
    masks = soft.to_bitmasks(boxes, 6, 8)
    assert masks.get_bounding_boxes().tensor.tolist() == [[2, 1, 6, 4], [0, 0, 0, 0]]
    assert torch.equal(BitMasks.from_roi_masks(soft, 6, 8, boxes=boxes.tensor).tensor, masks.tensor)
    assert len(soft[torch.tensor([True, False])]) == 1
    assert len(soft[:0].to_bitmasks(boxes[:0], 6, 8)) == 0


@pytest.mark.parametrize(
    "objects", [[], [[]], [[], [[0, 0, 4, 0, 4, 4]], []], [[[0, 0, 4, 0, 4, 4]] * 2] * 3]
)
@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda masks: pickle.loads(pickle.dumps(masks))])
def test_polygons_travel_whole(objects, copy_of):
    masks = PolygonMasks(objects)
    masks.note = "an attribute of a user's"
    copied = copy_of(masks)
    assert copied.note == masks.note
    assert [[ring.tolist() for ring in rings] for rings in copied] == objects
    for rings in copied:
        for ring in rings:
            assert ring.dtype == np.float64
            ring += 1
    assert [[ring.tolist() for ring in rings] for rings in masks] == objects  # memory of its own


def test_polygons_pickled_as_lists_are_read():
    """As in files of before rings were packed."""
    masks = PolygonMasks.__new__(PolygonMasks)
    masks.__setstate__({"polygons": [[np.array(TRIANGLE)], []]})
    assert [[ring.tolist() for ring in rings] for rings in masks] == [[TRIANGLE], []]


def test_many_rings_travel_as_few_bytes():
    """Eight for a coordinate, a ring and an object, not an array of its own for each ring."""
    rings = [[np.arange(6.0)]] * 1000
    assert len(pickle.dumps(PolygonMasks(rings), protocol=5)) < 1000 * (6 * 8 + 8 + 8) + 1000
