"""Proposals computed beforehand, by whatever method, and read from a file (Fast R-CNN, arXiv:1504.08083).

The file is a pickle of one dict, as Detectron2 and our `COCOEvaluator` write it:

    ids                list of N image ids
    boxes              list of N arrays (R, 4)
    objectness_logits  list of N arrays (R,), the higher the better
    bbox_mode          a number of `BoxMode`; without it boxes are xyxy in absolute pixels of the image file

Files of Detectron1, which call `ids` "indexes" and `objectness_logits` "scores", are read too.
"""

import logging
import os
from typing import Any

import numpy as np
import torch

from panomask.addresses import local_path
from panomask.data import transforms as T
from panomask.errors import InputError
from panomask.safe_pickle import load_pickle
from panomask.structures import Boxes, BoxMode, Instances

logger = logging.getLogger(__name__)

DETECTRON1_NAMES = {"indexes": "ids", "scores": "objectness_logits"}
BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def load_proposals_into_dataset(
    dataset_dicts: list[dict[str, Any]], proposal_file: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    """Give every image its proposals, best first.

    Args:
        dataset_dicts: with `image_id`; each gets `proposal_boxes` (R, 4), `proposal_objectness_logits` (R,)
            and `proposal_bbox_mode`, in place.
        proposal_file: see the top of this file; a path or an address (see `local_path`). Image ids are
            compared as text; images that are not in `dataset_dicts` are passed over.

    Returns:
        `dataset_dicts`.

    Raises:
        InputError: an unreadable file, one of another content, or an image without proposals.
    """
    proposals = _read_proposals(proposal_file)
    box_mode = _box_mode(proposals.get("bbox_mode", BoxMode.XYXY_ABS), proposal_file)
    position = {str(image_id): i for i, image_id in enumerate(proposals["ids"])}
    missing = [item for item in dataset_dicts if str(item.get("image_id")) not in position]
    if missing:
        first = missing[0]
        raise InputError(
            f"{proposal_file}: has no proposals for {len(missing)} of {len(dataset_dicts)} images, first"
            f" {first.get('image_id')!r} ({first.get('file_name')}); give the file made for this data set"
        )
    for item in dataset_dicts:
        i = position[str(item["image_id"])]
        boxes, logits = proposals["boxes"][i], proposals["objectness_logits"][i]
        _check_proposals(boxes, logits, f"{proposal_file}: image {item['image_id']!r}")
        order = np.argsort(logits)[::-1]
        item["proposal_boxes"] = boxes[order]
        item["proposal_objectness_logits"] = logits[order]
        item["proposal_bbox_mode"] = box_mode
    logger.info("Proposals of %d images are from %s", len(dataset_dicts), proposal_file)
    return dataset_dicts


def transform_proposals(
    dataset_dict: dict[str, Any],
    image_shape: tuple[int, int],
    transforms: T.Transform,
    *,
    proposal_topk: int,
    min_box_size: float = 0,
) -> None:
    """Make the model's `proposals` of the proposals in a dataset dict, in place; without any, do nothing.

    Args:
        dataset_dict: with what `load_proposals_into_dataset` put there, which is taken out, best first.
        image_shape: (height, width) after the transforms; boxes are clipped to it.
        transforms: what was applied to the image.
        proposal_topk: how many of the boxes that pass are kept.
        min_box_size: sides (pixels after the transforms) must exceed this.
    """
    if "proposal_boxes" not in dataset_dict:
        return
    boxes = np.asarray(dataset_dict.pop("proposal_boxes"))
    boxes = boxes if boxes.dtype.kind == "f" else boxes.astype(np.float32)
    boxes = BoxMode.convert(boxes, dataset_dict.pop("proposal_bbox_mode"), BoxMode.XYXY_ABS)
    logits = np.asarray(dataset_dict.pop("proposal_objectness_logits"), dtype=np.float32)
    transformed = Boxes(torch.as_tensor(transforms.apply_box(boxes)))
    transformed.clip(image_shape)
    proposals = Instances(image_shape, proposal_boxes=transformed, objectness_logits=torch.as_tensor(logits))
    keep = transformed.nonempty(threshold=min_box_size)
    dataset_dict["proposals"] = proposals[keep][:proposal_topk]


def _read_proposals(path: str | os.PathLike[str]) -> dict[str, Any]:
    content = load_pickle(local_path(str(path)))
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, no dict; {_remedy()}")
    content = {DETECTRON1_NAMES.get(name, name): value for name, value in content.items()}
    names = ("ids", "boxes", "objectness_logits")
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path}: the dict lacks {', '.join(map(repr, missing))}; {_remedy()}")
    lists = [name for name in names if not _is_list(content[name])]
    if lists:
        raise InputError(f"{path}: {lists[0]!r} is no list with one entry for each image; {_remedy()}")
    others = [image_id for image_id in content["ids"] if not _is_image_id(image_id)]
    if others:
        raise InputError(
            f"{path}: 'ids' holds a {type(others[0]).__name__}; image ids are whole numbers or text"
        )
    lengths = {name: len(content[name]) for name in names}
    if len(set(lengths.values())) != 1:
        raise InputError(f"{path}: lists of different lengths, {lengths}; {_remedy()}")
    return content


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_image_id(value: Any) -> bool:
    """Text, or a whole number of 64 bits: what `str` makes short text of, whatever is in the file."""
    return isinstance(value, str | np.integer) or (isinstance(value, int) and value.bit_length() <= 64)


def _remedy() -> str:
    return "give a file of proposals, such as the box_proposals.pkl that the evaluation of an RPN writes"


def _box_mode(value: Any, path: str | os.PathLike[str]) -> BoxMode:
    allowed = {int(mode): mode for mode in BOX_MODES}
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_number or value not in allowed:
        known = ", ".join(f"{number} ({mode.name})" for number, mode in allowed.items())
        found = value if is_number and abs(value) < 1000 else f"another {type(value).__name__}"
        raise InputError(f"{path}: bbox_mode is {found}; allowed are {known}")
    return allowed[value]


def _check_proposals(boxes: Any, logits: Any, where: str) -> None:
    """Raise InputError unless they are (R, 4) and (R,) arrays of finite numbers."""
    is_array = all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for array in (boxes, logits))
    if not is_array or boxes.shape[1:] != (4,) or logits.shape != boxes.shape[:1]:
        shapes = " and ".join(str(getattr(array, "shape", type(array).__name__)) for array in (boxes, logits))
        raise InputError(
            f"{where}: boxes and objectness_logits are {shapes}; numeric arrays of (R, 4) and (R,) are needed"
        )
    if not np.isfinite(boxes).all() or not np.isfinite(logits).all():
        raise InputError(f"{where}: a box or a score is infinite or NaN; make the proposals anew")
