"""Augmentations: policies that look at an input, draw random numbers and return a deterministic `Transform`.

Random numbers come from numpy's global generator, which the training loader seeds for every sample (see
`panomask.data.batching`); an augmentation that keeps a generator of its own would lose reproducibility.
"""

import functools
import inspect
import pprint
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from fvcore.transforms.transform import Transform, TransformList


class Augmentation:
    """Base class: implement `get_transform`.

    Its parameter names say which fields of the `AugInput` it looks at: `get_transform(self, image)`,
    `get_transform(self, image, sem_seg)`, or any attribute that a subclass of `AugInput` has. A single
    parameter is the image whatever its name, as in Detectron2. A class attribute `input_args` (tuple of
    names) overrides what the signature says.
    """

    input_args: tuple[str, ...] | None = None

    if TYPE_CHECKING:  # the attributes that `_init` sets

        def __getattr__(self, name: str) -> Any: ...

    def _init(self, params: dict[str, Any] | None = None) -> None:
        """Store `locals()` of a constructor as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} does not define get_transform")

    def __call__(self, aug_input: "AugInput") -> Transform:
        """Draw a transform, apply it to `aug_input` in place, return it."""
        transform = self.get_transform(*[self._read(aug_input, name) for name in self._input_names()])
        if not isinstance(transform, Transform):
            raise TypeError(f"{type(self).__name__}.get_transform must return a Transform, not {transform!r}")
        aug_input.transform(transform)
        return transform

    def _input_names(self) -> tuple[str, ...]:
        if self.input_args is not None:
            return self.input_args
        function = getattr(self.get_transform, "__func__", None)
        if function is None:  # any callable, which need not be hashable, set on the object
            names = _positional_parameters.__wrapped__(self.get_transform)
        else:
            names = _positional_parameters(function)[1:]  # without self
        return names if len(names) > 1 else ("image",)

    def _read(self, aug_input: "AugInput", name: str) -> Any:
        try:
            return getattr(aug_input, name)
        except AttributeError:
            raise AttributeError(
                f"{type(self).__name__}.get_transform asks for {name!r}, which the"
                f" {type(aug_input).__name__} lacks"
            ) from None

    def _rand_range(self, low: float = 1.0, high: float | None = None, size: Any = None) -> Any:
        """Uniform in [low, high), or in [0, low) when only one bound is given: a float if `size` is None."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        arguments = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            value = getattr(self, name, parameter.default)
            if value is not parameter.default:
                text = pprint.pformat(value)
                arguments.append(f"{name}={'...' if chr(10) in text else text}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    __str__ = __repr__


TransformGen = Augmentation


@functools.lru_cache(maxsize=1024)
def _positional_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of what may be given by position. To look at a signature takes as long as to flip an image."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


class _ConstantAugmentation(Augmentation):
    """A `Transform` in the place of an augmentation."""

    def __init__(self, transform: Transform):
        self.transform = transform

    def get_transform(self, *args: Any) -> Transform:
        return self.transform

    def __repr__(self) -> str:
        return repr(self.transform)


AugmentationOrTransform = Union[Augmentation, Transform]  # noqa: UP007 (fvcore's classes define no `|`)


def as_augmentation(aug: AugmentationOrTransform) -> Augmentation:
    """`aug` itself, or an augmentation that always gives this transform."""
    if isinstance(aug, Transform):
        return _ConstantAugmentation(aug)
    if isinstance(aug, Augmentation):
        return aug
    raise TypeError(f"neither an Augmentation nor a Transform: {aug!r}")


class AugmentationList(Augmentation):
    """Augmentations one after the other: each looks at what its predecessors have made of the input."""

    def __init__(self, augs: Sequence[AugmentationOrTransform]):
        self.augs = [as_augmentation(aug) for aug in augs]

    def __call__(self, aug_input: "AugInput") -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(map(repr, self.augs))}]"

    __str__ = __repr__


class AugInput:
    """What augmentations see and transform together.

    Args:
        image: (H, W) or (H, W, C), uint8 in 0-255 or floating point.
        boxes: (N, 4) xyxy boxes in absolute pixels, or None.
        sem_seg: (H, W) integer labels, or None.

    Objects beyond these are transformed afterwards with the `TransformList` that `apply_augmentations`
    returns.
    """

    def __init__(
        self, image: np.ndarray, *, boxes: np.ndarray | None = None, sem_seg: np.ndarray | None = None
    ):
        _check_image(image)
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to every field, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(self, augmentations: Sequence[AugmentationOrTransform]) -> TransformList:
        """Augment the fields in place and return what was applied."""
        return AugmentationList(augmentations)(self)


StandardAugInput = AugInput


def apply_augmentations(
    augmentations: Sequence[AugmentationOrTransform], inputs: np.ndarray | AugInput
) -> tuple[np.ndarray | AugInput, TransformList]:
    """Augment an image or an `AugInput` (the latter in place): what it became, and the transforms applied."""
    if isinstance(inputs, np.ndarray):
        aug_input = AugInput(inputs)
        transforms = aug_input.apply_augmentations(augmentations)
        return aug_input.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


apply_transform_gens = apply_augmentations


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be a numpy array, not {type(image).__name__}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"an image must hold uint8 (0-255) or floating point numbers, not {image.dtype}")
    if image.ndim not in (2, 3):
        raise TypeError(f"an image must be (H, W) or (H, W, C), not of shape {image.shape}")
