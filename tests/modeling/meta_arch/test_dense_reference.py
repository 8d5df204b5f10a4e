"""RetinaNet and FCOS against plain loops over images, anchors and objects, from the papers' equations.

The golden files hold one seed; these hold for any, with images whose objects overlap.
"""

import math

import numpy as np
import pytest
import torch

from panomask.modeling import build_model

SEEDS = (1, 2, 3)
WEIGHTS, BETA = (1.0, 2.0, 3.0, 4.0), 0.3
BOUNDS = [48, 64, 80, 96]
"""Sizes between the levels of FCOS: large enough that centre sampling leaves points out."""
CONFIGS = {"RetinaNet": "retinanet_R_50_FPN_1x", "FCOS": "fcos_R_50_FPN_1x"}


@pytest.fixture
def prepared(zoo_cfg, make_input):
    """A small model in training, its input, and what its head predicts, as arrays by image and level."""

    def prepare(name: str, seed: int, *opts):
        torch.manual_seed(seed)
        tiny = "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.FPN.OUT_CHANNELS 32".split()
        tiny += "MODEL.BACKBONE.FREEZE_AT 0 MODEL.PIXEL_STD [50.0,50.0,50.0]".split()
        tiny += f"MODEL.{name.upper()}.NUM_CLASSES 3".split()
        model = build_model(zoo_cfg(f"COCO-Detection/{CONFIGS[name]}.yaml", *tiny, *opts))
        with torch.no_grad():  # untrained predictions are all alike
            for conv in (model.head.cls_score, model.head.bbox_pred, getattr(model.head, "ctrness", None)):
                if conv is not None:
                    conv.weight.mul_(30)
            model.head.cls_score.bias.zero_()  # or what is background would weigh next to nothing
        batch = [make_input(96, 128, 6, 3, seed), make_input(128, 96, 3, 3, seed + 50)]
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        maps = [features[f] for f in model.head_in_features]
        return model, batch, images, maps, model.head(maps)

    return prepare


def rows(predictions: torch.Tensor, size: int) -> np.ndarray:
    """(A * size, H, W) of one image -> a row for each anchor: by y, by x, by the anchors of a cell."""
    channels, height, width = predictions.shape
    found = [
        predictions[a * size : (a + 1) * size, y, x]
        for y in range(height)
        for x in range(width)
        for a in range(channels // size)
    ]
    return torch.stack(found).detach().double().numpy()


def focal(logits: np.ndarray, label: int, alpha=0.25, gamma=2.0) -> float:
    total = 0.0
    for k, x in enumerate(logits):
        p = 1 / (1 + math.exp(-x))
        p_true, weight = (p, alpha) if k == label else (1 - p, 1 - alpha)
        total -= weight * (1 - p_true) ** gamma * math.log(p_true)
    return total


def iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area_a, area_b = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return shared / (area_a + area_b - shared) if shared > 0 else 0.0


def giou(a, b) -> float:
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    return shared / union - (hull - union) / hull


def truth(x) -> list[tuple[list[float], int]]:
    instances = x["instances"]
    return list(zip(instances.gt_boxes.tensor.double().tolist(), instances.gt_classes.tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_retinanet_losses(prepared, seed):
    opts = ("MODEL.ANCHOR_GENERATOR.SIZES", [[12], [24], [48], [72], [96]])
    opts += ("MODEL.RETINANET.BBOX_REG_WEIGHTS", WEIGHTS, "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", BETA)
    model, batch, images, maps, (logits, deltas) = prepared("RetinaNet", seed, *opts)
    anchors = [box for level in model.anchor_generator(maps) for box in level.tensor.double().tolist()]
    cls_loss, box_loss, num_positive, num_ignored = 0.0, 0.0, 0, 0
    for i, x in enumerate(batch):
        objects = truth(x)
        scores = np.concatenate([rows(level[i], 3) for level in logits])
        found = np.concatenate([rows(level[i], 4) for level in deltas])
        # In float32, as rounding decides which of two anchors that are as good as equal is an object's best.
        pairs = np.float32(anchors), np.float32([box for box, _ in objects])
        overlap = np.array([[iou(anchor, box) for box in pairs[1]] for anchor in pairs[0]])
        best_of_object = overlap.max(axis=0)
        for r, anchor in enumerate(anchors):
            m = int(overlap[r].argmax())
            is_best = bool((overlap[r] == best_of_object).any())
            if overlap[r][m] >= 0.5 or is_best:
                box, label = objects[m]
                w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
                target = [
                    (box[0] + box[2] - anchor[0] - anchor[2]) / 2 / w,
                    (box[1] + box[3] - anchor[1] - anchor[3]) / 2 / h,
                    math.log((box[2] - box[0]) / w),
                    math.log((box[3] - box[1]) / h),
                ]
                for d in np.abs(found[r] - np.multiply(target, WEIGHTS)):
                    box_loss += 0.5 * d * d / BETA if d < BETA else d - 0.5 * BETA
                num_positive += 1
            elif overlap[r][m] >= 0.4:
                num_ignored += 1
                continue
            else:
                label = 3
            cls_loss += focal(scores[r], label)
    normalizer = 0.9 * 100 + 0.1 * num_positive
    losses = model.forward_training(images, maps, (logits, deltas), [x["instances"] for x in batch])
    assert num_positive > 10
    assert num_ignored > 2
    assert losses["loss_cls"].item() == pytest.approx(cls_loss / normalizer, rel=1e-5)
    assert losses["loss_box_reg"].item() == pytest.approx(box_loss / normalizer, rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("is_sampled", [True, False])
@pytest.mark.parametrize("is_normalized", [True, False])
def test_fcos_losses(prepared, seed, is_sampled, is_normalized):
    opts = ("MODEL.FCOS.CENTER_SAMPLE", is_sampled, "MODEL.FCOS.NORM_REG_TARGETS", is_normalized)
    opts += ("MODEL.FCOS.SIZES_OF_INTEREST", BOUNDS)
    model, batch, images, maps, predictions = prepared("FCOS", seed, *opts)
    bounds = [0, *BOUNDS, math.inf]
    cls_loss, loc_loss, ctr_loss, num_positive = 0.0, 0.0, 0.0, 0
    for i, x in enumerate(batch):
        for level, (feature, logits, distances, centers) in enumerate(zip(maps, *predictions, strict=True)):
            stride = 8 * 2**level
            level_scores, level_distances = rows(logits[i], 3), rows(distances[i], 4)
            level_centers = rows(centers[i], 1)
            width = feature.shape[3]
            for r, scores in enumerate(level_scores):
                px, py = (r % width + 0.5) * stride, (r // width + 0.5) * stride
                best, label, sides = math.inf, 3, None
                for (x0, y0, x1, y1), of_object in truth(x):
                    ltrb = (px - x0, py - y0, x1 - px, y1 - py)
                    is_near = max(abs(px - (x0 + x1) / 2), abs(py - (y0 + y1) / 2)) < 1.5 * stride
                    fits = bounds[level] < max(ltrb) < bounds[level + 1] and min(ltrb) > 0
                    area = (x1 - x0) * (y1 - y0)
                    if fits and (is_near or not is_sampled) and area < best:
                        best, label, sides = area, of_object, ltrb
                cls_loss += focal(scores, label)
                if sides is None:
                    continue
                num_positive += 1
                left, top, right, bottom = sides
                target = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
                p = 1 / (1 + math.exp(-level_centers[r][0]))
                ctr_loss -= target * math.log(p) + (1 - target) * math.log(1 - p)
                reach = [max(d, 0) * (stride if is_normalized else 1) for d in level_distances[r]]
                found = (px - reach[0], py - reach[1], px + reach[2], py + reach[3])
                true_box = (px - left, py - top, px + right, py + bottom)
                loc_loss += 1 - giou(found, true_box)
    normalizer = 0.9 * 300 + 0.1 * num_positive
    losses = model.forward_training(images, maps, predictions, [x["instances"] for x in batch])
    assert num_positive > 5
    assert losses["loss_fcos_cls"].item() == pytest.approx(cls_loss / normalizer, rel=1e-5)
    assert losses["loss_fcos_loc"].item() == pytest.approx(loc_loss / normalizer, rel=1e-5)
    assert losses["loss_fcos_ctr"].item() == pytest.approx(ctr_loss / normalizer, rel=1e-5)
