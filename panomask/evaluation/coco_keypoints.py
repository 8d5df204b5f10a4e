"""What object keypoint similarity needs: a sigma for each keypoint, and annotations that all have them.

OKS takes the place of IoU. It is the mean, over the keypoints labelled in the truth, of
exp(-d^2 / (2 s^2 (2 sigma)^2)) with d the distance, s^2 the object's area and sigma how far apart annotators
place this keypoint (https://cocodataset.org/#keypoints-eval). pycocotools computes it.
"""

import math
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO

from panomask.errors import InputError
from panomask.evaluation.coco_ground_truth import index_silently
from panomask.structures.keypoints import default_oks_sigmas

_REMEDY = (
    "give a number above 0 for each by TEST.KEYPOINT_OKS_SIGMAS, by DATASETS.REGISTER.<name>.KEYPOINT_SIGMAS"
    ' or as "sigmas" of the category in the annotation file (COCO\'s: from 0.025 for eyes to 0.107 for hips)'
)


def resolve_oks_sigmas(ground_truth: COCO, stated: Sequence[float] | None = None) -> list[float]:
    """The sigma of each keypoint: as stated, as the file's categories say, or COCO's for COCO's keypoints.

    Raises:
        InputError: nothing says them, or one is not a number above 0.
    """
    sigmas = list(stated) if stated is not None and len(stated) else _declared_sigmas(ground_truth)
    if not sigmas:
        raise InputError(f"the keypoints have no OKS sigmas, which keypoint scores need; {_REMEDY}")
    wrong = [s for s in sigmas if not isinstance(s, int | float) or not (math.isfinite(s) and s > 0)]
    if wrong:
        raise InputError(f"OKS sigma {wrong[0]!r} of a keypoint cannot be; {_REMEDY}")
    return [float(sigma) for sigma in sigmas]


def _declared_sigmas(ground_truth: COCO) -> list[Any]:
    """Of the categories that have keypoints; [] if they do not say them and the keypoints are not COCO's."""
    declared = [_sigmas_of(c) for c in ground_truth.dataset["categories"] if c.get("keypoints")]
    if any(sigmas != declared[0] for sigmas in declared):
        raise InputError(
            "the ground truth's categories have different keypoints or sigmas; OKS takes one set for all"
        )
    return declared[0] if declared else []


def _sigmas_of(category: dict[str, Any]) -> list[Any]:
    names, sigmas = category["keypoints"], category.get("sigmas")
    if isinstance(sigmas, list) and sigmas:
        return sigmas
    is_named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return (default_oks_sigmas(names) if is_named else None) or []


def has_keypoints(ground_truth: COCO) -> bool:
    """Whether any annotation has keypoints to compare with."""
    return any(annotation.get("keypoints") for annotation in ground_truth.anns.values())


def with_keypoints(ground_truth: COCO, num_keypoints: int) -> COCO:
    """The ground truth with `keypoints` and `num_keypoints` (the labelled ones) in every annotation.

    An annotation without keypoints has none that is labelled. COCO's rule for it, as for a crowd: it need not
    be found, and a prediction near its box is not counted as wrong.

    Raises:
        InputError: an annotation has another number of keypoints than there are sigmas.
    """
    annotations = [
        {**annotation, **_keypoint_fields(annotation, num_keypoints)}
        for annotation in ground_truth.anns.values()
    ]
    return index_silently({**ground_truth.dataset, "annotations": annotations})


def _keypoint_fields(annotation: dict[str, Any], num_keypoints: int) -> dict[str, Any]:
    keypoints = annotation.get("keypoints") or [0] * (3 * num_keypoints)
    _check_keypoints(keypoints, num_keypoints, f"the ground truth: annotation {annotation['id']}")
    num_labelled = sum(visibility > 0 for visibility in keypoints[2::3])
    return {"keypoints": keypoints, "num_keypoints": annotation.get("num_keypoints", num_labelled)}


def check_predictions(predictions: COCO, num_keypoints: int) -> None:
    """InputError unless every prediction has `num_keypoints` keypoints."""
    for prediction in predictions.anns.values():
        where = f"the results: entry {prediction['id']}"
        _check_keypoints(prediction.get("keypoints"), num_keypoints, where)


def _check_keypoints(keypoints: Any, num_keypoints: int, where: str) -> None:
    """InputError unless `keypoints` is x, y, and visibility or score, `num_keypoints` times."""
    if not isinstance(keypoints, list) or len(keypoints) != 3 * num_keypoints:
        count = len(keypoints) / 3 if isinstance(keypoints, list) else 0
        raise InputError(
            f"{where} has {count:g} keypoints (x, y, v), but there are OKS sigmas for {num_keypoints}:"
            " model, annotations and sigmas must agree; see TEST.KEYPOINT_OKS_SIGMAS"
        )
