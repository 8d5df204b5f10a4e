"""The type that fast operations (convolutions, matrix products) compute in when a model predicts."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from panomask.config import CfgNode
from panomask.layers import resolve_device


def inference_autocast(cfg: CfgNode) -> AbstractContextManager[Any]:
    """A context in which a model computes as TEST.PRECISION says; that of the caller for float32.

    On the CPU, where float16 is neither fast nor complete, bfloat16 takes its place.
    """
    if cfg.TEST.PRECISION == "float32":
        return nullcontext()
    device = resolve_device(cfg.MODEL.DEVICE).type
    dtype = torch.bfloat16 if device == "cpu" else getattr(torch, cfg.TEST.PRECISION)
    return torch.autocast(device, dtype=dtype)


class InferenceAutocast(nn.Module):
    """A model that computes within a context; what is done with its outputs is not in it.

    Args:
        model: called with a batch.
        autocast: the context, as of `inference_autocast`.
    """

    def __init__(self, model: nn.Module, autocast: AbstractContextManager[Any]):
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.training = model.training

    def forward(self, batched_inputs: Any) -> Any:
        """The model's outputs."""
        with self.autocast:
            return self.model(batched_inputs)
