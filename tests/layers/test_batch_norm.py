import subprocess
import sys

import pytest
import torch
from torch import nn

from panomask.errors import InputError
from panomask.layers import (
    Conv2d,
    CycleBatchNormList,
    FrozenBatchNorm2d,
    LayerNorm,
    NaiveSyncBatchNorm,
    SyncBatchNorm,
    get_norm,
)


def _filled(norm: nn.Module) -> nn.Module:
    """Give every vector of a batch norm of two channels values that tell them apart."""
    values = {
        "weight": [2.0, 3.0],
        "bias": [0.5, -1.0],
        "running_mean": [1.0, -2.0],
        "running_var": [4.0, 0.25],
    }
    norm.load_state_dict({**norm.state_dict(), **{key: torch.tensor(value) for key, value in values.items()}})
    return norm.eval()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_by_hand(requires_grad):
    norm = _filled(FrozenBatchNorm2d(2, eps=0.0))
    x = torch.tensor([3.0, 3.0]).reshape(1, 2, 1, 1).requires_grad_(requires_grad)
    # (3 - 1) / 2 * 2 + 0.5 and (3 + 2) / 0.5 * 3 - 1
    torch.testing.assert_close(norm(x).flatten().detach(), torch.tensor([2.5, 29.0]))


def test_frozen_is_the_identity_at_first():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(FrozenBatchNorm2d(3)(x), x)
    assert FrozenBatchNorm2d(3)(x[:0]).shape == (0, 3, 4, 5)


def test_frozen_never_trains():
    norm = FrozenBatchNorm2d(3)
    assert list(norm.parameters()) == []
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    norm.train()(torch.randn(4, 3, 2, 2, requires_grad=True)).sum().backward()
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_frozen_gradient():
    norm = _filled(FrozenBatchNorm2d(2)).double()
    assert torch.autograd.gradcheck(norm, torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True))


def test_frozen_keeps_half_precision():
    x = torch.randn(1, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert FrozenBatchNorm2d(3)(x).dtype == torch.bfloat16


def test_frozen_loads_a_batch_norm():
    source = _filled(nn.BatchNorm2d(2))
    norm = FrozenBatchNorm2d(2)
    norm.load_state_dict(source.state_dict())  # holds num_batches_tracked
    x = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(norm(x), source(x))


def test_frozen_loads_files_without_statistics():
    conv = Conv2d(1, 2, 1, bias=False, norm=FrozenBatchNorm2d(2))
    conv.norm.running_mean.fill_(7)
    weights = {"weight": conv.weight, "norm.weight": torch.tensor([2.0, 3.0]), "norm.bias": torch.ones(2)}
    conv.load_state_dict(weights)
    assert conv.norm.running_mean.tolist() == [0, 0]
    assert conv.norm.running_var.tolist() == [1, 1]
    assert "norm.running_mean" not in weights


def test_convert_to_frozen_and_back():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(_filled(nn.BatchNorm2d(2, eps=1e-3)))).eval()
    x = torch.randn(3, 2, 4, 4)
    expected = model(x)
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(model) is model
    assert isinstance(model[1][0], FrozenBatchNorm2d)
    assert model[1][0].eps == 1e-3
    torch.testing.assert_close(model(x), expected)
    FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(model)
    assert isinstance(model[1][0], nn.BatchNorm2d)
    assert not model[1][0].training
    torch.testing.assert_close(model(x), expected)


def test_a_converted_norm_keeps_the_keys_of_its_state_dict():
    """Checkpoints of models trained with SyncBN hold num_batches_tracked of their frozen stages too."""
    trained = _filled(nn.BatchNorm2d(2))
    trained.num_batches_tracked.fill_(7)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(trained)
    assert list(frozen.state_dict()) == list(trained.state_dict())
    assert frozen.num_batches_tracked == 7
    without = FrozenBatchNorm2d(2).state_dict()
    frozen.load_state_dict(without)  # a file without the entry fits as well
    assert frozen.num_batches_tracked == 7
    back = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(frozen)
    assert back.num_batches_tracked == 7


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2, affine=False), nn.SyncBatchNorm(2)])
def test_convert_a_norm_itself(norm):
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    assert frozen.weight.tolist() == [1, 1]


@pytest.mark.parametrize(
    "name, kind",
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", SyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        (nn.InstanceNorm2d, nn.InstanceNorm2d),
    ],
)
def test_get_norm(name, kind):
    norm = get_norm(name, 64)
    assert type(norm) is kind
    assert norm(torch.randn(2, 64, 3, 3)).shape == (
        2,
        64,
        3,
        3,
    )  # in training mode, on the CPU, in one process


def test_get_norm_of_nothing():
    assert get_norm("", 3) is None
    assert get_norm(None, 3) is None


def test_get_norm_refuses():
    with pytest.raises(InputError, match=r"Did you mean .*FrozenBN"):
        get_norm("FrozenBn", 64)
    with pytest.raises(InputError, match=r"32 groups.* 48"):
        get_norm("GN", 48)
    assert get_norm("GN", 96).num_groups == 32


def test_layer_norm_by_hand():
    norm = LayerNorm(2, eps=0.0)
    norm.weight.data = torch.tensor([2.0, 1.0])
    out = norm(torch.tensor([1.0, 5.0]).reshape(1, 2, 1, 1))  # mean 3, deviation 2
    assert out.flatten().tolist() == [-2, 1]


TWO_PROCESSES = """
import sys
import torch, torch.distributed as dist
from panomask.layers import get_norm
torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for name, count in (("naiveSyncBN", 2), ("naiveSyncBN_N", 0), ("SyncBN", 1)):
    # The second process has 3 images; "naiveSyncBN" needs equal counts.
    data = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    counts = (count, 2 if name == "naiveSyncBN" else 3)
    data = data[: sum(counts)]
    mine = slice(0, counts[0]) if rank == 0 else slice(counts[0], None)
    torch.manual_seed(1)
    norm, whole = get_norm(name, 3).double(), torch.nn.BatchNorm2d(3).double()
    norm.weight.data = torch.rand(3).double()
    whole.weight.data = norm.weight.data.clone()
    x, all_x = data[mine].clone().requires_grad_(), data.clone().requires_grad_()
    y, all_y = norm(x), whole(all_x)
    torch.testing.assert_close(y, all_y[mine])
    (y ** 3).sum().backward(); (all_y ** 3).sum().backward()
    torch.testing.assert_close(x.grad, all_x.grad[mine])
    dist.all_reduce(norm.weight.grad)
    torch.testing.assert_close(norm.weight.grad, whole.weight.grad)
    torch.testing.assert_close(norm.running_mean, whole.running_mean)
    biased = data.var(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * biased)
    norm.eval(); norm(x)
dist.destroy_process_group()
"""


def test_two_processes_agree_with_one_big_batch(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path / "rendezvous")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors


def test_norms_that_take_turns_by_hand():
    norm = CycleBatchNormList(2, num_features=1, eps=0.0).eval()
    assert set(norm.state_dict()) >= {"weight", "bias", "0.running_mean", "1.running_var"}
    assert not any(key.startswith("0.weight") for key in norm.state_dict())
    norm[0].running_mean.fill_(1.0)
    norm[1].running_var.fill_(4.0)
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.bias.fill_(0.5)
    x = torch.full((1, 1, 1, 1), 5.0)
    # (5 - 1) / 1 * 3 + 0.5, then 5 / 2 * 3 + 0.5, and round again
    assert [norm(x).item() for _ in range(4)] == [12.5, 8.0, 12.5, 8.0]


def test_norms_that_take_turns_without_a_scale():
    norm = CycleBatchNormList(2, nn.BatchNorm2d, num_features=3, affine=False)
    assert list(norm.parameters()) == []
    assert norm(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4)
