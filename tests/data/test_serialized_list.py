import multiprocessing
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from panomask.data import serialized_list
from panomask.data.serialized_list import DatasetFromList, SerializedList

ITEMS = [{"id": i, "text": "x" * i} for i in range(5)]


def test_behaves_like_the_list():
    held = SerializedList(ITEMS)
    assert len(held) == 5
    assert list(held) == ITEMS
    assert held[-1] == ITEMS[-1]
    assert held[1:3] == ITEMS[1:3]
    with pytest.raises(IndexError):
        held[5]
    assert list(SerializedList([])) == []


def test_edited_items_do_not_reach_the_list():
    held = SerializedList(ITEMS)
    held[2]["id"] = 99
    assert held[2]["id"] == 2


def _overwrite_first_byte(data):
    data[0] = 123


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_one_storage(method):
    held = SerializedList(ITEMS)
    assert held.data.is_shared()
    assert held.data[0] != 123
    context = torch.multiprocessing.get_context(method)
    process = context.Process(target=_overwrite_first_byte, args=(held.data,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert held.data[0] == 123


def test_a_spawned_worker_is_sent_a_handle():
    """Not the items, however many they are."""
    sizes = [len(ForkingPickler.dumps(DatasetFromList([{"text": "x" * 1000}] * n))) for n in (1, 1000)]
    assert sizes[0] == pytest.approx(sizes[1], abs=100)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_read_the_list(method):
    dataset = DatasetFromList([{"id": i, "text": "x" * i} for i in range(6)])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=list, multiprocessing_context=method
    )
    assert [item for batch in loader for item in batch] == list(dataset)


def test_full_shared_memory_falls_back_to_private(monkeypatch, caplog):
    def refuse(self):
        raise RuntimeError("unable to allocate shared memory\ntrace")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    assert list(SerializedList(ITEMS)) == ITEMS
    assert "--shm-size" in caplog.text


def test_dataset_from_list_copies_unless_told_otherwise():
    assert DatasetFromList(ITEMS)[1] is not ITEMS[1]
    assert DatasetFromList(ITEMS, serialize=False)[1] is not ITEMS[1]
    assert DatasetFromList(ITEMS, copy=False, serialize=False)[1] is ITEMS[1]
    assert len(DatasetFromList(ITEMS)) == 5
    assert DatasetFromList(ITEMS, serialize=tuple)[3] is ITEMS[3]
    assert multiprocessing.active_children() == []
    assert issubclass(serialized_list.DatasetFromList, torch.utils.data.Dataset)
