import itertools
import random

import numpy as np
import pytest
import torch
from PIL import Image

from panomask import distributed
from panomask.data.batching import (
    AspectRatioGroupedDataset,
    GroupedBatchSampler,
    InputErrorLoader,
    MapDataset,
    Orientation,
    PositionedBatchSampler,
    ResumableLoader,
    SeededDataset,
    ToIterableDataset,
    group_into_batches,
)
from panomask.data.samplers import TrainingSampler
from panomask.data.serialized_list import DatasetFromList
from panomask.errors import InputError


def _sizes(count=12):
    return [{"id": i, "width": 20 if i % 3 else 10, "height": 15} for i in range(count)]


def _augment(item):
    """A mapper that draws from every generator."""
    return {**item, "drawn": (random.random(), float(np.random.rand()), float(torch.rand(())))}


def _refuse_odd(item):
    return item if item["id"] % 2 == 0 else None


def _complain(item):
    if item["id"] == 5:
        raise InputError("file 5: something is wrong; mend it")
    return item


def _fail(item):
    raise KeyError("a bug")


def _take_batch(batch):
    return batch


def _loader(mapper=_augment, *, seed=11, num_workers=0, grouped=True, batch_size=2, sampler=None):
    dataset = MapDataset(DatasetFromList(_sizes()), mapper)
    batch_sampler = PositionedBatchSampler(
        sampler or TrainingSampler(12, seed=seed),
        batch_size,
        group_of=Orientation(dataset.source) if grouped else None,
    )
    return ResumableLoader(dataset, batch_sampler, seed=seed, num_workers=num_workers, collate_fn=_take_batch)


def _take(loader, count):
    return list(itertools.islice(iter(loader), count))


def test_batches_do_not_depend_on_the_number_of_workers():
    expected = _take(_loader(), 12)
    assert len({sample["drawn"] for batch in expected for sample in batch}) == 24
    for num_workers in (1, 3):
        assert _take(_loader(num_workers=num_workers), 12) == expected
    assert _take(_loader(seed=12), 12) != expected


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("grouped", [True, False])
def test_resumed_stream_continues_exactly(num_workers, grouped):
    whole = _take(_loader(grouped=grouped), 14)
    state = _loader(grouped=grouped).state_dict(5)
    assert state == {"seed": 11, "batches": 5}
    resumed = _loader(seed=99, num_workers=num_workers, grouped=grouped)
    resumed.load_state_dict(state)
    assert _take(resumed, 9) == whole[5:]
    assert resumed.state_dict(14) == {"seed": 11, "batches": 14}


def test_resuming_maps_nothing_that_was_seen():
    seen = []

    def remember(item):
        seen.append(item["id"])
        return item

    loader = _loader(remember)
    loader.load_state_dict({"seed": 11, "batches": 1000})
    next(iter(loader))
    assert len(seen) == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_main_generators_are_untouched(num_workers):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    _take(_loader(num_workers=num_workers), 5)
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


def test_generators_come_back_after_an_error():
    state = torch.random.get_rng_state()
    with pytest.raises(KeyError):
        SeededDataset(MapDataset(_sizes(), _fail), seed=0)[0, 0]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_aspect_groups_never_mix():
    for batch in _take(_loader(batch_size=3), 20):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


def test_ranks_share_one_stream(monkeypatch):
    whole = [key for batch in _take_keys(_sampler_of_rank(monkeypatch, 0, 1), 12) for key in batch]
    parts = []
    for rank in range(2):
        batches = _take_keys(_sampler_of_rank(monkeypatch, rank, 2), 6)
        parts.append({key for batch in batches for key in batch})
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(whole)
    assert {position % 2 for position, _ in parts[1]} == {1}


def _sampler_of_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world_size)
    return PositionedBatchSampler(TrainingSampler(12, seed=1), 2)


def _take_keys(sampler, count):
    return list(itertools.islice(sampler, count))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_input_error_arrives_as_one_line(num_workers):
    with pytest.raises(InputError) as error:
        _take(_loader(_complain, num_workers=num_workers), 12)
    assert str(error.value) == "file 5: something is wrong; mend it"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bugs_keep_their_traceback(num_workers):
    with pytest.raises(KeyError, match="a bug"):
        _take(_loader(_fail, num_workers=num_workers), 1)


def test_finite_loader_with_errors_passed_on():
    loader = InputErrorLoader(MapDataset(_sizes(5), _complain), collate_fn=_take_batch, batch_size=2)
    assert [len(batch) for batch in loader] == [2, 2, 1]
    assert len(loader) == 3
    assert loader.dataset[4]["id"] == 4


def test_refused_image_is_always_replaced_by_the_same():
    dataset = MapDataset(_sizes(), _refuse_odd)
    replaced = [dataset[i]["id"] for i in range(12)]
    assert replaced[::2] == [0, 2, 4, 6, 8, 10]
    assert all(i % 2 == 0 for i in replaced)
    assert replaced == [dataset[i]["id"] for i in range(12)]
    with pytest.raises(InputError, match="returned None for image 3"):
        MapDataset(_sizes(), lambda item: None)[3]


def test_missing_size_is_read_from_the_image(tmp_path):
    items = [{"file_name": str(tmp_path / f"{i}.png")} for i in range(2)]
    for item, size in zip(items, ((4, 3), (3, 4)), strict=True):
        Image.new("L", size).save(item["file_name"])
    orientation = Orientation([*items, {"width": 3}])
    assert [orientation(0), orientation(1)] == [True, False]
    with pytest.raises(InputError, match=r"image 2: .*DATALOADER\.ASPECT_RATIO_GROUPING False"):
        orientation(2)


def test_group_into_batches():
    assert list(group_into_batches(range(9), 2, lambda i: i % 3)) == [[0, 3], [1, 4], [2, 5]]
    assert list(group_into_batches([], 2, lambda i: i)) == []


def test_batches_without_groups_and_the_last_one():
    full = list(PositionedBatchSampler([7, 8, 9], 2))
    assert full == [[(0, 7), (1, 8)]]
    assert list(PositionedBatchSampler([7, 8, 9], 2, drop_last=False)) == [*full, [(2, 9)]]


def test_generic_groupers():
    batches = list(AspectRatioGroupedDataset(_sizes(6), 2))
    assert [[d["id"] for d in batch] for batch in batches] == [[1, 2], [0, 3], [4, 5]]
    sampler = GroupedBatchSampler([0, 1, 2, 3], [0, 1, 0, 1], 2)
    assert list(sampler) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_gives_every_index_once(num_workers):
    items, sampler = DatasetFromList(list(range(10))), [3, 1, 4, 0, 5, 9, 2, 6]
    stream = ToIterableDataset(items, sampler, shard_chunk_size=2)
    loader = torch.utils.data.DataLoader(stream, batch_size=2, num_workers=num_workers)
    assert len(stream) == 8
    assert [batch.tolist() for batch in loader] == [[3, 1], [4, 0], [5, 9], [2, 6]]


def test_a_stream_that_is_not_sharded_comes_from_every_worker():
    stream = ToIterableDataset(DatasetFromList([0, 1, 2]), [2, 0], shard_sampler=False)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(loader) == [0, 0, 2, 2]
