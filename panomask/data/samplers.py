"""Which image comes when: infinite streams for training, one pass for inference; each rank takes its share.

A training stream depends on its seed alone. Rank r of R takes the elements r, r + R, r + 2R, ... of the one
stream that all ranks agree on.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from panomask import distributed


class _InfiniteSampler(Sampler[int]):
    """Endless repetition of `_epoch`, sharded over the ranks.

    `seed` is what the stream depends on. None: drawn at random, equal on all ranks.
    """

    def __init__(self, seed: int | None):
        self.seed = distributed.shared_random_seed() if seed is None else int(seed)

    def reseed(self, seed: int) -> None:
        """From the next `iter` on, give the stream of `seed`: so a resumed training finds its own again."""
        self.seed = int(seed)

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._stream(), distributed.get_rank(), None, distributed.get_world_size())

    def _stream(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while True:
            yield from self._epoch(generator).tolist()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of one pass, (n,) int64."""
        raise NotImplementedError


class TrainingSampler(_InfiniteSampler):
    """Every image once an epoch, epoch after epoch, newly shuffled each time (or in order).

    Args:
        size: number of images.
        shuffle: shuffle each epoch.
        seed: see `_InfiniteSampler`; equal on all ranks.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if size <= 0:
            raise ValueError(f"TrainingSampler needs at least one image, got size={size}")
        super().__init__(seed)
        self.size = size
        self.shuffle = shuffle

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return torch.randperm(self.size, generator=generator) if self.shuffle else torch.arange(self.size)


class RandomSubsetTrainingSampler(TrainingSampler):
    """`TrainingSampler` over a random part of the images, the same part throughout the training.

    Args:
        size: number of images.
        subset_ratio: the part of them, in (0, 1].
        shuffle: shuffle each epoch.
        seed_shuffle: as `seed` of `TrainingSampler`.
        seed_subset: what the choice of the part depends on; None: on `seed_shuffle`.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ):
        super().__init__(size, shuffle, seed_shuffle)
        self.subset_ratio = subset_ratio
        self.seed_subset = seed_subset
        if not 0 < subset_ratio <= 1 or self.subset_size == 0:
            raise ValueError(f"subset_ratio={subset_ratio} of {size} images leaves none (or more than all)")

    @property
    def subset_size(self) -> int:
        return int(self.size * self.subset_ratio)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        choice = torch.Generator()
        choice.manual_seed(self.seed + 1 if self.seed_subset is None else self.seed_subset)
        subset = torch.randperm(self.size, generator=choice)[: self.subset_size]
        return subset[torch.randperm(len(subset), generator=generator)] if self.shuffle else subset


class RepeatFactorTrainingSampler(_InfiniteSampler):
    """Images with rare classes more often: each comes `repeat_factors[i]` times an epoch on average.

    The whole part of a factor is the least number of times, its fraction the probability of one time more,
    drawn anew for each epoch. "LVIS: A Dataset for Large Vocabulary Instance Segmentation" (Gupta et al.,
    2019), section 4.

    Args:
        repeat_factors: (N,) floating point, one an image.
        shuffle: shuffle each epoch.
        seed: see `_InfiniteSampler`; equal on all ranks.
    """

    def __init__(self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None):
        super().__init__(seed)
        self.shuffle = shuffle
        self.whole = torch.trunc(repeat_factors)
        self.fraction = repeat_factors - self.whole
        if len(repeat_factors) == 0 or not bool((repeat_factors > 0).any()):
            raise ValueError("RepeatFactorTrainingSampler needs at least one image with a factor above 0")

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: Sequence[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """An image's factor: the largest of its classes' max(1, sqrt(repeat_thresh / frequency)).

        Args:
            dataset_dicts: with `annotations`.
            repeat_thresh: a class in a smaller part of the images than this is repeated.
            sqrt: take the square root (the paper), or the ratio itself.

        Returns:
            (N,) float32; 1 for an image without objects. A class's frequency is its part of the images.
        """
        classes = [{anno["category_id"] for anno in item.get("annotations", ())} for item in dataset_dicts]
        num_images = Counter(itertools.chain.from_iterable(classes))
        factors = {}
        for category, count in num_images.items():
            ratio = repeat_thresh / (count / len(dataset_dicts))
            factors[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
        of_images = [max((factors[category] for category in of_image), default=1.0) for of_image in classes]
        return torch.tensor(of_images, dtype=torch.float32)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        is_extra = torch.rand(len(self.fraction), generator=generator) < self.fraction
        times = (self.whole + is_extra.float()).long()
        indices = torch.repeat_interleave(torch.arange(len(times)), times)
        return indices[torch.randperm(len(indices), generator=generator)] if self.shuffle else indices


class InferenceSampler(Sampler[int]):
    """Every image exactly once over all ranks.

    Each takes one stretch, of equal length or, for the first ranks, longer by one.

    Args:
        size: number of images; may be 0.
    """

    def __init__(self, size: int):
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        share, rest = divmod(size, world_size)
        start = rank * share + min(rank, rest)
        self._local_indices = range(start, start + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
