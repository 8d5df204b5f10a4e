"""From annotations as a data set gives them to `Instances` as a model takes them: what mappers are made of.

The functions that read images live in `panomask.data.image_io`; they are found here too, as in Detectron2.
Boxes are xyxy in absolute pixels once transformed; image sizes are (height, width).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch

from panomask.config import CfgNode
from panomask.data import transforms as T
from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.image_io import (
    SizeMismatchError,
    check_image_size,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    read_image,
)
from panomask.data.keypoint_layout import common_keypoint_layout
from panomask.data.proposals import transform_proposals
from panomask.errors import InputError
from panomask.registry import DATASET_FUNCTIONS_REGISTRY
from panomask.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    polygons_to_bitmask,
)

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "build_transform_gen",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "get_bbox",
    "read_image",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
    "transform_proposals",
]

MASK_FORMATS = ("polygon", "bitmask")


def get_bbox(annotation: dict[str, Any]) -> np.ndarray:
    """The annotation's box as (4,) xyxy float64, from `bbox` and `bbox_mode`; InputError without them."""
    missing = [key for key in ("bbox", "bbox_mode") if key not in annotation]
    if missing:
        raise InputError(f"an annotation lacks {' and '.join(missing)}: add what a dataset dict needs")
    return np.asarray(
        BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS), dtype=np.float64
    )


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
) -> dict[str, Any]:
    """Apply `transforms` to the box, segmentation and keypoints of one annotation.

    Args:
        annotation: edited in place and returned, as in Detectron2; pass a copy to keep it. Its `segmentation`
            is a list of flat polygons, an RLE dict (compressed or not), or an (H, W) mask.
        transforms: what was applied to the image.
        image_size: size after the transforms; boxes are clipped to it.
        keypoint_hflip_indices: see `create_keypoint_hflip_indices`.

    Returns:
        The annotation with an xyxy `bbox`; an RLE `segmentation` has become an (H, W) uint8 mask, `keypoints`
        a (K, 3) array.
    """
    if not isinstance(transforms, T.Transform):
        transforms = T.TransformList(list(transforms))
    height, width = image_size
    box = transforms.apply_box(get_bbox(annotation)[None])[0]
    annotation["bbox"] = np.clip(box, 0, (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    if "keypoints" in annotation:
        annotation["keypoints"] = transform_keypoint_annotations(
            annotation["keypoints"], transforms, image_size, keypoint_hflip_indices
        )
    return annotation


def _transform_segmentation(
    segmentation: Any, transforms: T.Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    if isinstance(segmentation, list):
        if any(np.ndim(polygon) != 1 or len(polygon) % 2 for polygon in segmentation):
            raise InputError(
                f"a segmentation begins {str(segmentation)[:40]!r}; polygons are given as a list of lists,"
                " [[x, y, x, y, ...], ...]"
            )
        points = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
        return [polygon.reshape(-1) for polygon in transforms.apply_polygons(points)]
    mask = transforms.apply_segmentation(_decode_mask(segmentation))
    if tuple(mask.shape[:2]) != tuple(image_size):
        raise InputError(
            f"a mask is {mask.shape[0]} x {mask.shape[1]} (height x width) after the transforms, its image"
            f" {image_size[0]} x {image_size[1]}: mend the RLE's size in the annotation file"
        )
    return mask


def _decode_mask(segmentation: Any) -> np.ndarray:
    """(H, W) uint8 from an RLE dict (counts: bytes, str or list of run lengths) or from a mask."""
    if isinstance(segmentation, np.ndarray):
        if segmentation.ndim != 2:
            raise InputError(f"a mask given as an array must be (H, W), not of shape {segmentation.shape}")
        return segmentation.astype(np.uint8)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise InputError(
            f"segmentation of type {type(segmentation).__name__}; allowed: a list of polygons, each"
            " [x, y, x, y, ...], an RLE dict with size and counts, a 2-D array"
        )
    if isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
    return mask_util.decode(segmentation)


def transform_keypoint_annotations(
    keypoints: Sequence[float],
    transforms: T.Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Transform the keypoints of one object.

    Points that leave the image become invisible; an odd number of horizontal flips swaps left and right;
    invisible points are all (0, 0, 0).

    Args:
        keypoints: 3K numbers x, y, visibility.
        image_size: size after the transforms.
        keypoint_hflip_indices: K indices, see `create_keypoint_hflip_indices`.

    Returns:
        (K, 3) float64.
    """
    points = np.array(keypoints, dtype=np.float64).reshape(1, -1, 3)
    return transform_keypoint_array(points, transforms, image_size, keypoint_hflip_indices)[0]


def transform_keypoint_array(
    keypoints: np.ndarray,
    transforms: T.Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """`transform_keypoint_annotations` of N objects at once, (N, K, 3) float64 to the same."""
    xy = transforms.apply_coords(keypoints[..., :2].copy().reshape(-1, 2)).reshape(*keypoints.shape[:2], 2)
    height, width = image_size
    is_inside = ((xy >= 0) & (xy <= (width, height))).all(axis=2)  # (N, K)
    points = np.concatenate([xy, np.where(is_inside, keypoints[..., 2], 0)[..., None]], axis=2)
    steps = transforms.transforms if isinstance(transforms, T.TransformList) else [transforms]
    if sum(isinstance(step, T.HFlipTransform) for step in steps) % 2 == 1:
        if keypoint_hflip_indices is None:
            raise ValueError("keypoints are flipped horizontally: keypoint_hflip_indices is needed")
        if len(keypoint_hflip_indices) != points.shape[1]:
            raise InputError(
                f"an object has {points.shape[1]} keypoints, but the data set's metadata names"
                f" {len(keypoint_hflip_indices)} (keypoint_names)"
            )
        points = points[:, np.asarray(keypoint_hflip_indices, dtype=np.int64)]
    points[points[..., 2] == 0] = 0
    return points


def annotations_to_instances(
    annos: Sequence[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """The transformed annotations of one image as `Instances`.

    Polygons and bit masks may be mixed freely. With `mask_format="polygon"`, an image whose objects are all
    polygons gives `PolygonMasks`; if a single one of them is RLE or a mask, all of that image's objects
    become `BitMasks`. With "bitmask" it is always `BitMasks`.

    Args:
        annos: what `transform_instance_annotations` returned, crowds excluded.
        image_size: size after the transforms.

    Returns:
        Fields gt_boxes, gt_classes and, where the annotations have them, gt_masks and gt_keypoints.
    """
    check_mask_format(mask_format)
    instances = Instances(image_size)
    boxes = np.array([get_bbox(anno) for anno in annos]).reshape(-1, 4)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.gt_classes = torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64)
    if any("segmentation" in anno for anno in annos):
        segmentations = _field_of_all(annos, "segmentation")
        instances.gt_masks = _build_masks(segmentations, image_size, mask_format)
    if any("keypoints" in anno for anno in annos):
        keypoints = [np.asarray(points).reshape(-1, 3) for points in _field_of_all(annos, "keypoints")]
        instances.gt_keypoints = Keypoints(torch.as_tensor(np.stack(keypoints), dtype=torch.float32))
    return instances


def check_mask_format(mask_format: str) -> None:
    """InputError unless it is one of `MASK_FORMATS`."""
    if mask_format not in MASK_FORMATS:
        raise InputError(
            f"mask format {mask_format!r}; allowed: {', '.join(MASK_FORMATS)} (INPUT.MASK_FORMAT)"
        )


def _field_of_all(annos: Sequence[dict[str, Any]], name: str) -> list[Any]:
    missing = [i for i, anno in enumerate(annos) if name not in anno]
    if missing:
        raise InputError(f"object {missing[0]} has no {name}, but others of the same image have: add it")
    return [anno[name] for anno in annos]


def _build_masks(
    segmentations: list[Any], image_size: tuple[int, int], mask_format: str
) -> PolygonMasks | BitMasks:
    if mask_format == "polygon" and all(isinstance(segmentation, list) for segmentation in segmentations):
        return PolygonMasks(segmentations)
    masks = [
        polygons_to_bitmask(segmentation, *image_size)
        if isinstance(segmentation, list)
        else _decode_mask(segmentation)
        for segmentation in segmentations
    ]
    return BitMasks(torch.from_numpy(np.stack([np.ascontiguousarray(mask, dtype=bool) for mask in masks])))


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Drop objects whose box has a side of at most `box_threshold` pixels or whose mask is empty.

    Returns:
        The kept instances; with `return_mask` also the (N,) boolean mask of what was kept.
    """
    assert by_box or by_mask, "nothing to filter by"
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    kept = instances if bool(keep.all()) else instances[keep]
    return (kept, keep) if return_mask else kept


def create_keypoint_hflip_indices(dataset_names: str | Sequence[str]) -> list[int]:
    """Where each keypoint of a mirrored image comes from: `mirrored = points[indices]` swaps left and right.

    All the data sets must share their keypoints and pairs; where they come from: `keypoint_layout_of`.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    if not names:
        raise InputError("no data set is named: DATASETS.TRAIN is empty")
    return common_keypoint_layout(names).hflip_indices()


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Raise `InputError` unless the metadata `key` of all the data sets is equal (or absent in all)."""
    if len(dataset_names) == 0:
        raise InputError("no data set is named: DATASETS.TRAIN or DATASETS.TEST is empty")
    first, *others = (MetadataCatalog.get(name).get(key) for name in dataset_names)
    for name, value in zip(dataset_names[1:], others, strict=True):
        if value != first:
            raise InputError(
                f"data sets {dataset_names[0]!r} and {name!r} differ in {key}: {_short(first)} against"
                f" {_short(value)}; only data sets that agree can be trained on together"
            )


@DATASET_FUNCTIONS_REGISTRY.register()
def get_fed_loss_cls_weights(
    dataset_names: str | Sequence[str], freq_weight_power: float = 1.0
) -> torch.Tensor:
    """How likely each class is to be drawn as a negative of the federated loss (arXiv:2103.07461, 4.1).

    The number of images that hold the class, to the power of `freq_weight_power`. The metadata's
    `class_image_count` ([{"id": ..., "image_count": ...}, ...], classes in the order of their ids) tells it,
    and must agree between data sets; where one of them has none the images of all are counted.

    Returns:
        (K,) float32.

    Raises:
        InputError: no data set, or `class_image_count` that differ.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    known = [MetadataCatalog.get(name).get("class_image_count") for name in names]
    if names and not all(known):
        return _count_images_of_classes(names).float() ** freq_weight_power
    check_metadata_consistency("class_image_count", names)
    counts = [entry["image_count"] for entry in sorted(known[0], key=lambda entry: entry["id"])]
    return torch.tensor(counts).float() ** freq_weight_power


def _count_images_of_classes(dataset_names: Sequence[str]) -> torch.Tensor:
    """(K,) int64: in how many images of all the data sets each class occurs."""
    records = [record for name in dataset_names for record in DatasetCatalog.get(name)]
    classes = [c for record in records for c in {x["category_id"] for x in record.get("annotations", ())}]
    num_classes = len(MetadataCatalog.get(dataset_names[0]).get("thing_classes", ()))
    return torch.bincount(torch.tensor(classes, dtype=torch.int64), minlength=num_classes)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict[str, Any]
) -> T.CropTransform:
    """A random window of `crop_size` that holds the centre of the annotation's box."""
    size = np.minimum(np.asarray(crop_size, dtype=np.int64), image_size)
    x0, y0, x1, y1 = get_bbox(instance)
    center = np.array([(y0 + y1) / 2, (x0 + x1) / 2])
    if (center > image_size).any() or (center < 0).any():
        raise InputError(
            f"the annotation's box {(x0, y0, x1, y1)} has its centre outside of the image {image_size}"
        )
    low = np.maximum(np.floor(center).astype(np.int64) - size, 0)
    high = np.minimum(np.maximum(np.asarray(image_size) - size, 0), np.ceil(center).astype(np.int64))
    low = np.minimum(low, high)
    top, left = (int(np.random.randint(a, b + 1)) for a, b in zip(low, high, strict=True))
    return T.CropTransform(left, top, int(size[1]), int(size[0]), image_size[1], image_size[0])


def build_augmentation(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The standard augmentations of INPUT: resize the shortest edge; in training, flip.

    With INPUT.LSJ.ENABLED, training images are resized, cut and padded by large-scale jitter instead.
    """
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    sizes, sampling = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    if sampling not in ("choice", "range"):
        raise InputError(f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling!r}; allowed: choice, range")
    if sampling == "range" and len(sizes) != 2:
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN must be (min, max) when it is sampled as a range, not {sizes}"
        )
    augmentations: list[T.Augmentation] = [T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TRAIN, sampling)]
    if cfg.INPUT.LSJ.ENABLED:
        jitter, (height, width) = cfg.INPUT.LSJ, cfg.INPUT.LSJ.SIZE
        augmentations = [
            T.ResizeScale(jitter.MIN_SCALE, jitter.MAX_SCALE, height, width),
            T.FixedSizeCrop((height, width), seg_pad_value=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE),
        ]
    flip = cfg.INPUT.RANDOM_FLIP
    if flip not in ("none", "horizontal", "vertical"):
        raise InputError(f"INPUT.RANDOM_FLIP is {flip!r}; allowed: none, horizontal, vertical")
    if flip != "none":
        augmentations.append(T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"))
    return augmentations


build_transform_gen = build_augmentation
