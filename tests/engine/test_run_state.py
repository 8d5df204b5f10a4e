"""Buffers that training changes and the state dict leaves out."""

import pytest
import torch
from torch import nn

from panomask.engine import run_state
from panomask.engine.run_state import TrainingBuffers


class Averaging(nn.Module):
    training_buffers = ("mean",)

    def __init__(self, value: float):
        super().__init__()
        self.register_buffer("mean", torch.tensor(value), persistent=False)
        self.register_buffer("fixed", torch.tensor(value), persistent=False)


def test_what_modules_name_is_kept():
    model, other = (nn.Sequential(nn.Linear(1, 1), Averaging(value)) for value in (3.0, 5.0))
    assert len(TrainingBuffers(nn.Linear(1, 1))) == 0
    state = TrainingBuffers(model).state_dict()
    assert state == {"ranks": [{"1.mean": torch.tensor(3.0)}]}
    TrainingBuffers(other).load_state_dict(state)
    assert (other[1].mean, other[1].fixed) == (3, 5)


@pytest.mark.parametrize(("rank", "expected"), [(0, 1.0), (1, 2.0), (2, 1.0)])
def test_every_process_gets_its_own(monkeypatch, rank, expected):
    model = nn.Sequential(Averaging(1.0))
    monkeypatch.setattr(run_state.distributed, "gather", lambda mine: [mine, {"0.mean": torch.tensor(2.0)}])
    buffers = TrainingBuffers(model)
    buffers.before_save()
    state = buffers.state_dict()
    model[0].mean.fill_(9.0)
    monkeypatch.setattr(run_state.distributed, "get_rank", lambda: rank)
    buffers.load_state_dict(state)
    assert model[0].mean == expected
