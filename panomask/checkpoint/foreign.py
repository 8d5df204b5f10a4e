"""Recognise by their names which program wrote the weights, and translate them to our names and layout."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence

import torch

from panomask.checkpoint import torchvision_names
from panomask.checkpoint.alignment import match_by_suffix
from panomask.checkpoint.caffe2_names import convert_c2_detectron_names, is_caffe2
from panomask.errors import InputError

State = Mapping[str, torch.Tensor]

_CLASSIFIER = "roi_heads.box_predictor.cls_score.weight"

_ANCHORS = "anchor_generator.cell_anchors."
_NO_WEIGHTS = ("pixel_mean", "pixel_std", _ANCHORS, f"proposal_generator.{_ANCHORS}")
"""What Detectron2's older files hold besides weights; here the config says it."""


def translate(state: State, num_classes: int | None = None) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Caffe2's, Detectron1's and torchvision's names and layout in ours; others stay as they are.

    Args:
        state: weights as read.
        num_classes: of the model to be filled, if known.

    Returns:
        (weights, sentences on what was done and what the config must say)

    Raises:
        InputError: names of another program, but not its layout.
    """
    try:
        return _translate(state, num_classes)
    except (KeyError, IndexError, RuntimeError) as error:  # from a head without its classifier, or cut short
        raise InputError(
            "has the names of Caffe2 or torchvision, but the heads of box classifier, boxes and masks do not "
            f"have the same classes ({type(error).__name__}: {' '.join(str(error).split())}); "
            "leave these heads out of the file, or give the whole file"
        ) from error


def _translate(state: State, num_classes: int | None) -> tuple[dict[str, torch.Tensor], list[str]]:
    if is_caffe2(list(state)):
        weights = {key: value for key, value in state.items() if not key.endswith("_momentum")}
        renamed, _ = convert_c2_detectron_names(weights)
        return renamed, ["names of Caffe2 became ours"]
    if torchvision_names.is_detector(state):
        return torchvision_names.convert_detector(state, num_classes)
    if torchvision_names.is_resnet(state):
        return torchvision_names.convert_resnet(state)
    return dict(state), []


def fit_names(
    path: str, state: State, model_state: State, *, by_suffix: bool = False
) -> tuple[OrderedDict[str, torch.Tensor], list[str]]:
    """Weights of any program under the names of a model.

    Args:
        path: the file's name, for messages.
        state: weights as read.
        model_state: the state dict of the model.
        by_suffix: let names of the file match endings of the model's names also where some match whole.
            Translated names, and a file of which no name is known, are matched so in any case.

    Returns:
        (weights, of which those without a place keep their names; sentences on what was done)
    """
    state, front_notes = _without_front(state, model_state)
    try:
        weights, notes = _translated_for(state, model_state)
        is_translated = bool(notes)
        weights = {
            key: value
            for key, value in weights.items()
            if key in model_state or not key.startswith(_NO_WEIGHTS)
        }
        notes = front_notes + notes
        if not by_suffix and not is_translated and not model_state.keys().isdisjoint(weights):
            return _without_counts(weights, model_state), notes
        names = match_by_suffix(model_state, weights)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    prefixes = {own.removesuffix(key) for key, own in names.items() if own != key}
    if prefixes:
        notes = [*notes, f"names were completed by {', '.join(sorted(prefixes)[:4])}"]
    fronts = _fronts(names)
    renamed = {names.get(key, fronts.get(key.split(".")[0], "") + key): weights[key] for key in weights}
    return _without_counts(renamed, model_state), notes


def fit_names_of_networks(
    path: str, state: State, model_state: State, fronts: Sequence[str], *, by_suffix: bool = False
) -> tuple[OrderedDict[str, torch.Tensor], list[str]]:
    """`fit_names` for a model of several networks, each of which starts from the file as if it were alone.

    Args:
        path, state, model_state, by_suffix: of `fit_names`.
        fronts: what stands before the names of each network, such as "detector."; none: one network.
    """
    if not fronts or not model_state.keys().isdisjoint(state):
        return fit_names(path, state, model_state, by_suffix=by_suffix)
    fitted: OrderedDict[str, torch.Tensor] = OrderedDict()
    unplaced: list[set[str]] = []
    notes: list[str] = []
    for front in fronts:
        own = {key.removeprefix(front): value for key, value in model_state.items() if key.startswith(front)}
        weights, found = fit_names(path, state, own, by_suffix=by_suffix)
        fitted.update((front + key, value) for key, value in weights.items() if key in own)
        unplaced.append(weights.keys() - own.keys())
        notes += [f"{front.rstrip('.')}: {note}" for note in found]
    # What no network has a place for keeps its name, so that the table says that it is left.
    fitted.update((key, weights[key]) for key in weights if all(key in names for names in unplaced))
    return fitted, notes


def _without_front(state: State, model_state: State) -> tuple[State, list[str]]:
    """Drop what stands before all names, such as the `model.` of what was part of a LightningModule."""
    fronts = {key.partition(".")[0] for key in state}
    if len(fronts) > 1 or not model_state.keys().isdisjoint(state):
        return state, []
    front = f"{fronts.pop()}."
    shortened = {key.removeprefix(front): value for key, value in state.items()}
    if model_state.keys().isdisjoint(shortened):
        return state, []
    return shortened, [f"names lost the {front!r} in front"]


def _translated_for(state: State, model_state: State) -> tuple[dict[str, torch.Tensor], list[str]]:
    """`translate`, unless the model itself has the names of the other program, say in a backbone of timm."""
    num_known = sum(key in model_state for key in state)
    if 2 * num_known >= len(state):
        return dict(state), []
    classifier = model_state.get(_CLASSIFIER)
    weights, notes = translate(state, None if classifier is None else classifier.shape[0] - 1)
    if notes and not match_by_suffix(model_state, weights) and match_by_suffix(model_state, state):
        return dict(state), []
    return weights, notes


def _without_counts(weights: State, model_state: State) -> OrderedDict[str, torch.Tensor]:
    """Leave out how many batches a norm had seen where the model's norm, being frozen, does not keep it."""
    return OrderedDict(
        (key, value)
        for key, value in weights.items()
        if not key.endswith(".num_batches_tracked")
        or key in model_state
        or key.replace("num_batches_tracked", "running_mean") not in model_state
    )


def _fronts(names: Mapping[str, str]) -> dict[str, str]:
    """First part of a name in the file -> what all matched names with that first part got in front.

    A block that the model lacks is then named beside those that it has: `backbone.bottom_up.res4.22`.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for key, own in names.items():
        found[key.split(".")[0]].add(own.removesuffix(key))
    return {first: fronts.pop() for first, fronts in found.items() if len(fronts) == 1}
