"""Deterministic weights, images and objects behind the golden files of this folder.

Drawn with numpy's PCG64 from a seed and a name: the values depend neither on torch nor on the order of
construction.
"""

import zlib
from typing import Any

import numpy as np
import torch


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed]))


def _value(key: str, shape: tuple[int, ...], seed: int) -> Any:
    """A float64 array for one state-dict entry: scales chosen so that deep nets stay finite."""
    rng = _rng(key, seed)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 0.5 + rng.random(shape)
    if leaf == "running_mean":
        return 0.1 * rng.standard_normal(shape)
    if len(shape) <= 1 and leaf == "weight":  # affine scale of a norm layer
        return (0.25 if "conv3.norm" in key else 1.0) * (0.8 + 0.4 * rng.random(shape))
    if len(shape) <= 1:
        return 0.05 * rng.standard_normal(shape)
    gain = np.sqrt(2.0 / int(np.prod(shape[1:])))
    if "stem.conv1" in key:
        gain /= 60.0
    if "fpn_output" in key or "bbox_pred" in key or "anchor_deltas" in key:
        gain *= 0.15
    if "cls_score" in key or "objectness_logits" in key:
        gain *= 1.5
    return gain * rng.standard_normal(shape)


@torch.no_grad()
def fill(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Overwrite every floating-point entry of the state dict in place; returns the model."""
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(_value(key, tuple(tensor.shape), seed)).to(tensor.dtype))
    return model


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour image, uint8 (height, width, 3)."""
    rng = _rng("image", seed)
    out = np.zeros((height, width, 3))
    yy, xx = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    for channel in range(3):
        for _ in range(12):
            fy, fx = rng.uniform(-9, 9, 2)
            amplitude = rng.uniform(10, 30)
            phase = rng.uniform(0, 6.28)
            out[..., channel] += amplitude * np.sin(2 * np.pi * (fy * yy + fx * xx) + phase)
    for _ in range(6):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(8, height // 2), rng.integers(8, width // 2)
        out[y : y + h, x : x + w] += rng.uniform(-70, 70, 3)
    return np.clip(out + 118, 0, 255).astype(np.uint8)


def instances(height: int, width: int, count: int, num_classes: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` objects: bbox [x0, y0, x1, y1], category_id, and polygon, a star-shaped ring inside the box."""
    num_keypoints = 17  # drawn though not used here: the values that follow depend on it
    rng = _rng("instances", seed)
    objects = []
    for _ in range(count):
        w, h = rng.uniform(0.15, 0.6) * width, rng.uniform(0.15, 0.6) * height
        x0, y0 = rng.uniform(0, width - w), rng.uniform(0, height - h)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(0.55, 1.0, 9)
        px = x0 + w / 2 + w / 2 * radius * np.cos(angles)
        py = y0 + h / 2 + h / 2 * radius * np.sin(angles)
        box = [float(px.min()), float(py.min()), float(px.max()), float(py.max())]
        rng.uniform(x0, x0 + w, num_keypoints)
        rng.uniform(y0, y0 + h, num_keypoints)
        rng.integers(0, 3, num_keypoints)
        category_id = int(rng.integers(0, num_classes))
        polygon = np.stack([px, py], 1).reshape(-1).tolist()
        objects.append({"bbox": box, "category_id": category_id, "polygon": polygon})
    return objects
