"""How many objects proposals find, and the file from which Fast R-CNN reads proposals.

R proposals of an image, best first; M objects of an image that are no crowds; T IoU thresholds (.50:.05:.95).
"""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

from panomask.atomic_file import write_atomically
from panomask.structures import Boxes, BoxMode, Instances, pairwise_iou

PROPOSALS_FILE = "box_proposals.pkl"
LIMITS = (100, 1000)
AREA_RANGES = {"": (0, 1e5**2), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e5**2)}
"""Suffix of AR -> smallest and largest `area` (pixels) of the objects that count, both included."""


def write_box_proposals(path: str | PathLike[str], proposals: Mapping[Any, Instances]) -> None:
    """Write proposals as a pickle that DATASETS.PROPOSAL_FILES_* read, here and in Detectron2.

    Args:
        path: written whole or not at all; its folder is made.
        proposals: image id -> `Instances` on the CPU with `proposal_boxes` and `objectness_logits`, in pixels
            of the original image.
    """
    content = {
        "boxes": [x.proposal_boxes.tensor.numpy() for x in proposals.values()],
        "objectness_logits": [x.objectness_logits.numpy() for x in proposals.values()],
        "ids": list(proposals),
        "bbox_mode": int(BoxMode.XYXY_ABS),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        pickle.dump(content, file, protocol=4)  # which Detectron2's oldest Python reads too


def box_proposal_recalls(
    proposals: Mapping[Any, Instances], ground_truth: COCO, limits: Sequence[int] = LIMITS
) -> dict[str, float]:
    """Average recall over the IoU thresholds, whatever the classes, as Detectron2 measures it.

    Proposals and objects are matched one to one, the pair of the largest IoU first. This differs slightly
    from the AR of pycocotools, which goes by the proposals' scores.

    Args:
        proposals: image id -> `Instances` on the CPU with `proposal_boxes` and `objectness_logits`, in pixels
            of the original image. Objects of other images do not count; those of an image with no proposal
            are missed (Detectron2 leaves them out).
        ground_truth: whose annotations have `iscrowd` and `area`.
        limits: how many of an image's best proposals are looked at.

    Returns:
        `AR@100`, then `ARs@100`, `ARm@100`, `ARl@100` for small, medium and large objects, and so on for each
        limit, in percent; NaN where there is no such object.
    """
    found: dict[str, list[np.ndarray]] = {f"AR{area}@{n}": [] for n in limits for area in AREA_RANGES}
    for image_id, instances in proposals.items():
        objects = _objects(ground_truth, image_id)
        areas = np.array([entry["area"] for entry in objects], dtype=np.float32)
        overlaps = _overlaps(instances, objects)  # (R, M)
        for limit in limits:
            for area, (low, high) in AREA_RANGES.items():
                chosen = overlaps[:limit, (areas >= low) & (areas <= high)]
                found[f"AR{area}@{limit}"].append(_best_overlaps(chosen))
    return {name: _average_recall(overlaps) for name, overlaps in found.items()}


def _objects(ground_truth: COCO, image_id: Any) -> list[dict[str, Any]]:
    annotations = ground_truth.loadAnns(ground_truth.getAnnIds(imgIds=[image_id]))
    return [entry for entry in annotations if not entry["iscrowd"]]


def _overlaps(instances: Instances, objects: Sequence[dict[str, Any]]) -> np.ndarray:
    """IoU (R, M) of an image's proposals, best first, with its objects."""
    order = instances.objectness_logits.sort(descending=True)[1]
    boxes = [BoxMode.convert(entry["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for entry in objects]
    return pairwise_iou(instances[order].proposal_boxes, Boxes(boxes)).numpy()


def _best_overlaps(overlaps: np.ndarray) -> np.ndarray:
    """Of IoUs (R, M) the M of the pairs: the largest first, then without its row and column, and so on."""
    rest = overlaps.copy()
    best = np.zeros(overlaps.shape[1], dtype=np.float32)
    for i in range(min(overlaps.shape)):
        proposal_of = rest.argmax(axis=0)  # (M,)
        of_object = rest.max(axis=0)
        column = of_object.argmax()
        best[i] = of_object[column]
        rest[proposal_of[column], :] = -1
        rest[:, column] = -1
    return best


def _average_recall(best_overlaps: Iterable[np.ndarray]) -> float:
    overlaps = torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *best_overlaps]))
    if not len(overlaps):
        return float("nan")
    thresholds = torch.arange(0.5, 0.95 + 1e-5, 0.05)  # (T,)
    return float(100 * (overlaps >= thresholds[:, None]).float().mean(dim=1).mean())
