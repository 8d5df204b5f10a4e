"""The one table from Detectron2's module paths to ours, and the switch that puts it into `sys.modules`.

    import panomask
    panomask.install_as_detectron2()
    from detectron2.structures import Boxes        # is panomask.structures.Boxes

It is opt-in and refuses when the real Detectron2 is already imported. A name that panomask does not offer
(yet) raises ImportError at the line that asks for it, never later.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

SERVED_VERSION = "0.6"
"""`detectron2.__version__`: the version whose names are served."""

MODULES: dict[str, tuple[str, ...]] = {
    "detectron2": ("panomask",),
    "detectron2.config": ("panomask.config",),
    "detectron2.config.compat": ("panomask.config",),
    "detectron2.config.config": ("panomask.config",),
    "detectron2.config.defaults": ("panomask.config.defaults",),
    "detectron2.structures": ("panomask.structures",),
    "detectron2.structures.boxes": ("panomask.structures",),
    "detectron2.structures.image_list": ("panomask.structures",),
    "detectron2.structures.instances": ("panomask.structures",),
    "detectron2.structures.keypoints": ("panomask.structures",),
    "detectron2.structures.masks": ("panomask.structures", "panomask.structures.masks"),
    "detectron2.layers": ("panomask.layers",),
    "detectron2.layers.batch_norm": ("panomask.layers.batch_norm",),
    "detectron2.layers.blocks": ("panomask.layers",),
    "detectron2.layers.deform_conv": ("panomask.layers.deform_conv",),
    "detectron2.layers.mask_ops": ("panomask.layers.mask_paste",),
    "detectron2.layers.nms": ("panomask.layers.suppression", "panomask.layers"),
    "detectron2.layers.roi_align": ("panomask.layers.roi_pooling", "panomask.layers"),
    "detectron2.layers.shape_spec": ("panomask.layers.shape_spec",),
    "detectron2.layers.wrappers": ("panomask.layers.wrappers", "panomask.layers"),
    "detectron2.checkpoint": ("panomask.checkpoint",),
    "detectron2.checkpoint.c2_model_loading": (
        "panomask.checkpoint.alignment",
        "panomask.checkpoint.caffe2_names",
    ),
    "detectron2.checkpoint.detection_checkpoint": ("panomask.checkpoint",),
    "detectron2.solver": ("panomask.solver",),
    "detectron2.solver.build": ("panomask.solver.optimizers", "panomask.solver"),
    "detectron2.solver.lr_scheduler": ("panomask.solver.schedules",),
    "detectron2.data": ("panomask.data",),
    "detectron2.data.build": ("panomask.data.build", "panomask.data"),
    "detectron2.data.catalog": ("panomask.data.catalog",),
    "detectron2.data.common": (
        "panomask.data.serialized_list",
        "panomask.data.batching",
        "panomask.data.picklable",
    ),
    "detectron2.data.dataset_mapper": ("panomask.data.dataset_mapper",),
    "detectron2.data.datasets": ("panomask.data.datasets", "panomask.evaluation.coco_json"),
    "detectron2.data.datasets.builtin": (
        "panomask.data.datasets.builtin",
        "panomask.data.datasets",
        "panomask.data.datasets.builtin_meta",
        "panomask.data.catalog",
    ),
    "detectron2.data.datasets.builtin_meta": ("panomask.data.datasets.builtin_meta",),
    "detectron2.data.datasets.cityscapes": ("panomask.data.datasets.cityscapes",),
    "detectron2.data.datasets.cityscapes_panoptic": (
        "panomask.data.datasets.cityscapes_panoptic",
        "panomask.data.datasets.builtin_meta",
        "panomask.data.catalog",
    ),
    "detectron2.data.datasets.coco": ("panomask.data.datasets.coco", "panomask.evaluation.coco_json"),
    "detectron2.data.datasets.coco_panoptic": ("panomask.data.datasets.coco_panoptic",),
    "detectron2.data.datasets.lvis": ("panomask.data.datasets.lvis",),
    "detectron2.data.datasets.pascal_voc": ("panomask.data.datasets.pascal_voc",),
    "detectron2.data.datasets.register_coco": ("panomask.data.datasets",),
    "detectron2.data.detection_utils": ("panomask.data.detection_utils",),
    "detectron2.data.samplers": ("panomask.data.samplers", "panomask.data.batching"),
    "detectron2.data.transforms": ("panomask.data.transforms",),
    "detectron2.data.transforms.augmentation": ("panomask.data.transforms.augmentation",),
    "detectron2.data.transforms.augmentation_impl": ("panomask.data.transforms.augmentation_impl",),
    "detectron2.data.transforms.transform": ("panomask.data.transforms.transform",),
    "detectron2.model_zoo": ("panomask.model_zoo",),
    "detectron2.model_zoo.model_zoo": ("panomask.model_zoo",),
    "detectron2.modeling": ("panomask.modeling", "panomask.engine.test_time_augmentation"),
    "detectron2.modeling.anchor_generator": ("panomask.modeling.anchor_generator",),
    "detectron2.modeling.backbone": ("panomask.modeling.backbone",),
    "detectron2.modeling.backbone.backbone": ("panomask.modeling.backbone",),
    "detectron2.modeling.backbone.build": ("panomask.modeling.backbone", "panomask.registry"),
    "detectron2.modeling.backbone.fpn": ("panomask.modeling.backbone.fpn",),
    "detectron2.modeling.backbone.regnet": ("panomask.modeling.backbone.regnet", "panomask.layers"),
    "detectron2.modeling.backbone.resnet": ("panomask.modeling.backbone.resnet", "panomask.layers"),
    "detectron2.modeling.box_regression": ("panomask.modeling.box_regression",),
    "detectron2.modeling.matcher": ("panomask.modeling.matcher",),
    "detectron2.modeling.meta_arch": ("panomask.modeling.meta_arch",),
    "detectron2.modeling.meta_arch.build": ("panomask.modeling.meta_arch.build", "panomask.registry"),
    "detectron2.modeling.meta_arch.dense_detector": (
        "panomask.modeling.meta_arch.dense_detector",
        "panomask.modeling.dense_heads.dense_predictions",
        "panomask.modeling.backbone",
        "panomask.layers",
        "panomask.data.detection_utils",
    ),
    "detectron2.modeling.meta_arch.fcos": (
        "panomask.modeling.meta_arch.fcos",
        "panomask.modeling.dense_heads",
        "panomask.modeling.dense_heads.dense_predictions",
        "panomask.layers",
        "panomask.structures",
        "panomask.event_storage",
    ),
    "detectron2.modeling.meta_arch.panoptic_fpn": (
        "panomask.modeling.meta_arch.panoptic_fpn",
        "panomask.registry",
        "panomask.structures",
    ),
    "detectron2.modeling.meta_arch.rcnn": ("panomask.modeling.meta_arch.rcnn",),
    "detectron2.modeling.meta_arch.retinanet": (
        "panomask.modeling.meta_arch.retinanet",
        "panomask.modeling.dense_heads",
        "panomask.modeling.dense_heads.dense_predictions",
        "panomask.layers",
        "panomask.registry",
        "panomask.structures",
        "panomask.event_storage",
    ),
    "detectron2.modeling.meta_arch.semantic_seg": (
        "panomask.modeling.meta_arch.semantic_seg",
        "panomask.registry",
        "panomask.structures",
    ),
    "detectron2.modeling.poolers": ("panomask.modeling.poolers",),
    "detectron2.modeling.postprocessing": ("panomask.modeling.postprocessing",),
    "detectron2.modeling.proposal_generator": ("panomask.modeling.proposal_generator", "panomask.registry"),
    "detectron2.modeling.proposal_generator.build": (
        "panomask.modeling.proposal_generator",
        "panomask.registry",
    ),
    "detectron2.modeling.proposal_generator.proposal_utils": (
        "panomask.modeling.proposal_generator.proposal_utils",
    ),
    "detectron2.modeling.proposal_generator.rpn": (
        "panomask.modeling.proposal_generator.rpn",
        "panomask.registry",
    ),
    "detectron2.modeling.roi_heads": ("panomask.modeling.roi_heads", "panomask.registry"),
    "detectron2.modeling.roi_heads.box_head": (
        "panomask.modeling.roi_heads.box_head",
        "panomask.registry",
        "panomask.layers",
    ),
    "detectron2.modeling.roi_heads.cascade_rcnn": (
        "panomask.modeling.roi_heads.cascade_rcnn",
        "panomask.registry",
    ),
    "detectron2.modeling.roi_heads.fast_rcnn": (
        "panomask.modeling.roi_heads.fast_rcnn",
        "panomask.modeling.roi_heads.fast_rcnn_outputs",
        "panomask.data.detection_utils",
    ),
    "detectron2.modeling.roi_heads.keypoint_head": (
        "panomask.modeling.roi_heads.keypoint_head",
        "panomask.registry",
        "panomask.structures",
        "panomask.layers",
    ),
    "detectron2.modeling.roi_heads.mask_head": (
        "panomask.modeling.roi_heads.mask_head",
        "panomask.registry",
        "panomask.layers",
    ),
    "detectron2.modeling.roi_heads.roi_heads": (
        "panomask.modeling.roi_heads.roi_heads",
        "panomask.modeling.roi_heads",
        "panomask.registry",
        "panomask.modeling.backbone",
        "panomask.layers",
    ),
    "detectron2.modeling.sampling": ("panomask.modeling.sampling",),
    "detectron2.modeling.test_time_augmentation": (
        "panomask.engine.test_time_augmentation",
        "panomask.data.transforms",
    ),
    "detectron2.engine": ("panomask.engine",),
    "detectron2.engine.defaults": ("panomask.engine",),
    "detectron2.engine.hooks": ("panomask.engine.hooks",),
    "detectron2.engine.launch": ("panomask.engine.launch",),
    "detectron2.engine.train_loop": ("panomask.engine",),
    "detectron2.evaluation": ("panomask.evaluation", "panomask.engine"),
    "detectron2.evaluation.cityscapes_evaluation": ("panomask.evaluation.cityscapes_evaluation",),
    "detectron2.evaluation.coco_evaluation": (
        "panomask.evaluation.coco_evaluation",
        "panomask.evaluation.coco_api",
        "panomask.structures",
    ),
    "detectron2.evaluation.evaluator": ("panomask.evaluation.evaluator",),
    "detectron2.evaluation.fast_eval_api": ("panomask.evaluation.coco_api",),
    "detectron2.evaluation.lvis_evaluation": ("panomask.evaluation.lvis_evaluation",),
    "detectron2.evaluation.panoptic_evaluation": ("panomask.evaluation.panoptic_evaluation",),
    "detectron2.evaluation.pascal_voc_evaluation": ("panomask.evaluation.pascal_voc_evaluation",),
    "detectron2.evaluation.sem_seg_evaluation": (
        "panomask.evaluation.sem_seg_evaluation",
        "panomask.distributed",
    ),
    "detectron2.evaluation.testing": ("panomask.evaluation", "panomask.engine"),
    "detectron2.utils": (),
    "detectron2.utils.analysis": ("panomask.engine.analysis", "fvcore.nn"),
    "detectron2.utils.collect_env": ("panomask.engine",),
    "detectron2.utils.colormap": ("panomask.visualization.colormap",),
    "detectron2.utils.comm": ("panomask.distributed",),
    "detectron2.utils.env": ("panomask.engine",),
    "detectron2.utils.events": ("panomask.event_storage", "panomask.engine"),
    "detectron2.utils.file_io": ("panomask.checkpoint",),
    "detectron2.utils.logger": ("panomask.engine", "panomask.engine.logger"),
    "detectron2.utils.memory": ("panomask.layers",),
    "detectron2.utils.registry": ("panomask.registry",),
    "detectron2.utils.serialize": ("panomask.data.picklable",),
    "detectron2.utils.video_visualizer": (
        "panomask.visualization",
        "panomask.visualization.video_visualizer",
    ),
    "detectron2.utils.visualizer": (
        "panomask.visualization",
        "panomask.visualization.visualizer",
        "panomask.data.catalog",
    ),
}
"""Detectron2's module -> the modules of ours in which its names are looked up, in this order."""

OBEYED_ELSEWHERE = (
    "DATALOADER.SAMPLER_TRAIN",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.OPTIMIZER",
)
"""Keys to which code written for Detectron2 gives values of its own, for loaders, optimizers and schedules
that it builds itself. Our builders refuse values that they do not know where they are called."""


class _Alias(ModuleType):
    """A module whose attributes are those of other modules, looked up when asked for."""

    def __init__(self, name: str, targets: tuple[str, ...]):
        super().__init__(name, f"Detectron2's `{name}`, served by {', '.join(targets) or 'panomask'}.")
        self.__path__: list[str] = []  # lets `import detectron2.structures` pass for a package
        self._targets = targets
        if name == "detectron2":
            self.__version__ = SERVED_VERSION

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # `from detectron2.structures import *`
            return self._public_names()
        if not name.startswith("__"):
            for target in self._targets:
                module = importlib.import_module(target)
                if hasattr(module, name):
                    return getattr(module, name)
            if f"{self.__name__}.{name}" in sys.modules:
                return sys.modules[f"{self.__name__}.{name}"]
        raise AttributeError(f"panomask offers no {name!r} for {self.__name__}")

    def _public_names(self) -> list[str]:
        modules = [importlib.import_module(target) for target in self._targets]
        names = [
            name
            for module in modules
            for name in getattr(module, "__all__", vars(module))
            if not name.startswith("_")
        ]
        return list(dict.fromkeys(names))


def install_as_detectron2() -> None:
    """Let `import detectron2...` mean panomask in this process.

    Raises:
        RuntimeError: the real Detectron2 is already imported; call this before anything imports it.
    """
    present = sys.modules.get("detectron2")
    if present is not None and not isinstance(present, _Alias):
        raise RuntimeError(
            "the real detectron2 is already imported, so panomask cannot take its name;"
            " call panomask.install_as_detectron2() before anything imports detectron2"
        )
    for name, targets in MODULES.items():
        sys.modules.setdefault(name, _Alias(name, targets))
    importlib.import_module("panomask.config").obeys(*OBEYED_ELSEWHERE)
