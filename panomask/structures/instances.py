"""What is known about the objects of one image."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Instances:
    """Named fields of equal length, one entry an object: boxes, classes, masks, scores, ...

    Fields are read and written as attributes. A field is a tensor, or anything with `len` and indexing
    (`Boxes`, masks, `Keypoints`, a list). Indexing picks objects out of all fields at once:
    `instances[instances.scores > 0.9]`.

    Args:
        image_size: (height, width) of the image that the fields refer to.
        kwargs: the first fields.
    """

    _fields: dict[str, Any]
    _image_size: tuple[int, int]

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})  # absent while an object is copied or unpickled
        if name not in fields:
            raise AttributeError(f"Instances has no field {name!r}; it has: {', '.join(fields) or 'none'}")
        return fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field `name`; as long as the other fields, if there are any."""
        if self._fields:
            assert len(value) == len(self), (
                f"field {name!r} has {len(value)} entries, the Instances {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Is there a field `name`?"""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Delete the field `name`."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """The field `name`."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Name -> field. Changing the dict changes the Instances."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """New Instances whose fields went through their `to(...)`, where they have one."""
        out = Instances(self._image_size)
        for name, value in self._fields.items():
            out.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return out

    def pin_memory(self) -> "Instances":
        """New Instances whose fields went through their `pin_memory()`, where they have one.

        torch's loaders call this where there is a GPU, which then copies the fields by itself.
        """
        out = Instances(self._image_size)
        for name, value in self._fields.items():
            out.set(name, value.pin_memory() if hasattr(value, "pin_memory") else value)
        return out

    def __getitem__(self, item: Any) -> "Instances":
        """The objects at an int (gives Instances of length 1), a slice, or an index or mask tensor."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} into Instances of length {len(self)}")
            item = slice(item, item + 1 or None)
        if isinstance(item, Tensor) and item.dtype == torch.bool and item.dim() == 1 and self._fields:
            if len(item) != len(self):
                raise IndexError(f"a mask of length {len(item)} into Instances of length {len(self)}")
            item = item.nonzero()[:, 0]  # once: every field would wait for the device to count the mask
        out = Instances(self._image_size)
        for name, value in self._fields.items():
            out.set(name, value[item])
        return out

    def __len__(self) -> int:
        """Number of objects. Without any field it is unknown."""
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length")

    def __iter__(self) -> Any:
        raise NotImplementedError("Instances cannot be iterated; index them, or iterate over a field")

    @staticmethod
    def cat(instance_lists: Sequence["Instances"]) -> "Instances":
        """The objects of several Instances of the same image size and fields, one after the other."""
        assert len(instance_lists) > 0
        assert all(isinstance(each, Instances) for each in instance_lists)
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        assert all(each.image_size == first.image_size for each in instance_lists), "image sizes differ"
        out = Instances(first.image_size)
        for name in first._fields:
            out.set(name, _concatenate([each.get(name) for each in instance_lists]))
        return out

    def __repr__(self) -> str:
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        height, width = self._image_size
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, fields=[{fields}])"
        )


def _concatenate(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, list):
        return list(itertools.chain(*values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise ValueError(f"do not know how to concatenate fields of type {type(first).__name__}")
