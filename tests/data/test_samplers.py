import itertools
import math
from collections import Counter

import pytest
import torch

from panomask import distributed
from panomask.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)


def _take(sampler, count):
    return list(itertools.islice(sampler, count))


def _on_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world_size)


def test_training_stream_is_epochs_of_permutations():
    stream = _take(TrainingSampler(10, seed=3), 30)
    epochs = [stream[:10], stream[10:20], stream[20:]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != list(range(10))
    assert stream == _take(TrainingSampler(10, seed=3), 30)
    assert stream != _take(TrainingSampler(10, seed=4), 30)
    assert _take(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_order_is_torch_randperm_of_the_seed():
    generator = torch.Generator().manual_seed(5)
    expected = [torch.randperm(7, generator=generator).tolist() for _ in range(2)]
    assert _take(TrainingSampler(7, seed=5), 14) == expected[0] + expected[1]


def test_reseeding_changes_the_stream_of_the_next_iteration():
    sampler = TrainingSampler(10, seed=3)
    sampler.reseed(4)
    assert _take(sampler, 20) == _take(TrainingSampler(10, seed=4), 20)


@pytest.mark.parametrize(
    "build",
    [
        lambda: TrainingSampler(10, seed=3),
        lambda: RepeatFactorTrainingSampler(torch.rand(10) * 0 + 1.5, seed=3),
        lambda: RandomSubsetTrainingSampler(10, 0.5, seed_shuffle=3),
    ],
)
def test_ranks_take_turns_in_one_stream(monkeypatch, build):
    whole = _take(build(), 24)
    shards = []
    for rank in range(3):
        _on_rank(monkeypatch, rank, 3)
        shards.append(_take(build(), 8))
    assert [index for turn in zip(*shards, strict=True) for index in turn] == whole


def test_random_subset_is_fixed():
    sampler = RandomSubsetTrainingSampler(20, 0.25, seed_shuffle=1)
    stream = _take(sampler, 50)
    assert len(set(stream)) == 5
    assert set(stream) == set(_take(sampler, 5))
    one = RandomSubsetTrainingSampler(20, 0.25, seed_shuffle=1, seed_subset=9)
    other = RandomSubsetTrainingSampler(20, 0.25, seed_shuffle=2, seed_subset=9)
    assert set(_take(one, 5)) == set(_take(other, 5))
    with pytest.raises(ValueError, match="subset_ratio"):
        RandomSubsetTrainingSampler(3, 0.1)


def _dicts(*category_lists):
    return [{"annotations": [{"category_id": c} for c in categories]} for categories in category_lists]


def test_repeat_factors_by_hand():
    # Class 0 is in 4 of 4 images, class 1 in 1 of 4 (twice), class 2 in 2 of 4; threshold 0.5
    dicts = _dicts([0], [0, 1, 1], [0, 2], [0, 2])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 0.5)
    assert factors.tolist() == pytest.approx([1, math.sqrt(0.5 / 0.25), 1, 1])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 1.0, sqrt=False)
    assert factors.tolist() == [1, 4, 2, 2]
    assert RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        _dicts([], [0]), 0.1
    ).tolist() == [1, 1]


def test_repeats_follow_the_factors():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.0, 2.5]), seed=0)
    epochs = 2000
    counts = Counter(_take(sampler, int(5.5 * epochs)))
    assert counts[1] / counts[0] == pytest.approx(2, rel=0.01)
    assert counts[2] / counts[0] == pytest.approx(2.5, rel=0.03)
    ordered = RepeatFactorTrainingSampler(torch.tensor([1.0, 2.0]), shuffle=False, seed=0)
    assert _take(ordered, 6) == [0, 1, 1, 0, 1, 1]


def test_empty_training_sets_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        TrainingSampler(0)
    with pytest.raises(ValueError, match="at least one image"):
        RepeatFactorTrainingSampler(torch.zeros(3))


@pytest.mark.parametrize("size,world_size", [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_inference_covers_every_image_once_in_order(monkeypatch, size, world_size):
    parts = []
    for rank in range(world_size):
        _on_rank(monkeypatch, rank, world_size)
        sampler = InferenceSampler(size)
        assert len(sampler) == len(list(sampler))
        parts.append(list(sampler))
    assert [index for part in parts for index in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
