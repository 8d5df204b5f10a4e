"""Deterministic weights, images and annotations behind the golden files of this folder.

Everything is drawn with numpy's PCG64 from a seed and a name, so the values depend on neither
the framework's version nor the order of construction. `fill` overwrites every parameter and
persistent buffer of a model by its state-dict key; two implementations whose state dicts agree
in keys and shapes therefore hold the same weights.
"""

import zlib

import numpy as np
import torch


def _rng(name, seed):
    return np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), seed]))


def _value(key, shape, seed):  # noqa: C901
    """A float64 array for one state-dict entry: scales chosen so that deep nets stay finite."""
    rng = _rng(key, seed)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 0.5 + rng.random(shape)
    if leaf == "running_mean":
        return 0.1 * rng.standard_normal(shape)
    if len(shape) <= 1 and leaf == "weight":  # affine scale of a norm layer
        scale = 0.25 if "conv3.norm" in key else 1.0
        return scale * (0.8 + 0.4 * rng.random(shape))
    if key.startswith("head.cls_score") and leaf == "bias":  # dense detectors: rare positives
        return -4.0 + 0.5 * rng.standard_normal(shape)
    if len(shape) <= 1 and leaf == "bias":
        return 0.05 * rng.standard_normal(shape)
    if len(shape) <= 1:  # learnable scalars such as per-level scales
        return 0.8 + 0.4 * rng.random(shape)
    fan_in = int(np.prod(shape[1:]))
    gain = np.sqrt(2.0 / fan_in)
    if "stem.conv1" in key:
        gain /= 60.0
    if "fpn_output" in key:
        gain *= 0.15
    if "top_block" in key:
        gain *= 0.3
    if "bbox_pred" in key or "anchor_deltas" in key:
        gain *= 0.15
    if key.startswith("head.cls_score"):
        gain *= 0.25
    elif "cls_score" in key or "objectness_logits" in key:
        gain *= 1.5
    if "conv_offset" in key:
        gain *= 0.05
    return gain * rng.standard_normal(shape)


@torch.no_grad()
def fill(model, seed=0):
    """Overwrite every floating-point entry of `model.state_dict()` in place; returns the model."""
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "pixel_" not in key and "cell_anchors" not in key:
            tensor.copy_(torch.from_numpy(_value(key, tuple(tensor.shape), seed)).to(tensor.dtype))
    return model


def image(height, width, seed=0):
    """A smooth colour image, uint8 (height, width, 3), channel order as the model expects it."""
    rng = _rng("image", seed)
    out = np.zeros((height, width, 3))
    yy, xx = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    for channel in range(3):
        for _ in range(12):
            fy, fx = rng.uniform(-9, 9, 2)
            out[..., channel] += rng.uniform(10, 30) * np.sin(
                2 * np.pi * (fy * yy + fx * xx) + rng.uniform(0, 6.28)
            )
    for _ in range(6):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(8, height // 2), rng.integers(8, width // 2)
        out[y : y + h, x : x + w] += rng.uniform(-70, 70, 3)
    return np.clip(out + 118, 0, 255).astype(np.uint8)


def instances(height, width, count, num_classes, num_keypoints=17, seed=0):
    """`count` objects in absolute pixels.

    Returns a list of dicts: bbox [x0, y0, x1, y1] floats, category_id, polygon (flat list x, y, ...
    of a star-shaped ring inside the box) and keypoints (num_keypoints, 3) with visibility 0/1/2.
    """
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
        kps = np.stack(
            [
                rng.uniform(x0, x0 + w, num_keypoints),
                rng.uniform(y0, y0 + h, num_keypoints),
                rng.integers(0, 3, num_keypoints).astype(float),
            ],
            1,
        )
        objects.append(
            dict(
                bbox=box,
                category_id=int(rng.integers(0, num_classes)),
                polygon=np.stack([px, py], 1).reshape(-1).tolist(),
                keypoints=kps.tolist(),
            )
        )
    return objects


def semantic_map(height, width, num_classes, seed=0, ignore=255):
    """A blocky label map, int64 (height, width), about 5 % of the pixels set to `ignore`."""
    rng = _rng("semantic", seed)
    coarse = rng.integers(0, num_classes, (6, 8))
    labels = np.repeat(np.repeat(coarse, -(-height // 6), 0), -(-width // 8), 1)[:height, :width].astype(
        np.int64
    )
    labels[rng.random((height, width)) < 0.05] = ignore
    return labels
