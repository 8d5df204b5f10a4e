"""`DatasetMapper`: from a dataset dict to the model's input."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from panomask.config import CfgNode, configurable
from panomask.data import detection_utils
from panomask.data import transforms as T
from panomask.data.image_annotations import transform_image_annotations
from panomask.data.image_io import image_to_tensor
from panomask.data.label_check import check_label_range
from panomask.data.log_once import log_once
from panomask.data.panoptic_targets import PanopticInput, segments_to_instances, things_label_of
from panomask.errors import InputError
from panomask.registry import kind_of
from panomask.semantic_png import IGNORE_LABEL, read_semantic_labels
from panomask.structures.panoptic_record import has_masks_in_png, has_segments, read_segment_map
from panomask.structures.segment_map import semantic_labels

SEMANTIC_MODELS = ["PanopticFPN", "SemanticSegmentor"]
"""MODEL.META_ARCHITECTURE of models with MODEL.SEM_SEG_HEAD. Projects add theirs."""

INSTANCE_MODELS = ["FCOS", "GeneralizedRCNN", "ProposalNetwork", "RetinaNet"]
"""Those of models that learn no semantic labels; none are derived for them."""

logger = logging.getLogger(__name__)


class DatasetMapper:
    """Read the image, augment it together with its annotations, make tensors of both.

    The result is the dataset dict (a copy) with

        image      (C, H, W) uint8 tensor, channels as `image_format` says
        proposals  `Instances` with proposal_boxes and objectness_logits, if they are precomputed
        instances  in training: `Instances` with gt_boxes, gt_classes and, as asked for, gt_masks,
                   gt_keypoints; crowds and objects that the augmentation has cut off are left out
        sem_seg    (H, W) int64 tensor, if the dict names a `sem_seg_file_name`; in training also of the
                   segments of its panoptic PNG (`pan_seg_file_name`, `segments_info`), if that is asked for

    and without `annotations` and `sem_seg_file_name`. Annotations that name a segment (`segment_id`) and have
    no segmentation get mask and box from the panoptic PNG. It is a default to start from: research with other
    data writes its own callable or overrides `_transform_annotations`.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
        use_segments: bool = False,
        sem_seg_things_label: int | None = 0,
        sem_seg_ignore_label: int = IGNORE_LABEL,
        num_sem_seg_classes: int | None = None,
    ):
        """
        Args:
            is_train: keep annotations; at test time only the image (and sem_seg) is made.
            augmentations: applied in order.
            image_format: as `format` of `read_image`.
            use_instance_mask: make gt_masks of the annotations' segmentation.
            use_keypoint: make gt_keypoints of the annotations' keypoints.
            instance_mask_format: "polygon" or "bitmask", see `annotations_to_instances`.
            keypoint_hflip_indices: see `create_keypoint_hflip_indices`.
            precomputed_proposal_topk: make `proposals` of the dict's precomputed ones, at most so many of the
                best; None: they are not looked at.
            recompute_boxes: make gt_boxes tight around the augmented masks (which a crop has cut).
            use_segments: where the dict names no `sem_seg_file_name`, make sem_seg of its panoptic segments.
            sem_seg_things_label: the label of every thing there; None: that of its category.
            sem_seg_ignore_label: of pixels without a segment.
            num_sem_seg_classes: refuse labels beyond it, but sem_seg_ignore_label, in training.
        """
        if recompute_boxes and not use_instance_mask:
            raise ValueError("recompute_boxes needs use_instance_mask: boxes are recomputed from masks")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.use_keypoint = use_keypoint
        self.instance_mask_format = instance_mask_format
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.proposal_topk = precomputed_proposal_topk
        self.recompute_boxes = recompute_boxes
        self.use_segments = use_segments
        self.sem_seg_things_label = sem_seg_things_label
        self.sem_seg_ignore_label = sem_seg_ignore_label
        self.num_sem_seg_classes = num_sem_seg_classes
        use = "training" if is_train else "inference"
        log_once(logger, (use, str(self.augmentations)), "Augmentations in %s: %s", use, self.augmentations)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        augmentations = detection_utils.build_augmentation(cfg, is_train)
        if cfg.INPUT.CROP.ENABLED and is_train:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        is_cut = is_train and (cfg.INPUT.CROP.ENABLED or cfg.INPUT.LSJ.ENABLED)
        topk = None
        if cfg.MODEL.LOAD_PROPOSALS:
            datasets = cfg.DATASETS
            topk = datasets.PRECOMPUTED_PROPOSAL_TOPK_TEST
            if is_train:
                topk = datasets.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
        hflip_indices = None
        if cfg.MODEL.KEYPOINT_ON and is_train:
            hflip_indices = detection_utils.create_keypoint_hflip_indices(cfg.DATASETS.TRAIN)
        model, names = kind_of(cfg.MODEL.META_ARCHITECTURE), cfg.DATASETS.TRAIN
        names = [names] if isinstance(names, str) else names
        num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "keypoint_hflip_indices": hflip_indices,
            "precomputed_proposal_topk": topk,
            "recompute_boxes": bool(is_cut and cfg.MODEL.MASK_ON),
            "use_segments": model not in INSTANCE_MODELS,
            "sem_seg_things_label": things_label_of(names[0]) if len(names) else 0,
            "sem_seg_ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "num_sem_seg_classes": num_classes if model in SEMANTIC_MODELS else None,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dataset dict, which stays as it is. Bad input is an `InputError` that names the image."""
        dataset_dict = self._copy(dataset_dict)
        file_name = str(dataset_dict["file_name"])
        image = detection_utils.read_image(file_name, format=self.image_format)
        detection_utils.check_image_size(dataset_dict, image)
        aug_input = self._read_labels(dataset_dict, image)
        transforms = self.augmentations(aug_input)
        image = aug_input.image
        dataset_dict["image"] = image_to_tensor(image)  # (C, H, W)
        if (sem_seg := aug_input.sem_seg) is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(sem_seg.astype(np.int64, copy=False))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(
                dataset_dict, image.shape[:2], transforms, proposal_topk=self.proposal_topk
            )
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        elif "annotations" in dataset_dict:
            try:
                if isinstance(aug_input, PanopticInput) and has_masks_in_png(dataset_dict):
                    dataset_dict["instances"] = segments_to_instances(
                        dataset_dict.pop("annotations"),
                        aug_input.segment_map,
                        dataset_dict["segments_info"],
                        use_masks=self.use_instance_mask,
                    )
                else:
                    self._transform_annotations(dataset_dict, transforms, image.shape[:2])
            except InputError as error:
                raise InputError(f"{file_name}: {error}") from error
        return dataset_dict

    def _copy(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The dict for editing. The annotations in it are copied only where a subclass may edit them.

        They are nearly all that a dict holds, and a deep copy takes as long as making `Instances` of them.
        """
        method = getattr(self._transform_annotations, "__func__", None)
        if "annotations" not in dataset_dict or method is not DatasetMapper._transform_annotations:
            return copy.deepcopy(dataset_dict)
        rest = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        return {**copy.deepcopy(rest), "annotations": dataset_dict["annotations"]}

    def _read_labels(self, dataset_dict: dict[str, Any], image: np.ndarray) -> T.AugInput:
        """The image with its semantic labels, and with its segments if something is to be made of them."""
        size, sem_seg, labels = image.shape[:2], None, None
        if "sem_seg_file_name" in dataset_dict:
            file_name = dataset_dict.pop("sem_seg_file_name")
            sem_seg = read_semantic_labels(file_name, size)
            self._check_labels(file_name, sem_seg)
        elif self.is_train and self.use_segments and has_segments(dataset_dict):
            labels = semantic_labels(dataset_dict["segments_info"], self.sem_seg_things_label)
            self._check_labels(dataset_dict["pan_seg_file_name"], np.asarray(labels))
        if labels is None and not (self.is_train and has_masks_in_png(dataset_dict)):
            return T.AugInput(image, sem_seg=sem_seg)
        return PanopticInput(
            image,
            read_segment_map(dataset_dict, size),
            labels=labels,
            ignore_label=self.sem_seg_ignore_label,
            sem_seg=sem_seg,
        )

    def _check_labels(self, file_name: str, labels: np.ndarray) -> None:
        """Refuse labels that the model has no class for; unchecked, they would end in the loss."""
        if self.is_train:
            check_label_range(file_name, labels, self.num_sem_seg_classes, self.sem_seg_ignore_label)

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.Transform, image_shape: tuple[int, int]
    ) -> None:
        """Replace `annotations` of the dict by `instances`, in place.

        Args:
            transforms: what was applied to the image.
            image_shape: (height, width) of the augmented image.
        """
        annotations = dataset_dict.pop("annotations")
        objects = [self._select_fields(i, anno) for i, anno in enumerate(annotations) if not _is_crowd(anno)]
        instances = transform_image_annotations(
            objects,
            transforms,
            image_shape,
            keypoint_hflip_indices=self.keypoint_hflip_indices,
            mask_format=self.instance_mask_format,
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = detection_utils.filter_empty_instances(instances)

    def _select_fields(self, position: int, annotation: dict[str, Any]) -> dict[str, Any]:
        """The annotation without what the model does not use, and surely with what it does."""
        annotation = dict(annotation)
        if not self.use_instance_mask:
            annotation.pop("segmentation", None)
        elif not _has_segmentation(annotation):
            raise InputError(
                f"object {position}{_id_of(annotation)} has no segmentation, but MODEL.MASK_ON is True: add"
                " masks to the annotation file, or set MODEL.MASK_ON False to train on boxes alone"
            )
        if not self.use_keypoint:
            annotation.pop("keypoints", None)
        elif self.keypoint_hflip_indices is not None:
            annotation["keypoints"] = self._all_keypoints(position, annotation)
        return annotation

    def _all_keypoints(self, position: int, annotation: dict[str, Any]) -> Any:
        """The annotation's keypoints or, COCO's way to say "not labelled", all of them with visibility 0."""
        assert self.keypoint_hflip_indices is not None
        keypoints, count = annotation.get("keypoints"), len(self.keypoint_hflip_indices)
        if keypoints is None or len(keypoints) == 0:
            return [0.0] * (3 * count)
        if np.size(keypoints) != 3 * count:
            raise InputError(
                f"object {position}{_id_of(annotation)} has {np.size(keypoints) / 3:g} keypoints (x, y,"
                f" visibility), but the data set's metadata names {count} (keypoint_names); correct either"
            )
        return keypoints


def _id_of(annotation: dict[str, Any]) -> str:
    """The annotation's id for a message; loaders may leave it out."""
    return f" (annotation id {annotation['id']})" if "id" in annotation else ""


def _is_crowd(annotation: dict[str, Any]) -> bool:
    return annotation.get("iscrowd", 0) != 0


def _has_segmentation(annotation: dict[str, Any]) -> bool:
    segmentation = annotation.get("segmentation")
    return segmentation is not None and len(segmentation) > 0
