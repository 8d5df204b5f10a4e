"""Keypoints of model and data made to agree before a run starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from panomask.config import CfgNode
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.keypoint_sides import doubtful_pairs, one_sided_names
from panomask.data.keypoint_layout import common_keypoint_layout, keypoint_layout_of
from panomask.engine.run_state import TrainedNames
from panomask.errors import InputError

NUM_KEYPOINTS_KEY = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"


def match_keypoints(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """Make the number of keypoints that of the data, in place; refuse a different explicit one.

    Does nothing unless MODEL.KEYPOINT_ON.

    Args:
        cfg: not frozen.
        names: registered data sets, all that the run uses.

    Returns:
        Lines for the log.

    Raises:
        InputError: a data set without keypoints, data sets that disagree, or a number in the config that the
            data do not have.
    """
    names = list(dict.fromkeys(names))
    if not cfg.MODEL.KEYPOINT_ON or not names:
        return []
    for name in names:
        if name not in DatasetCatalog:
            DatasetCatalog.get(name)  # raises, naming the nearest known names
    layout = common_keypoint_layout(names)
    head, count = cfg.MODEL.ROI_KEYPOINT_HEAD, len(layout.names)
    if not cfg.is_explicit(NUM_KEYPOINTS_KEY):
        head.NUM_KEYPOINTS = count
        return [f"{NUM_KEYPOINTS_KEY} is {count}: the keypoints of data set {names[0]}"]
    if count != head.NUM_KEYPOINTS:
        raise InputError(
            f"{NUM_KEYPOINTS_KEY} is {head.NUM_KEYPOINTS}, but data set {names[0]} has {count} keypoints"
            f" ({', '.join(layout.names[:3])}, ...); set {NUM_KEYPOINTS_KEY} {count} or leave it out"
        )
    return []


def check_oks_sigmas(cfg: CfgNode) -> None:
    """Raise InputError if keypoints of DATASETS.TEST are to be scored and nobody says their OKS sigmas."""
    for name in cfg.DATASETS.TEST if cfg.MODEL.KEYPOINT_ON else ():
        if MetadataCatalog.get(name).get("evaluator_type", "coco") == "coco":
            _check_sigmas(cfg.TEST.KEYPOINT_OKS_SIGMAS, name)


def _check_sigmas(stated: Sequence[float], name: str) -> None:
    layout = keypoint_layout_of(name)
    count = len(layout.names)
    if stated and len(stated) != count:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(stated)} numbers, but data set {name} has {count} keypoints;"
            " give one for each"
        )
    if not stated and layout.oks_sigmas is None:
        raise InputError(
            f"data set {name}: no OKS sigmas are known for its {count} keypoints, which are not COCO's; they"
            f" cannot be scored without: set TEST.KEYPOINT_OKS_SIGMAS to {count} numbers (how far apart"
            " annotators would place each keypoint, over the root of the object's area: COCO has 0.025 for"
            ' eyes, 0.107 for hips), or give them as "sigmas" of the category in the annotation file'
        )


class TrainedKeypoints(TrainedNames):
    """The keypoints that a model is trained on."""

    def __init__(self, dataset_name: str) -> None:
        """`dataset_name`: a data set with keypoints."""
        layout = keypoint_layout_of(dataset_name)  # may fill in the metadata
        metadata = MetadataCatalog.get(dataset_name)
        fields: dict[str, Any] = {
            "keypoint_names": list(layout.names),
            "keypoint_flip_map": list(layout.flip_pairs),
            "keypoint_connection_rules": list(metadata.get("keypoint_connection_rules") or ()),
        }
        super().__init__("keypoints", "keypoint_names", fields)


def settle_keypoints(cfg: CfgNode, trained: Mapping[str, Any] | None) -> dict[str, Any]:
    """For prediction: set the number of keypoints where the config leaves it open, in place.

    Args:
        cfg: not frozen.
        trained: what `TrainedKeypoints` wrote to the checkpoint; None where it did not.

    Returns:
        Metadata fields of the keypoints that the model predicts; empty where nothing is known of them.
    """
    names = [name for name in cfg.DATASETS.TEST if name in DatasetCatalog]
    if not cfg.MODEL.KEYPOINT_ON or (trained is None and not names):
        return {}
    if trained is None:
        match_keypoints(cfg, names[:1])
        trained = TrainedKeypoints(names[0]).state_dict()
    elif not cfg.is_explicit(NUM_KEYPOINTS_KEY):
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(trained["keypoint_names"])
    return dict(trained)


def describe_mirroring(cfg: CfgNode) -> list[str]:
    """For the log: which keypoints a mirrored training image swaps. A wrong pair would spoil it silently."""
    if not cfg.MODEL.KEYPOINT_ON or cfg.INPUT.RANDOM_FLIP != "horizontal" or not cfg.DATASETS.TRAIN:
        return []
    layout = common_keypoint_layout(cfg.DATASETS.TRAIN)
    pairs = ", ".join(f"{left} and {right}" for left, right in layout.flip_pairs)
    notes = [f"Keypoints that swap in a mirrored image: {pairs or 'none'}"]
    doubtful = doubtful_pairs(layout.names, layout.flip_pairs)
    if doubtful:
        notes.append(
            "Keypoints that may be left and right of one another but do not swap: "
            f"{', '.join(f'{left} and {right}' for left, right in doubtful)}; if they are, set"
            f' DATASETS.REGISTER.<name>.KEYPOINT_FLIP_PAIRS "{[list(pair) for pair in doubtful]}"'
        )
    unpaired = one_sided_names(layout.names, layout.flip_pairs)
    if unpaired:
        notes.append(
            f"Keypoints with a side but no partner, which a mirrored image shows on the other side:"
            f" {', '.join(unpaired)}; name the pairs by DATASETS.REGISTER.<name>.KEYPOINT_FLIP_PAIRS, or set"
            " INPUT.RANDOM_FLIP none"
        )
    return notes
