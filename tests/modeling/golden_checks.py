"""Models with golden weights against the numbers that Detectron2 recorded, within rounding.

The tolerances separate rounding from a difference: features and losses 1e-4, gradient norms 1e-3 (all
relative), boxes 0.01 pixels, scores 1e-4, masks and segments 0.5 % of their pixels, keypoints 0.05 pixels.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.overrides import TorchFunctionMode

from panomask.config import CfgNode
from panomask.modeling import build_model
from panomask.solver import build_optimizer
from panomask.structures import Boxes, Instances, Keypoints, PolygonMasks

IMAGE_SIZES = [(192, 256), (160, 224)]
"""(height, width) of the two images of every batch."""

_weights: dict[tuple[str, tuple[int, ...], int], torch.Tensor] = {}
"""Drawn weights by name, shape and seed: most models share a ResNet-50."""


class _NoRandomWeights(TorchFunctionMode):
    """Leave new tensors as they are: drawing a ResNet-50's weights takes longer than running it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_"}:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _Weights(torch.nn.Module):
    """One state-dict entry, as something that `recipe.fill` fills."""

    def __init__(self, name: str, value: torch.Tensor):
        super().__init__()
        self.name, self.value = name, torch.empty_like(value)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return {self.name: self.value}


def build_filled(recipe: ModuleType, cfg: CfgNode, seed: int) -> torch.nn.Module:
    """The model of `cfg`, every entry of its state dict as `recipe.fill` draws it."""
    with _NoRandomWeights():
        model = build_model(cfg)
    state = model.state_dict()
    for name, value in state.items():
        key = (name, tuple(value.shape), seed)
        if value.is_floating_point():
            if key not in _weights:
                _weights[key] = recipe.fill(_Weights(name, value), seed).value
            value.copy_(_weights[key])
    return model


def inference_batch(recipe: ModuleType, seed: int) -> list[dict[str, Any]]:
    """Two images, the output wanted at 5/4 of their size."""
    batch = []
    for idx, (height, width) in enumerate(IMAGE_SIZES):
        image = torch.from_numpy(recipe.image(height, width, 10 * seed + idx)).permute(2, 0, 1)
        batch.append({"image": image, "height": height * 5 // 4, "width": width * 5 // 4})
    return batch


def training_batch(
    recipe: ModuleType, seed: int, num_classes: int, sem_classes: int, *, keypoints: bool
) -> list[dict[str, Any]]:
    """Two images with five objects each, and a semantic map if there are semantic classes."""
    batch = []
    for seed_of_image, size in enumerate(IMAGE_SIZES, start=10 * seed):
        objects = recipe.instances(*size, 5, num_classes, seed=seed_of_image)
        instances = Instances(
            size,
            gt_boxes=Boxes([x["bbox"] for x in objects]),
            gt_classes=torch.tensor([x["category_id"] for x in objects]),
            gt_masks=PolygonMasks([[np.array(x["polygon"])] for x in objects]),
        )
        if keypoints:
            instances.gt_keypoints = Keypoints(torch.tensor([x["keypoints"] for x in objects]))
        image = torch.from_numpy(recipe.image(*size, seed_of_image)).permute(2, 0, 1)
        batch.append({"image": image, "instances": instances})
        if sem_classes > 0:
            labels = recipe.semantic_map(*size, sem_classes, seed=seed_of_image)
            batch[-1]["sem_seg"] = torch.from_numpy(labels)
    return batch


@torch.no_grad()
def check_inference(recipe: ModuleType, cfg: CfgNode, recorded: dict[str, Any]) -> None:
    """Features and outputs of a batch."""
    model = build_filled(recipe, cfg, recorded["seed"]).eval()
    batch = inference_batch(recipe, recorded["seed"])
    if recorded.get("features"):
        images = model.preprocess_image(batch)
        assert list(images.tensor.shape) == recorded["padded"]
        check_features(model.backbone(images.tensor), recorded["features"])
    for output, expected in zip(model(batch), recorded["outputs"], strict=True):
        assert set(output) == set(expected)
        for name, found in output.items():
            check = {"sem_seg": check_sem_seg, "panoptic_seg": check_panoptic_seg}.get(name, check_instances)
            check(found, expected[name])


def check_features(features: dict[str, torch.Tensor], recorded: dict[str, Any]) -> None:
    """Feature maps, known by their shape, three statistics and the first few values."""
    assert list(features) == list(recorded)
    for name, expected in recorded.items():
        feature = features[name].double()
        assert list(feature.shape) == expected["shape"]
        tolerance = 1e-4 * expected["std"]
        assert abs(feature.mean().item() - expected["mean"]) < tolerance
        assert abs(feature.std().item() - expected["std"]) < tolerance
        assert abs(feature.abs().max().item() - expected["absmax"]) < 1e-4 * expected["absmax"]
        np.testing.assert_allclose(feature.flatten()[:8], expected["head"], atol=tolerance)


def check_instances(actual: Instances, expected: dict[str, Any]) -> None:
    """Detections or proposals of one image; each recorded one is matched with the nearest of its class.

    `expected` may hold some of them, the best first, and the masks and keypoints of fewer of these.
    """
    assert list(actual.image_size) == expected["image_size"]
    assert len(actual) == expected["n"]
    is_proposal = "proposal_boxes" in expected
    fields = ("proposal_boxes", "objectness_logits") if is_proposal else ("boxes", "scores")
    boxes, scores = (torch.tensor(expected[name]) for name in fields)
    actual_boxes = actual.proposal_boxes if is_proposal else actual.pred_boxes
    distances = (boxes[:, None] - actual_boxes.tensor).abs().amax(dim=2)
    if not is_proposal:
        distances[torch.tensor(expected["classes"])[:, None] != actual.pred_classes] = float("inf")
    error, order = distances.min(dim=1)
    assert error.max() < 0.01
    assert len(order.unique()) == len(order)
    matched = actual[order]
    actual_scores = matched.objectness_logits if is_proposal else matched.scores
    torch.testing.assert_close(actual_scores, scores, rtol=1e-4 if is_proposal else 0, atol=1e-4)
    if "mask_rle" in expected:
        _check_masks(matched.pred_masks, expected)
    if "keypoints" in expected:
        keypoints = torch.tensor(expected["keypoints"]).reshape(len(expected["keypoints"]), -1, 3)
        found = matched.pred_keypoints[: len(keypoints)]
        assert (found[..., :2] - keypoints[..., :2]).abs().max() < 0.05
        torch.testing.assert_close(found[..., 2], keypoints[..., 2], rtol=1e-3, atol=1e-4)


def _check_masks(actual: torch.Tensor, expected: dict[str, Any]) -> None:
    for mask, counts in zip(actual, expected["mask_rle"], strict=False):
        truth = coco_mask.decode({"size": list(mask.shape), "counts": counts.encode()}).astype(bool)
        assert (truth != mask.numpy()).sum() <= max(0.005 * truth.sum(), 1)  # one pixel: 1 % of a small mask
    areas = actual.flatten(1).sum(dim=1).numpy()
    np.testing.assert_allclose(areas, expected["mask_area"], rtol=0.005, atol=1)


def check_sem_seg(actual: torch.Tensor, expected: dict[str, Any]) -> None:
    """Logits (K, H, W) of one image: as `check_features`, and the best class of each pixel."""
    check_features({"sem_seg": actual}, {"sem_seg": expected})
    best = actual.argmax(dim=0)
    size = list(best.shape)
    counts = [{"size": size, "counts": each.encode()} for each in expected["argmax_rle"]]
    recorded = torch.from_numpy(coco_mask.decode(counts)).argmax(dim=2)  # (H, W)
    assert (best != recorded).sum() <= 0.0005 * best.numel()  # two logits as good as equal


def check_panoptic_seg(actual: tuple[torch.Tensor, list[dict]], expected: dict[str, Any]) -> None:
    """Ids (H, W) of one image and what they mean. Of each segment the area is known, of some the pixels."""
    ids, segments_info = actual
    assert ids.dtype == torch.int32
    assert len(segments_info) == len(expected["segments_info"])
    for found, recorded in zip(segments_info, expected["segments_info"], strict=True):
        assert found == pytest.approx(recorded, rel=0.005, abs=1e-4)
        assert type(found["isthing"]) is bool
    assert set(ids.unique().tolist()) == set(map(int, expected["segment_area"]))
    for name, area in expected["segment_area"].items():
        assert abs((ids == int(name)).sum().item() - area) <= max(0.005 * area, 1)
    for name, counts in expected["segment_rle"].items():
        truth = coco_mask.decode({"size": list(ids.shape), "counts": counts.encode()}).astype(bool)
        assert (truth != (ids == int(name)).numpy()).sum() <= max(0.005 * truth.sum(), 1)


def check_training(recipe: ModuleType, cfg: CfgNode, recorded: dict[str, Any], num_steps: int) -> None:
    """What learns and how fast, losses of the first steps, and the first gradients.

    `cfg` makes every anchor and proposal take part, so that nothing is left to chance.
    """
    model = build_filled(recipe, cfg, recorded["seed"])
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [name for parameter, name in names.items() if not parameter.requires_grad] == recorded["frozen"]
    optimizer = build_optimizer(cfg, model)
    groups = {
        names[parameter]: [group["lr"], group["weight_decay"], group["momentum"]]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    # FCOS was trained by an SGD of one group, which decays norms too: too little to be seen in three steps.
    assert groups == recorded.get("param_groups", groups)

    for step, expected in enumerate(recorded["steps"][:num_steps]):
        counts = recorded["num_classes"], recorded["sem_classes"]
        batch = training_batch(recipe, recorded["seed"] + step, *counts, keypoints=recorded["keypoints"])
        losses = model(batch)
        actual = {name: loss.item() for name, loss in losses.items()}
        assert actual == pytest.approx(expected["losses"], rel=1e-4)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        if "grad_norms" in expected:
            norms = {name: p.grad.double().norm().item() for p, name in names.items() if p.grad is not None}
            # A bias that a softmax ignores has the gradient 0, which comes out as 1e-8 and never the same.
            assert norms == pytest.approx(expected["grad_norms"], rel=1e-3, abs=1e-6)
        optimizer.step()
