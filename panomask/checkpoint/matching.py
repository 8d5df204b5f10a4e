"""Fit a state dict to a model: what can be loaded, what is missing, unexpected or of another shape."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import nn

from panomask.errors import InputError, nearest_names

Shape = tuple[int, ...]

_FOREIGN_SHARE = 0.05
"""Above this share of known names with tensors of another kind, a file belongs to another architecture."""


_OTHER_DEPTH_SHARE = 0.2
"""Above this share of weights that only the file or only the model has in a sequence that both have."""


class IncompatibleKeys(NamedTuple):
    """What did not fit; `incorrect_shapes` holds (key, shape in the file, shape in the model)."""

    missing_keys: list[str]
    unexpected_keys: list[str]
    incorrect_shapes: list[tuple[str, Shape, Shape]]


def match_state_dict(model: nn.Module, state: dict[str, torch.Tensor]) -> IncompatibleKeys:
    """Compare names and shapes; nothing is loaded.

    Weights that the model holds under two names (shared) are missing only when both names are. What norms
    fill in themselves is not missing: the count of batches, and the statistics of a norm without parameters
    whose file has folded them into its terms (Caffe2's).
    """
    own = model.state_dict(keep_vars=True)
    wrong = [
        (key, tuple(value.shape), tuple(own[key].shape))
        for key, value in state.items()
        if key in own and not _is_lazy(own[key]) and value.shape != own[key].shape
    ]
    given = {id(own[key]) for key in state if key in own}
    missing = [
        key
        for key, value in own.items()
        if key not in state and id(value) not in given and not _is_filled_in(key, own, state)
    ]
    return IncompatibleKeys(missing, [key for key in state if key not in own], wrong)


def _is_filled_in(key: str, own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> bool:
    prefix, _, name = key.rpartition(".")
    if name == "num_batches_tracked":
        return f"{prefix}.running_mean" in state
    is_norm = name in ("running_mean", "running_var") and f"{prefix}.weight" in own
    is_fixed = is_norm and not isinstance(own[f"{prefix}.weight"], nn.Parameter)
    return is_fixed and f"{prefix}.weight" in state


def _is_lazy(value: object) -> bool:
    return isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer))


def refuse_other_model(path: str, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Raise InputError when `state` was saved from another architecture.

    A different class count changes only the first dimension of a few tensors, and a new input channel or RoI
    size one tensor: those are re-initialised by the caller. A file with no name in common, with fewer fitting
    than unfitting tensors, with more than 5 % of the known names of another kind, or of another depth is
    refused.
    """
    keys = match_state_dict(model, state)
    num_known = len(state) - len(keys.unexpected_keys)
    num_fitting = num_known - len(keys.incorrect_shapes)
    foreign = [item for item in keys.incorrect_shapes if item[1][1:] != item[2][1:]]
    if num_known == 0:
        example = next(iter(state))
        near = nearest_names(example, model.state_dict(), count=1) or [
            next(iter(model.state_dict()), "nothing")
        ]
        found = (
            f"none of its {len(state)} weights is known to the model "
            f"(it has {example!r}, the model {near[0]!r})"
        )
    elif num_fitting < len(keys.incorrect_shapes) or len(foreign) > max(1, _FOREIGN_SHARE * num_known):
        key, shape_file, shape_model = (foreign or keys.incorrect_shapes)[0]
        found = (
            f"{len(keys.incorrect_shapes)} of {num_known} weights have other shapes "
            f"({key}: {shape_file} in the file, {shape_model} in the model)"
        )
    else:
        found = _other_depth(state, model.state_dict())
        if not found:
            return
    raise InputError(f"{path}: a checkpoint of another model: {found}; use the config it was trained with")


def _other_depth(state: Collection[str], own: Collection[str]) -> str:
    """How sequences of blocks differ in length, if a fifth of all weights hang on it; "" otherwise.

    Such a file fits by names and shapes alone: the blocks of a ResNet-101 begin as those of a ResNet-50 do.
    """
    blocks: tuple[dict[str, set[str]], ...] = (defaultdict(set), defaultdict(set))
    for keys, indices in zip((state, own), blocks, strict=True):
        for key in keys:
            for match in re.finditer(r"\.(\d+)\.", key):
                indices[key[: match.start()]].add(match[1])
    longest = {name: len(blocks[0][name]) - len(blocks[1][name]) for name in blocks[0].keys() & blocks[1]}
    other = [name for name, difference in longest.items() if difference]
    beginnings = tuple(f"{name}." for name in other)
    alone = sum(key.startswith(beginnings) for key in set(state) ^ set(own)) if other else 0
    if alone <= _OTHER_DEPTH_SHARE * max(len(state), len(own)):
        return ""
    name = max(other, key=lambda name: abs(longest[name]))
    return f"{name} has {len(blocks[0][name])} blocks in the file, {len(blocks[1][name])} in the model"


def require_match(path: str, model: nn.Module, keys: IncompatibleKeys, *, exact: bool) -> None:
    """Raise InputError unless every parameter of `model` is in the file with its shape.

    Args:
        path: the file's name, for the message.
        model: the model to be filled.
        keys: from `match_state_dict`.
        exact: buffers must be there too, and nothing else.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = [key for key in keys.missing_keys if exact or key in parameters]
    unexpected = keys.unexpected_keys if exact else []
    if keys.incorrect_shapes:
        key, shape_file, shape_model = keys.incorrect_shapes[0]
        counts = describe_class_counts(keys)
        found = (
            f"{len(keys.incorrect_shapes)} weights have other shapes, first {key}: {shape_file} in the file, "
            f"{shape_model} in the model"
        )
        if counts:
            found = f"{counts} ({found})"
        elif all(in_file[1:] == in_model[1:] for _, in_file, in_model in keys.incorrect_shapes):
            found += " (another number of classes?)"
    elif missing:
        found = f"{len(missing)} weights of the model are not in the file, first {missing[0]}"
    elif unexpected:
        found = f"{len(unexpected)} weights in the file are unknown to the model, first {unexpected[0]}"
    else:
        return
    remedy = "resume with the config of that run, or load it by MODEL.WEIGHTS without --resume"
    if not exact:
        remedy = "evaluate with the config that the checkpoint was trained with"
    raise InputError(f"{path}: does not fit the model: {found}; {remedy}")


def describe_class_counts(keys: IncompatibleKeys) -> str:
    """ "6 classes in the checkpoint, 2 in the model", if they differ in that, or in keypoints; "" otherwise.

    Read off the linear classifier `cls_score`, which has a row for each class and one for the background, and
    off the transposed convolution `score_lowres`, which has an output for each keypoint.
    """
    found: dict[str, str] = {}
    for key, in_file, in_model in keys.incorrect_shapes:
        if key.endswith("cls_score.weight") and len(in_file) == 2 and in_file[1:] == in_model[1:]:
            found["classes"] = f"{in_file[0] - 1} classes in the checkpoint, {in_model[0] - 1} in the model"
        if key.endswith("score_lowres.weight") and len(in_file) == 4 and in_file[0] == in_model[0]:
            found["keypoints"] = f"{in_file[1]} keypoints in the checkpoint, {in_model[1]} in the model"
    return "; ".join(found.values())


def describe_match(num_loaded: int, keys: IncompatibleKeys) -> str:
    """One table: how many weights were loaded, and which were not and why."""
    rows = [["loaded", num_loaded, ""]]
    missing, unexpected = keys.missing_keys, keys.unexpected_keys
    rows += _rows("missing in the file (kept as initialised)", _grouped(missing), len(missing))
    rows += _rows("unknown to the model (not used)", _grouped(unexpected), len(unexpected))
    shapes = [f"{key}: {in_file} in the file, {here} here" for key, in_file, here in keys.incorrect_shapes]
    rows += _rows("other shape (kept as initialised)", shapes, len(shapes))
    return tabulate(rows, headers=["weights", "count", "which"], tablefmt="simple")


def _grouped(keys: list[str]) -> list[str]:
    """One text a module: `backbone.fpn_lateral2.{bias, weight}`."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        module, _, name = key.rpartition(".")
        groups[module].append(name)
    lines = []
    for module, names in groups.items():
        text = names[0] if len(names) == 1 else "{" + ", ".join(names) + "}"
        lines.append(f"{module}.{text}" if module else text)
    return lines


def _rows(title: str, lines: list[str], count: int, limit: int = 12) -> list[list]:
    """Rows of the table for one kind of weights, at most `limit`; title and count stand in the first."""
    if len(lines) > limit:
        lines = [*lines[: limit - 1], f"... and {len(lines) - limit + 1} lines more"]
    return [[title if i == 0 else "", count if i == 0 else "", line] for i, line in enumerate(lines)]
