"""What the training step does with its losses besides minimising them."""

from collections.abc import Mapping

import torch

from panomask import distributed
from panomask.errors import DivergedError
from panomask.event_storage import get_event_storage


def average_over_processes(loss_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean of each loss over all processes, on all of them. Collective.

    The losses stay on their device; on a GPU nothing waits for them.
    """
    values = {name: value.detach() for name, value in loss_dict.items()}
    world_size = distributed.get_world_size()
    if world_size == 1:
        return values
    names = sorted(values)
    mean = torch.stack([values[name].float().reshape(()) for name in names])
    torch.distributed.all_reduce(mean)
    mean /= world_size
    by_name = dict(zip(names, mean.unbind(), strict=True))
    return {name: by_name[name] for name in values}


def put_losses(
    loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
) -> None:
    """Record the losses, their sum as `total_loss`, and the seconds waited for the batch."""
    storage = get_event_storage()
    storage.put_scalar("data_time", data_time, cur_iter=cur_iter)
    for name, value in loss_dict.items():
        storage.put_scalar(prefix + name, value.detach(), cur_iter=cur_iter)
    if "total_loss" not in loss_dict:
        total = torch.stack([value.detach().float().reshape(()) for value in loss_dict.values()]).sum()
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)


def raise_not_finite(iteration: int, losses: Mapping[str, float]) -> None:
    """Raise the error for a loss that is NaN or infinite."""
    shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    raise DivergedError(
        f"the loss of iteration {iteration} is not finite ({shown}); a lower SOLVER.BASE_LR, a longer "
        "SOLVER.WARMUP_ITERS or SOLVER.CLIP_GRADIENTS.ENABLED True may help"
    )
