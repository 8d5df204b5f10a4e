"""The type that fast operations (convolutions, matrix products) compute in when a model predicts."""

from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode
from panomask.layers import resolve_device


def inference_autocast(cfg: CfgNode) -> torch.autocast:
    """A context in which a model computes as TEST.PRECISION says.

    On the CPU, where float16 is neither fast nor complete, bfloat16 takes its place.
    """
    device = resolve_device(cfg.MODEL.DEVICE).type
    dtype = getattr(torch, cfg.TEST.PRECISION)
    if device == "cpu" and dtype == torch.float16:
        dtype = torch.bfloat16
    is_reduced = dtype != torch.float32
    return torch.autocast(device, dtype=dtype if is_reduced else torch.bfloat16, enabled=is_reduced)


class InferenceAutocast(nn.Module):
    """A model that computes within a context; what is done with its outputs is not in it.

    Args:
        model: called with a batch.
        autocast: the context, as of `inference_autocast`.
    """

    def __init__(self, model: nn.Module, autocast: torch.autocast):
        super().__init__()
        self.model = model
        self.autocast = autocast

    def forward(self, batched_inputs: Any) -> Any:
        """The model's outputs."""
        with self.autocast:
            return self.model(batched_inputs)
