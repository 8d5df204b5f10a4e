import pytest
import torch

import panomask.layers.memory as memory
from panomask.layers import retry_if_cuda_oom


class OnGpu:
    """Something with a device and a `to`, as tensors and boxes have."""

    device = torch.device("cuda", 0)

    def to(self, device: str) -> str:
        return f"moved to {device}"


@pytest.mark.parametrize("failures, argument", [(0, "gpu"), (1, "gpu"), (2, "moved to cpu")])
def test_tries_again_and_moves_at_last(monkeypatch, failures, argument):
    emptied = []
    monkeypatch.setattr(memory.torch.cuda, "empty_cache", lambda: emptied.append(1))
    calls = []

    @retry_if_cuda_oom
    def fill(*args, **kwargs):
        calls.append((args, kwargs))
        if len(calls) <= failures:
            raise torch.cuda.OutOfMemoryError("full")
        return [value if isinstance(value, str) else "gpu" for value in (args[0], kwargs["b"])]

    cpu = torch.zeros(1)
    assert fill(OnGpu(), cpu, b=OnGpu()) == [argument, argument]
    assert len(calls) == failures + 1
    assert calls[-1][0][1] is cpu
    assert len(emptied) == (failures > 0)


def test_other_errors_pass():
    @retry_if_cuda_oom
    def broken():
        raise RuntimeError("not memory")

    with pytest.raises(RuntimeError, match="not memory"):
        broken()
