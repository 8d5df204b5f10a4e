import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from panomask import distributed


def test_one_process_without_a_group():
    assert distributed.get_world_size() == distributed.get_local_size() == 1
    assert distributed.get_rank() == distributed.get_local_rank() == 0
    assert distributed.is_main_process()
    distributed.synchronize()
    assert distributed.all_gather({"a": 1}) == [{"a": 1}]
    assert distributed.gather("x") == ["x"]
    losses = {"a": torch.tensor(2.0)}
    assert distributed.reduce_dict(losses) == losses


def test_shared_random_seed_follows_numpys_generator():
    np.random.seed(3)
    first = distributed.shared_random_seed()
    np.random.seed(3)
    assert distributed.shared_random_seed() == first
    assert 0 <= first < 2**31


def test_local_process_group_needs_launch():
    with pytest.raises(RuntimeError, match="launch"):
        distributed.get_local_process_group()


def _in_two_processes(rank: int, folder: str, backend: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(backend, f"file://{folder}/rendezvous", rank=rank, world_size=2)
    assert distributed.get_local_size() == 2
    distributed.create_object_group(timedelta(minutes=1))
    distributed.create_local_process_group(2)
    assert (distributed.get_rank(), distributed.get_local_rank()) == (rank, rank)
    assert distributed.is_main_process() == (rank == 0)
    assert distributed.all_gather({"rank": rank, "pad": "x" * rank}) == [
        {"rank": 0, "pad": ""},
        {"rank": 1, "pad": "x"},
    ]
    assert distributed.gather(rank, dst=1) == ([0, 1] if rank == 1 else [])
    np.random.seed(rank)
    assert len(set(distributed.all_gather(distributed.shared_random_seed()))) == 1
    reduced = distributed.reduce_dict({"b": torch.tensor(float(rank)), "a": torch.tensor(4.0)})
    if rank == 0:
        assert reduced == {"b": torch.tensor(0.5), "a": torch.tensor(4.0)}
    distributed.synchronize()
    open(os.path.join(folder, f"done{rank}"), "w").close()
    distributed.destroy_process_group()


@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo"])
def test_collectives_over_two_processes(tmp_path, backend):
    mp.start_processes(_in_two_processes, (str(tmp_path), backend), nprocs=2, start_method="fork")
    assert {path.name for path in tmp_path.glob("done*")} == {"done0", "done1"}
