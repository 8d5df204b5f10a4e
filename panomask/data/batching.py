"""From a stream of indices to batches that depend on nothing but the seed.

    sampler -> PositionedBatchSampler -> lists of (position, index) -> SeededDataset in a worker -> batch

`position` is a sample's place in the stream of all ranks together. The worker seeds every random generator
from (seed, position) before it maps the sample, so a batch is the same however many workers there are, and a
resumed training goes on where it stopped by replaying indices alone: no image is read twice.
"""

import itertools
import logging
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info

from panomask import distributed
from panomask.data.image_io import read_image_size
from panomask.errors import InputError

logger = logging.getLogger(__name__)

MAX_RETRIES = 1000


class _WorkerInputError:
    """Bad input found in a worker, on its way to the main process.

    Returned instead of raised: torch would wrap the one line in a traceback.
    """

    def __init__(self, error: InputError):
        self.error = error


class MapDataset(Dataset):
    """`map_func(dataset[i])`; where that is None, another image takes its place, always the same for an i.

    The other image may be of another orientation than its batch. In a loader's worker an `InputError` is not
    raised but returned, for `InputErrorLoader` to raise.

    Args:
        dataset: map-style.
        map_func: returns a sample, or None to refuse the image.
    """

    def __init__(self, dataset: Dataset, map_func: Callable[[Any], Any]):
        self._dataset = dataset
        self._map_func = map_func

    @property
    def source(self) -> Dataset:
        """The dataset before mapping."""
        return self._dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, idx: int) -> Any:
        try:
            return self._map_or_replace(int(idx))
        except InputError as error:
            if get_worker_info() is None:
                raise
            return _WorkerInputError(error)

    def _map_or_replace(self, idx: int) -> Any:
        choice = random.Random(idx)
        current = idx
        for attempt in range(MAX_RETRIES):
            sample = self._map_func(self._dataset[current])
            if sample is not None:
                return sample
            if attempt == 3:
                logger.warning("The mapper gave None for image %d and for 3 others tried in its place", idx)
            current = choice.randrange(len(self))
        raise InputError(
            f"the mapper returned None for image {idx} and for {MAX_RETRIES - 1} others tried in its place:"
            " hardly an image of the data set is usable; check the mapper"
        )


class SeededDataset(Dataset):
    """Items of `dataset` by (position, index), drawn with generators seeded from (seed, position).

    The generators (python's, numpy's, torch's of the CPU) are left as they were found.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        position, index = key
        with _seeded(self.seed, position):
            return self.dataset[index]


@contextmanager
def _seeded(seed: int, position: int) -> Iterator[None]:
    saved = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    numbers = np.random.SeedSequence([seed, position]).generate_state(3).tolist()
    random.seed(numbers[0])
    np.random.seed(numbers[1])
    # Not torch.manual_seed, which would seed the GPU's generators, that the model draws from, as well.
    torch.random.default_generator.manual_seed(numbers[2])
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.random.set_rng_state(saved[2])


def group_into_batches(
    stream: Iterable[Any], batch_size: int, group_of: Callable[[Any], Hashable]
) -> Iterator[list[Any]]:
    """Batches of one group each, in the order in which they fill up; unfilled ones are dropped."""
    buckets: dict[Hashable, list[Any]] = defaultdict(list)
    for element in stream:
        bucket = buckets[group := group_of(element)]
        bucket.append(element)
        if len(bucket) == batch_size:
            yield buckets.pop(group)


class AspectRatioGroupedDataset(torch.utils.data.IterableDataset):
    """Batches of equal orientation (width > height or not) out of an iterable of dicts with width and height.

    The loaders of `panomask.data.build` group indices instead, before an image is read; this is for streams.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int):
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return group_into_batches(self.dataset, self.batch_size, lambda d: d["width"] > d["height"])


class ToIterableDataset(torch.utils.data.IterableDataset):
    """The items of a map-style dataset in the order of a sampler, as a stream.

    Args:
        dataset: map-style.
        sampler: gives indices. Workers that share a seed give the same ones.
        shard_sampler: each of W workers takes its part of the indices; otherwise all of them, which is right
            for a sampler that differs by worker.
        shard_chunk_size: so many indices in a row go to one worker. With as many as a batch holds, batches
            are those of a single process.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Iterable[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ):
        assert shard_chunk_size >= 1, shard_chunk_size
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        for place, index in enumerate(self.sampler):
            is_anothers = (
                self.shard_sampler
                and worker is not None
                and place // self.shard_chunk_size % worker.num_workers != worker.id
            )
            if not is_anothers:
                yield self.dataset[index]

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


class GroupedBatchSampler(BatchSampler):
    """Batches of indices of one group each.

    Args:
        sampler: gives indices.
        group_ids: the group of each index.
        batch_size: indices in a batch.
    """

    def __init__(self, sampler: Sampler[int], group_ids: Sequence[int], batch_size: int):
        self.sampler = sampler
        self.group_ids = np.asarray(group_ids)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return group_into_batches(self.sampler, self.batch_size, lambda index: int(self.group_ids[index]))

    def __len__(self) -> int:
        raise TypeError("the number of batches depends on how the groups fill up")


class Orientation:
    """index -> whether that image is wider than high, when first asked for.

    Read from the dataset dict or, where that has no size, from the head of the image file.
    """

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            item = self._dataset[index]
            height, width = item.get("height"), item.get("width")
            if width is None or height is None:
                if "file_name" not in item:
                    raise InputError(
                        f"image {index}: grouping by aspect ratio needs width and height, which are not"
                        " known; add them to the dataset dict, or set DATALOADER.ASPECT_RATIO_GROUPING False"
                    )
                height, width = read_image_size(item["file_name"])
            self._known[index] = width > height
        return self._known[index]


class PositionedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (position, index) out of this rank's stream of indices.

    Args:
        sampler: this rank's indices, finite or not.
        batch_size: samples of a batch of this rank.
        group_of: index -> group; a batch holds one group. None: batches in the order of the stream.
        drop_last: drop what does not fill a batch at the end of a finite stream (always so with groups).
    """

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        *,
        group_of: Callable[[int], Hashable] | None = None,
        drop_last: bool = True,
    ):
        self.sampler = sampler
        self.batch_size = batch_size
        self.group_of = group_of
        self.drop_last = drop_last
        self.num_skipped = 0  # batches left out at the beginning: those a resumed training has seen

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._batches(), self.num_skipped, None)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        stream = ((rank + k * world_size, int(index)) for k, index in enumerate(self.sampler))
        if self.group_of is not None:
            group_of = self.group_of
            yield from group_into_batches(stream, self.batch_size, lambda element: group_of(element[1]))
            return
        while batch := list(itertools.islice(stream, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


class _ErrorPassingCollate:
    """`collate` for batches without a `_WorkerInputError`; the first such error for the others."""

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self.collate = collate

    def __call__(self, batch: list[Any]) -> Any:
        errors = (sample for sample in batch if isinstance(sample, _WorkerInputError))
        return next(errors, None) or self.collate(batch)


class InputErrorLoader(DataLoader):
    """A `DataLoader` over a `MapDataset` that raises a worker's `InputError` as it was.

    It draws no random number from the process's generators.
    """

    def __init__(self, dataset: Dataset, *, collate_fn: Callable[[list[Any]], Any], **kwargs: Any):
        collate = _ErrorPassingCollate(collate_fn)
        with _no_advice_on_workers():
            super().__init__(dataset, collate_fn=collate, generator=torch.Generator(), **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with _no_advice_on_workers():
            return _Batches(super().__iter__())


@contextmanager
def _no_advice_on_workers() -> Iterator[None]:
    """Silence torch's long warnings about more workers than cores (the default of 4, on a small machine)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


class _Batches(Iterator[Any]):
    """The batches of a `DataLoader`'s iterator, whose workers end at the first error.

    Left to itself, torch's iterator hangs in a reference cycle with the exception: its workers live on until
    the garbage is collected, which then waits in vain for seconds, or happens in another loader's worker.
    """

    def __init__(self, batches: Any):
        self._batches = batches

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
            if isinstance(batch, _WorkerInputError):
                raise batch.error
            return batch
        except StopIteration:
            raise
        except BaseException:
            if hasattr(self._batches, "_shutdown_workers"):
                self._batches._shutdown_workers()
            raise


class ResumableLoader(InputErrorLoader):
    """The training loader: an endless stream of batches that can be taken up again at any batch.

    Who trains counts the batches::

        state = loader.state_dict(batches=1000)  # after 1000 batches have been trained on
        loader.load_state_dict(state)  # in another process, on a loader built the same way
        batches = iter(loader)  # goes on with batch 1000
    """

    def __init__(self, dataset: Dataset, batch_sampler: PositionedBatchSampler, *, seed: int, **kwargs: Any):
        super().__init__(SeededDataset(dataset, seed), batch_sampler=batch_sampler, **kwargs)

    @property
    def seed(self) -> int:
        """What the stream depends on, and the augmentations' random numbers."""
        return self.dataset.seed  # type: ignore[attr-defined]

    def state_dict(self, batches: int) -> dict[str, int]:
        """The state after `batches` batches since the beginning of the stream. The same for all ranks."""
        return {"seed": self.seed, "batches": int(batches)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next `iter` where `state` says.

        A sampler without `reseed` must give the same indices in every process by itself.
        """
        seed = int(state["seed"])
        self.dataset.seed = seed  # type: ignore[attr-defined]
        self.batch_sampler.num_skipped = int(state["batches"])  # type: ignore[union-attr]
        reseed = getattr(self.batch_sampler.sampler, "reseed", None)  # type: ignore[union-attr]
        if reseed is not None:
            reseed(seed)
