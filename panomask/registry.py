"""Registry, and every table that a config may point into.

`MODEL.BACKBONE.NAME: "build_resnet_fpn_backbone"` is looked up in `BACKBONE_REGISTRY`, and so on. Research
code adds an entry with `@BACKBONE_REGISTRY.register()` before the model is built.
"""

from typing import Any

from fvcore.common.registry import Registry as _Registry

from panomask.errors import InputError, nearest_names


class Registry(_Registry):
    """fvcore's name -> object table whose error for an unknown name lists the known and the nearest names."""

    def get(self, name: str) -> Any:
        if name not in self:
            known = sorted(key for key, _ in self)
            near = nearest_names(name, known)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise InputError(
                f"{name!r} is not registered in {self._name}.{hint} Known: {', '.join(known) or 'nothing'}."
                " Import the module that registers it before the model is built."
            )
        return super().get(name)


META_ARCH_REGISTRY = Registry("META_ARCH")
"""MODEL.META_ARCHITECTURE: whole models, called with `cfg`."""

MODEL_KINDS: dict[str, str] = {}
"""A project's MODEL.META_ARCHITECTURE -> the model of ours that it takes its data, keys and outputs from.

`MODEL_KINDS["MyPanopticFPN"] = "PanopticFPN"` makes every check and table treat the one as the other.
"""


def kind_of(meta_architecture: str) -> str:
    """The model of ours that a MODEL.META_ARCHITECTURE is treated as: itself, or what `MODEL_KINDS` says."""
    return MODEL_KINDS.get(meta_architecture, meta_architecture)


BACKBONE_REGISTRY = Registry("BACKBONE")
"""MODEL.BACKBONE.NAME: called with `(cfg, input_shape: ShapeSpec)`, returns a `Backbone`."""

ANCHOR_GENERATOR_REGISTRY = Registry("ANCHOR_GENERATOR")
"""MODEL.ANCHOR_GENERATOR.NAME: called with `(cfg, input_shape: list[ShapeSpec])`."""

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")
"""MODEL.PROPOSAL_GENERATOR.NAME: called with `(cfg, input_shape: dict[str, ShapeSpec])`."""

RPN_HEAD_REGISTRY = Registry("RPN_HEAD")
"""MODEL.RPN.HEAD_NAME: called with `(cfg, input_shape: list[ShapeSpec])`."""

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")
"""MODEL.ROI_HEADS.NAME: called with `(cfg, input_shape: dict[str, ShapeSpec])`."""

ROI_BOX_HEAD_REGISTRY = Registry("ROI_BOX_HEAD")
"""MODEL.ROI_BOX_HEAD.NAME: called with `(cfg, input_shape: ShapeSpec)`."""

ROI_MASK_HEAD_REGISTRY = Registry("ROI_MASK_HEAD")
"""MODEL.ROI_MASK_HEAD.NAME: called with `(cfg, input_shape: ShapeSpec)`."""

ROI_KEYPOINT_HEAD_REGISTRY = Registry("ROI_KEYPOINT_HEAD")
"""MODEL.ROI_KEYPOINT_HEAD.NAME: called with `(cfg, input_shape: ShapeSpec)`."""

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
"""MODEL.SEM_SEG_HEAD.NAME: called with `(cfg, input_shape: dict[str, ShapeSpec])`."""

DATASET_FUNCTIONS_REGISTRY = Registry("DATASET_FUNCTIONS")
"""What `panomask.modeling` asks of `panomask.data`, which it may not import: functions of data set names."""
