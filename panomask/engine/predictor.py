"""From a config with weights to predictions on one image at a time."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from panomask.addresses import local_path
from panomask.checkpoint import DetectionCheckpointer
from panomask.checkpoint.files import read_checkpoint
from panomask.config import CfgNode
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.catalog import Metadata
from panomask.data.transforms import ResizeShortestEdge
from panomask.engine.keypoint_setup import settle_keypoints
from panomask.engine.precision import inference_autocast
from panomask.engine.semantic_setup import settle_stuff
from panomask.engine.setup import match_num_classes, num_classes_keys, thing_classes_of
from panomask.engine.test_time_augmentation import GeneralizedRCNNWithTTA
from panomask.errors import InputError
from panomask.modeling import build_model

logger = logging.getLogger(__name__)


class DefaultPredictor:
    """A model with the weights of MODEL.WEIGHTS, applied to single images as read from a file.

    It resizes as INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST say, converts BGR to INPUT.FORMAT and runs on
    MODEL.DEVICE, with test-time augmentation if TEST.AUG.ENABLED. For many images at once, build a test
    loader and call the model itself.

    Attributes:
        metadata: of the first test data set, or else the class names that the checkpoint holds.
        model: in evaluation mode.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: not changed. Where it leaves the number of classes open, that of the checkpoint is taken, or
                else that of DATASETS.TEST.

        Raises:
            InputError: the weights are missing, damaged, or not those of this model; a model that needs
                proposals from a file.
        """
        if cfg.MODEL.LOAD_PROPOSALS:
            raise InputError(
                "MODEL.LOAD_PROPOSALS: this model detects in proposals from a file, which has none for these"
                " images; evaluate it by tools/train_net.py --eval-only, or take a model that has an RPN"
            )
        self.cfg = cfg.clone()
        self.cfg.defrost()
        trained = _training_of_checkpoint(cfg.MODEL.WEIGHTS)
        names = trained.get("thing_classes") or None
        _settle_num_classes(self.cfg, names)
        self.metadata = _metadata(self.cfg.DATASETS.TEST, names)
        keypoints = settle_keypoints(self.cfg, trained.get("keypoints"))
        if keypoints and self.metadata.get("keypoint_names") is None:
            self.metadata = Metadata(**{**self.metadata.as_dict(), **keypoints})
        stuff = settle_stuff(self.cfg, trained.get("stuff"))
        if stuff and self.metadata.get("stuff_classes") != stuff["stuff_classes"]:
            self.metadata = Metadata(**{**self.metadata.as_dict(), **stuff})
        self.model = build_model(self.cfg)
        DetectionCheckpointer(self.model).load(self.cfg.MODEL.WEIGHTS, match="parameters")
        if self.cfg.TEST.AUG.ENABLED:
            self.model = GeneralizedRCNNWithTTA(self.cfg, self.model)
        self.model.eval()
        shortest = [self.cfg.INPUT.MIN_SIZE_TEST] * 2
        self.aug = ResizeShortestEdge(shortest, self.cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = self.cfg.INPUT.FORMAT
        if self.input_format not in ("RGB", "BGR"):
            raise InputError(f"INPUT.FORMAT is {self.input_format!r}; prediction needs RGB or BGR")

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """Predict on one image.

        Args:
            original_image: (H, W, 3) uint8, BGR, as OpenCV reads it.

        Returns:
            The model's output, such as `{"instances": Instances}`, in pixels of `original_image`.
        """
        if original_image.ndim != 3 or original_image.shape[2] != 3:
            raise ValueError(f"an image of shape (H, W, 3) is needed, got {original_image.shape}")
        height, width = original_image.shape[:2]
        image = original_image[:, :, ::-1] if self.input_format == "RGB" else original_image
        resized = self.aug.get_transform(image).apply_image(image)
        resized = resized if resized.dtype == np.uint8 else resized.astype("float32")
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        with torch.no_grad(), inference_autocast(self.cfg):
            return self.model([{"image": tensor, "height": height, "width": width}])[0]


def _training_of_checkpoint(path: str) -> dict[str, Any]:
    """What a checkpoint of ours says of the data of its training: `thing_classes`, `keypoints`, `stuff`."""
    if not path:
        return {}
    checkpoint = read_checkpoint(local_path(path))
    said = {
        key: checkpoint[key]
        for key in ("thing_classes", "keypoints", "stuff")
        if checkpoint.get(key) is not None
    }
    names = {"thing_classes": said.get("thing_classes", [])}
    for key, field in (("keypoints", "keypoint_names"), ("stuff", "stuff_classes")):
        entry = said.get(key, {field: []})
        names[key] = entry.get(field) if isinstance(entry, dict) else None
    for key, value in names.items():
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{path}: its entry {key!r} does not hold a list of names; remove the entry")
    return said


def _settle_num_classes(cfg: CfgNode, checkpoint_names: list[str] | None) -> None:
    """Set the number of classes in `cfg` where the config does not state it."""
    keys = [key for key in num_classes_keys(cfg) if not cfg.is_explicit(key)]
    if checkpoint_names:
        for key in keys:
            cfg.merge_from_list([key, len(checkpoint_names)])
    elif keys:
        match_num_classes(cfg, [name for name in cfg.DATASETS.TEST if name in DatasetCatalog])


def _metadata(test_sets: Sequence[str], checkpoint_names: list[str] | None) -> Metadata:
    """What is known about the classes that the model predicts; what it was trained on goes first."""
    registered = MetadataCatalog.get(test_sets[0]) if len(test_sets) else Metadata(name="unnamed")
    known = registered.get("thing_classes")
    if checkpoint_names is None:
        if known is None and registered.name in DatasetCatalog:
            known = thing_classes_of(registered.name)
            return Metadata(**{**registered.as_dict(), "thing_classes": known})
        return registered
    if known == checkpoint_names:
        return registered
    if known is not None:
        logger.warning(
            "The weights were trained for other classes than those of %s: the weights' names are used",
            registered.name,
        )
    return Metadata(name="checkpoint", thing_classes=checkpoint_names)
