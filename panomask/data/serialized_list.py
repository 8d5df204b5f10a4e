"""A list of dataset dicts that is held once in memory however many loader workers read it.

Every forked worker would come to hold its own copy of a Python list, because reading an object writes its
reference count; a spawned one would get it pickled. One tensor has one reference count for all its bytes.
"""

import copy
import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

logger = logging.getLogger(__name__)


class SerializedList(Sequence):
    """A read-only list whose items lie pickled, end to end, in one uint8 tensor in shared memory.

    Every access unpickles afresh, so what a caller does to an item never reaches the list.
    """

    def __init__(self, items: Sequence[Any]):
        pickled = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        ends = torch.tensor([len(data) for data in pickled], dtype=torch.int64).cumsum(0)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends])  # (N + 1)
        self.data = _allocate(int(self.offsets[-1]))
        view = memoryview(self._bytes)
        for data, start in zip(pickled, self.offsets.tolist(), strict=False):
            view[start : start + len(data)] = data
        logger.debug("%d dataset dicts take %.2f MiB", len(pickled), len(self.data) / 2**20)

    @property
    def _bytes(self) -> Any:
        return self.data.numpy()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]  # negative indices, IndexError
        start, end = self.offsets[index : index + 2].tolist()
        return pickle.loads(memoryview(self._bytes)[start:end])


def _allocate(size: int) -> torch.Tensor:
    """(size,) uint8 in shared memory; in private memory, which forked workers share too, if that is full."""
    try:
        return torch.empty(size, dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        logger.warning(
            "No room for %d bytes of dataset dicts in shared memory (%s): they stay in private memory, which"
            " is enough unless workers are spawned. In a container, raise --shm-size.",
            size,
            str(error).splitlines()[0],
        )
        return torch.empty(size, dtype=torch.uint8)


class DatasetFromList(Dataset):
    """A list as a map-style dataset.

    Args:
        lst: the items.
        copy: return a deep copy of an item, so that the caller may edit it (without `serialize`, which always
            does).
        serialize: hold the items in a `SerializedList`; or a function that makes another such sequence of the
            list.
    """

    def __init__(
        self, lst: Sequence[Any], copy: bool = True, serialize: bool | Callable[[Sequence[Any]], Any] = True
    ):
        self._is_copied = copy and not serialize
        if callable(serialize):
            self._items = serialize(lst)
        else:
            self._items = SerializedList(lst) if serialize else lst

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, idx: int) -> Any:
        item = self._items[idx]
        return copy.deepcopy(item) if self._is_copied else item
