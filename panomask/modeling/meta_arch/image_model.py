"""What all models of images share: a backbone, and how images come to it.

Shapes: N images, C image channels, H x W padded image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.utils import draw_bounding_boxes

from panomask.errors import InputError
from panomask.event_storage import get_event_storage
from panomask.modeling.backbone import Backbone
from panomask.structures import BitMasks, Boxes, ImageList, Instances, Keypoints

MAX_DRAWN_BOXES = 20


class ImageModel(nn.Module):
    """A backbone and the normalisation of what goes into it.

    Args:
        backbone: images to feature maps.
        pixel_mean, pixel_std: one number a channel, in the range of the input.

    Raises:
        InputError: means and deviations of different counts.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, *, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]):
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise InputError(
                f"MODEL.PIXEL_MEAN has {len(pixel_mean)} channels and MODEL.PIXEL_STD {len(pixel_std)};"
                " they must agree"
            )
        self.backbone = backbone
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is; inputs are moved there."""
        return self.pixel_mean.device

    def _move(self, value: Any) -> Any:
        """A tensor or `Instances` of the input on the model's device.

        Nothing waits for the copy of what lies in pinned memory, as the loaders' batches do where there is a
        GPU: the device makes it while it is still at work on the last step.
        """
        if type(value) is Instances:
            moved = Instances(value.image_size)
            for name, field in value.get_fields().items():
                moved.set(name, self._move(field))
            return moved
        if self.device.type != "cpu" and type(value) in (torch.Tensor, Boxes, BitMasks, Keypoints):
            return value.to(self.device, non_blocking=True)
        # To the CPU it must be waited for; and structures of users take a device alone.
        return value.to(self.device) if hasattr(value, "to") else value

    def preprocess_image(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Move, normalise, pad and stack the images: (N, C, H, W) with their own sizes beside it."""
        images = [self._move(x["image"]) for x in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _ground_truth(self, batched_inputs: Sequence[dict[str, Any]]) -> list[Instances] | None:
        """The inputs' "instances" on the model's device, None where there are none."""
        if "instances" not in batched_inputs[0]:
            return None
        return [self._move(x["instances"]) for x in batched_inputs]

    def _semantic_truth(self, batched_inputs: Sequence[dict[str, Any]], ignore_value: int) -> torch.Tensor:
        """The inputs' "sem_seg" labels padded as the images are: (N, H, W), the padding `ignore_value`."""
        if any("sem_seg" not in x for x in batched_inputs):
            raise InputError(
                f"{type(self).__name__} learns from 'sem_seg', which an input does not have; train it on a"
                " data set with semantic or panoptic truth"
            )
        return ImageList.from_tensors(
            [self._move(x["sem_seg"]) for x in batched_inputs],
            self.backbone.size_divisibility,
            pad_value=ignore_value,
            padding_constraints=self.backbone.padding_constraints,
        ).tensor


def output_size(batched_input: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that an input asks the output to have: by default that of the image itself."""
    return batched_input.get("height", image_size[0]), batched_input.get("width", image_size[1])


def put_boxes_image(caption: str, batched_input: dict[str, Any], boxes: Boxes, input_format: str) -> None:
    """Put an image into the event storage, twice side by side: with its true boxes, and with `boxes`.

    Args:
        caption: the name in the storage.
        batched_input: with "image" (C, H0, W0) and "instances".
        boxes: in pixels of that image, the best first; MAX_DRAWN_BOXES of them are drawn.
        input_format: channel order of the image.
    """
    image = batched_input["image"].to(torch.uint8).cpu()
    image = image.flip(0) if input_format == "BGR" else image
    best = boxes[:MAX_DRAWN_BOXES].to("cpu").clone()
    best.clip(image.shape[1:])
    truth = batched_input["instances"].gt_boxes.tensor.cpu()
    drawn = [
        draw_bounding_boxes(image, shown, colors="lime", width=2) if len(shown) else image
        for shown in (truth, best.tensor)
    ]
    get_event_storage().put_image(caption, torch.cat(drawn, dim=2))
