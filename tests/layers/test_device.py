import logging

import pytest
import torch

import panomask.layers.device as device_module
from panomask.errors import InputError
from panomask.layers import resolve_device


def test_cpu():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_missing_gpu_falls_back_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device_module._warn_about_cpu.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert resolve_device("cuda") == resolve_device("cuda") == torch.device("cpu")
    assert [record.message for record in caplog.records] == [
        "MODEL.DEVICE is cuda, but torch finds no GPU on this machine: running on the CPU"
    ]


def test_gpu_is_used_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"cuda:2.* 2 GPU"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", 1.5])
def test_unknown_device(name):
    with pytest.raises(InputError, match="allowed: cpu, cuda"):
        resolve_device(name)
