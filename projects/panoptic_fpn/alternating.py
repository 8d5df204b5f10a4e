"""Panoptic FPN whose tasks take turns (Kirillov et al. 2019, arXiv:1901.02446, the table on its training).

Shapes: N images, C channels, Hi x Wi feature map of level i.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from panomask.event_storage import get_event_storage
from panomask.modeling.meta_arch.panoptic_fpn import PanopticFPN
from panomask.registry import META_ARCH_REGISTRY
from panomask.structures import ImageList


@META_ARCH_REGISTRY.register()
class AlternatingPanopticFPN(PanopticFPN):
    """A Panoptic FPN that learns from the instances in even iterations, from the semantic labels in odd ones.

    The iteration is the event storage's, so that a resumed run goes on where it stopped. Without a trainer it
    is 0, and the losses are those of the instances. Arguments, state dict and inference are `PanopticFPN`'s.

    The task whose turn it is not is not computed: neither its losses nor the batch statistics of its norms.
    Its parameters have a gradient of zero all the same (`keep_in_graph`), and the optimizer takes its step:
    weight decay acts in every iteration, momentum goes on with what it remembers, and AdamW's averages of a
    head's gradients and of their squares are about half of what they are when it learns in every iteration,
    so that its steps are 0.7 times as long. The backbone learns in every iteration, from one task.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """In training the losses of the task whose turn it is; otherwise see `PanopticFPN.inference`.

        Raises:
            InputError: no "sem_seg" in an input of an odd iteration.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if get_event_storage().iter % 2 == 0:
            losses = self._instance_losses(images, features, batched_inputs)
        else:
            losses = self._semantic_losses(features, batched_inputs)
        return keep_in_graph(losses, self.parameters())

    def _instance_losses(
        self, images: ImageList, features: dict[str, torch.Tensor], batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor]:
        gt_instances = self._ground_truth(batched_inputs)
        proposals, losses = self._propose(images, features, batched_inputs, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        weighted = {name: loss * self.instance_loss_weight for name, loss in detector_losses.items()}
        return {**losses, **weighted}

    def _semantic_losses(
        self, features: dict[str, torch.Tensor], batched_inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor]:
        targets = self._semantic_truth(batched_inputs, self.sem_seg_head.ignore_value)
        _, losses = self.sem_seg_head(features, targets)
        return losses


def keep_in_graph(
    losses: dict[str, torch.Tensor], parameters: Iterable[nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The same losses, from which every parameter that learns gets a gradient: zero where they have none.

    DistributedDataParallel waits for all of them. A term of zero takes less than computing the other task's
    losses and multiplying those by zero, and puts no zeros between the losses in the log.

    Args:
        losses: scalars by name, at least one.
        parameters: those that require no gradient are left out.
    """
    name, loss = next(iter(losses.items()))
    nothing = torch.stack([parameter.sum() for parameter in parameters if parameter.requires_grad]).sum() * 0
    return {**losses, name: loss + nothing}
