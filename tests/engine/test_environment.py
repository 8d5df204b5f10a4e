import random

import numpy as np
import torch

from panomask.checkpoint.files import read_checkpoint, to_plain
from panomask.engine.environment import (
    RandomStates,
    collect_env_info,
    get_random_state,
    preserve_random_state,
    seed_all_rng,
    set_random_state,
)


def draw() -> tuple:
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_seeding_repeats():
    seed_all_rng(7)
    first = draw()
    seed_all_rng(7)
    assert draw() == first
    seed_all_rng(None)
    assert draw() != first


def test_state_survives_a_checkpoint_file(tmp_path):
    seed_all_rng(7)
    draw()  # leaves a cached gaussian in numpy's generator
    torch.save(to_plain({"model": {"w": torch.ones(1)}, "rng": get_random_state()}), tmp_path / "a.pth")
    expected = draw()
    set_random_state(read_checkpoint(str(tmp_path / "a.pth"))["rng"])
    assert draw() == expected


def test_preserved_state():
    seed_all_rng(7)
    with preserve_random_state():
        first = draw()
    assert draw() == first


def test_random_states_take_effect_when_restored():
    states = RandomStates()
    states.before_save()
    saved = states.state_dict()
    expected = draw()
    states.load_state_dict(saved)
    draw()
    states.restore()
    assert draw() == expected
    states.restore()  # once
    assert draw() != expected


def test_env_info_names_the_versions():
    info = collect_env_info()
    assert torch.__version__ in info
    assert "torchvision" in info
