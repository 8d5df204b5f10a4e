"""Test-time augmentation: detect in several sizes of an image and in their mirror images, and merge.

The boxes of all versions go through one more suppression. Masks and keypoints are then predicted in the
boxes that are left, in every version, and their maps averaged.

Shapes: V versions of an image, D merged detections, K classes, Hm x Wm mask grid, P keypoints, S x S heatmap.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panomask.config import CfgNode, configurable
from panomask.data import transforms as T
from panomask.data.detection_utils import create_keypoint_hflip_indices, read_image
from panomask.errors import InputError
from panomask.modeling import GeneralizedRCNN, PanopticFPN, detector_postprocess
from panomask.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from panomask.structures import Boxes, Instances, heatmaps_to_keypoints

MIN_SCORE = 1e-8
"""Merged detections must exceed this: every box has one class, and 0 for the others."""


class DatasetMapperTTA:
    """From a model's input to a list of inputs: its versions.

    Args:
        min_sizes: lengths of the shorter side; each gives a version, 0 the image as it is.
        max_size: the longer side is at most this.
        flip: each version is followed by its mirror image.
    """

    @configurable
    def __init__(self, min_sizes: Sequence[int], max_size: int, flip: bool):
        self.min_sizes = list(min_sizes)
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        aug = cfg.TEST.AUG
        return {"min_sizes": aug.MIN_SIZES, "max_size": aug.MAX_SIZE, "flip": aug.FLIP}

    def __call__(self, dataset_dict: dict[str, Any]) -> list[dict[str, Any]]:
        """The versions of one input.

        Args:
            dataset_dict: with "image" (C, H, W) and the "height" and "width" of the original image.

        Returns:
            V dicts like it, with an "image" of their own and "transforms", what lies between the original
            image and this one.
        """
        image = dataset_dict["image"].permute(1, 2, 0).cpu().numpy()  # (H, W, C)
        original, size = (dataset_dict["height"], dataset_dict["width"]), image.shape[:2]
        to_image = T.NoOpTransform() if size == original else T.ResizeTransform(*original, *size)
        versions = []
        for augmentations in self._augmentations():
            augmented = T.AugInput(np.copy(image))
            applied = augmented.apply_augmentations(augmentations)
            tensor = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
            transforms = T.TransformList([to_image, *applied.transforms])
            versions.append({**dataset_dict, "image": tensor, "transforms": transforms})
        return versions

    def _augmentations(self) -> Iterator[list[T.Augmentation]]:
        for min_size in self.min_sizes:
            resize = T.ResizeShortestEdge(min_size, self.max_size)
            yield [resize]
            if self.flip:
                yield [resize, T.RandomFlip(prob=1.0)]


class GeneralizedRCNNWithTTA(nn.Module):
    """A `GeneralizedRCNN` applied to the versions of an image, called like the model itself."""

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        tta_mapper: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None,
        batch_size: int = 3,
    ):
        """
        Args:
            cfg: of the model; TEST.AUG says which versions there are. With keypoints and mirror images, the
                metadata of DATASETS.TEST (or TRAIN) say which keypoints swap.
            model: in evaluation mode when this is called.
            tta_mapper: as `DatasetMapperTTA`, the default; it may resize, flip and recolour.
            batch_size: so many versions go through the model together.

        Raises:
            InputError: a model without the two stages that this needs.
        """
        super().__init__()
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN):
            raise InputError(
                "TEST.AUG.ENABLED: test-time augmentation is for GeneralizedRCNN, not"
                f" {type(model).__name__}; set it False"
            )
        if model.proposal_generator is None:
            raise InputError(
                "TEST.AUG.ENABLED: proposals that are read from files are not augmented; set it False"
            )
        self.cfg = cfg.clone()
        self.model: GeneralizedRCNN = model
        self.tta_mapper = DatasetMapperTTA(cfg) if tta_mapper is None else tta_mapper  # type: ignore[call-arg, arg-type]
        self.batch_size = batch_size
        self._keypoint_hflip_indices: list[int] | None = None
        if cfg.MODEL.KEYPOINT_ON and cfg.TEST.AUG.FLIP:
            names = cfg.DATASETS.TEST or cfg.DATASETS.TRAIN
            self._keypoint_hflip_indices = create_keypoint_hflip_indices(names)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect, without gradients.

        Args:
            batched_inputs: dicts as the model takes them. One without "image" has a "file_name", and that
                file is read as it is; without "height" and "width" the output is of the image's size.

        Returns:
            {"instances": Instances} of each input, as the model gives them.
        """
        return [self._inference_one_image(self._complete(x)) for x in batched_inputs]

    def _complete(self, record: dict[str, Any]) -> dict[str, Any]:
        record = dict(record)
        if "image" not in record:
            image = read_image(record["file_name"], self.model.input_format)
            record["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        height, width = record["image"].shape[1:]
        return {"height": height, "width": width, **record}

    def _inference_one_image(self, record: dict[str, Any]) -> dict[str, Instances]:
        size = (record["height"], record["width"])
        versions = self.tta_mapper(record)
        transforms = [version.pop("transforms") for version in versions]
        with self._boxes_alone():
            detected = self._batch_inference(versions)
        merged = self._merge_detections(detected, transforms, size)
        if self.cfg.MODEL.MASK_ON or self.cfg.MODEL.KEYPOINT_ON:
            given = self._transform_detections(merged, versions, transforms)
            outputs = self._batch_inference(versions, given)
            if self.cfg.MODEL.MASK_ON:
                merged.pred_masks = self._average_masks(outputs, transforms)
            if self.cfg.MODEL.KEYPOINT_ON:
                heatmaps = self._average_heatmaps(outputs, transforms)  # (D, P, S, S)
                keypoints = heatmaps_to_keypoints(heatmaps, merged.pred_boxes.tensor)
                merged.pred_keypoints = keypoints[:, :, [0, 1, 3]]  # x, y, score
                merged.pred_keypoint_heatmaps = heatmaps
            merged = detector_postprocess(merged, *size)
        return {"instances": merged}

    @contextmanager
    def _boxes_alone(self) -> Iterator[None]:
        """Inside, the model predicts neither masks nor keypoints."""
        heads = self.model.roi_heads
        before = {name: getattr(heads, name) for name in ("mask_on", "keypoint_on") if hasattr(heads, name)}
        try:
            for name in before:
                setattr(heads, name, False)
            yield
        finally:
            for name, value in before.items():
                setattr(heads, name, value)

    def _batch_inference(
        self, versions: list[dict[str, Any]], given: list[Instances] | None = None
    ) -> list[Instances]:
        """What the model finds in each version, or predicts in the given boxes, in pixels of the version."""
        outputs = []
        for start in range(0, len(versions), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            boxes = None if given is None else given[chunk]
            outputs += self.model.inference(versions[chunk], boxes, do_postprocess=False)
        return outputs

    def _merge_detections(
        self, detected: Sequence[Instances], transforms: Sequence[T.TransformList], size: tuple[int, int]
    ) -> Instances:
        """The detections of all versions, in pixels of the original image, after suppression: D."""
        boxes = torch.cat(
            [_apply_to_boxes(t.inverse(), x.pred_boxes) for t, x in zip(transforms, detected, strict=True)]
        )
        classes = torch.cat([x.pred_classes for x in detected])
        found = torch.cat([x.scores for x in detected])
        scores = found.new_zeros(len(boxes), self.cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1)  # background is last
        scores.scatter_(1, classes[:, None], found[:, None])
        merged, _ = fast_rcnn_inference_single_image(
            boxes,
            scores,
            size,
            MIN_SCORE,
            self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return merged

    def _transform_detections(
        self,
        merged: Instances,
        versions: Sequence[dict[str, Any]],
        transforms: Sequence[T.TransformList],
    ) -> list[Instances]:
        """The merged detections in pixels of each version."""
        return [
            Instances(
                tuple(version["image"].shape[1:]),
                pred_boxes=Boxes(_apply_to_boxes(transform, merged.pred_boxes)),
                pred_classes=merged.pred_classes,
                scores=merged.scores,
            )
            for version, transform in zip(versions, transforms, strict=True)
        ]

    def _average_masks(
        self, outputs: Sequence[Instances], transforms: Sequence[T.TransformList]
    ) -> torch.Tensor:
        """(D, 1, Hm, Wm) mean of the mask scores, which do not depend on the size of a box."""
        masks = [_unflip(x.pred_masks, t) for x, t in zip(outputs, transforms, strict=True)]
        return torch.stack(masks).mean(dim=0)

    def _average_heatmaps(
        self, outputs: Sequence[Instances], transforms: Sequence[T.TransformList]
    ) -> torch.Tensor:
        """(D, P, S, S) mean of the heatmap logits; in mirror images left and right are swapped."""
        total = torch.zeros_like(outputs[0].pred_keypoint_heatmaps)
        for output, transform in zip(outputs, transforms, strict=True):
            heatmaps = _unflip(output.pred_keypoint_heatmaps, transform)
            if _is_odd(transform, T.HFlipTransform):
                assert self._keypoint_hflip_indices is not None, "mirror images need TEST.AUG.FLIP True"
                heatmaps = heatmaps[:, self._keypoint_hflip_indices]
            total += heatmaps
        return total / len(outputs)


def _apply_to_boxes(transform: T.Transform, boxes: Boxes) -> torch.Tensor:
    """(N, 4) transformed boxes, on their device."""
    transformed = transform.apply_box(boxes.tensor.cpu().numpy())
    return torch.as_tensor(transformed).to(boxes.tensor)


def _unflip(maps: torch.Tensor, transform: T.TransformList) -> torch.Tensor:
    """Maps (..., Hm, Wm) inside of boxes, as they are in the original image."""
    flips = ((T.VFlipTransform, -2), (T.HFlipTransform, -1))
    dims = [dim for kind, dim in flips if _is_odd(transform, kind)]
    return maps.flip(dims) if dims else maps


def _is_odd(transform: T.TransformList, kind: type[T.Transform]) -> bool:
    return sum(isinstance(step, kind) for step in transform.transforms) % 2 == 1
