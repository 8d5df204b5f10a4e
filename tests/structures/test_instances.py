import copy
import pickle

import pytest
import torch

from panomask.structures import BitMasks, Boxes, ImageList, Instances


@pytest.fixture
def three() -> Instances:
    return Instances(
        (10, 20),
        gt_boxes=Boxes([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]),
        scores=torch.tensor([0.1, 0.2, 0.3]),
        names=["a", "b", "c"],
    )


def test_fields_are_attributes(three: Instances):
    three.classes = torch.tensor([7, 8, 9])
    assert three.has("classes")
    assert three.get("classes") is three.classes
    three.remove("classes")
    assert not three.has("classes")
    assert list(three.get_fields()) == ["gt_boxes", "scores", "names"]
    assert three.image_size == (10, 20)
    assert len(three) == 3
    assert "num_instances=3" in repr(three)


def test_unknown_field_names_the_known(three: Instances):
    with pytest.raises(AttributeError, match=r"'classes'.*gt_boxes, scores"):
        _ = three.classes
    assert getattr(three, "classes", None) is None


def test_lengths_must_agree(three: Instances):
    with pytest.raises(AssertionError, match="2 entries"):
        three.classes = torch.zeros(2)


def test_no_field_no_length():
    empty = Instances((10, 20))
    assert "num_instances=0" in repr(empty)
    with pytest.raises(NotImplementedError):
        len(empty)


def test_iteration_is_refused(three: Instances):
    with pytest.raises(NotImplementedError):
        iter(three)


@pytest.mark.parametrize("index, names", [(1, ["b"]), (-1, ["c"]), (0, ["a"]), (slice(1, None), ["b", "c"])])
def test_indexing_by_place(three: Instances, index, names):
    part = three[index]
    assert part.names == names
    assert len(part) == len(part.gt_boxes) == len(part.scores) == len(names)
    assert part.image_size == (10, 20)


class _Telling(list):
    """A field that puts what it is indexed with into itself."""

    def __getitem__(self, item):
        self[:] = item.tolist()
        return item


def test_a_mask_becomes_indices_once_for_all_fields():
    mask = torch.tensor([True, False, True])
    field = _Telling("abc")
    chosen = Instances((10, 20), field=field, scores=torch.tensor([0.1, 0.2, 0.3]))[mask]
    assert list(field) == [0, 2]
    assert chosen.scores.tolist() == pytest.approx([0.1, 0.3])
    assert len(Instances((10, 20), scores=torch.zeros(0))[torch.zeros(0, dtype=torch.bool)]) == 0
    assert not Instances((10, 20))[mask].get_fields()
    with pytest.raises(IndexError, match="mask of length 3 into Instances of length 4"):
        Instances((10, 20), scores=torch.zeros(4))[mask]


def test_pinned_for_a_gpu(three: Instances, monkeypatch):
    """As torch's loaders do: they look for `pin_memory` in what dicts and lists hold."""
    from torch.utils.data._utils.pin_memory import pin_memory

    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x, *a: pinned.append(x.shape) or x.clone())
    three.gt_masks = BitMasks(torch.zeros(3, 10, 20))
    images = ImageList(torch.zeros(2, 3, 4, 5), [(4, 5), (4, 4)])
    (sample,) = pin_memory([{"image": torch.zeros(3, 10, 20), "instances": three, "images": images, "id": 7}])
    assert sorted(pinned) == [(2, 3, 4, 5), (3,), (3, 4), (3, 10, 20), (3, 10, 20)]
    assert sample["id"] == 7
    copy_of = sample["instances"]
    assert copy_of is not three
    assert copy_of.image_size == (10, 20)
    assert copy_of.names == ["a", "b", "c"]
    assert torch.equal(copy_of.gt_boxes.tensor, three.gt_boxes.tensor)
    assert sample["images"].image_sizes == images.image_sizes


def test_indexing_by_tensor(three: Instances):
    three.remove("names")
    torch.testing.assert_close(three[three.scores > 0.15].scores, torch.tensor([0.2, 0.3]))
    torch.testing.assert_close(three[torch.tensor([2, 0])].gt_boxes.area(), torch.tensor([9.0, 1.0]))
    assert len(three[torch.zeros(3, dtype=torch.bool)]) == 0


@pytest.mark.parametrize("index", [3, -4])
def test_index_out_of_range(three: Instances, index):
    with pytest.raises(IndexError):
        three[index]


def test_cat(three: Instances):
    both = Instances.cat([three, three[1]])
    assert both.names == ["a", "b", "c", "b"]
    assert both.gt_boxes.area().tolist() == [1, 4, 9, 4]
    assert both.scores.shape == (4,)
    assert Instances.cat([three]) is three


def test_cat_refuses_other_image_sizes(three: Instances):
    with pytest.raises(AssertionError, match="image sizes"):
        Instances.cat([three, Instances((5, 5), **three.get_fields())])


def test_cat_refuses_unknown_types():
    one = Instances((1, 1), ids=range(2))
    with pytest.raises(ValueError, match="range"):
        Instances.cat([one, one])


def test_to_moves_what_can_move(three: Instances):
    moved = three.to("cpu")
    assert moved.names is three.names
    assert moved.gt_boxes is not three.gt_boxes


def test_copies_and_pickles(three: Instances):
    for other in (copy.deepcopy(three), copy.copy(three), pickle.loads(pickle.dumps(three))):
        assert other.names == three.names
        assert other.image_size == three.image_size
