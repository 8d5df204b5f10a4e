"""Which keypoints a data set has: their names, the pairs that a mirror swaps, their sigmas of OKS."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from panomask.data.catalog import Metadata, MetadataCatalog
from panomask.data.datasets.coco_categories import (
    add_keypoint_metadata,
    is_name_list,
    read_coco_categories,
)
from panomask.data.datasets.keypoint_sides import find_flip_pairs
from panomask.errors import InputError, nearest_names
from panomask.structures.keypoints import default_oks_sigmas


@dataclass(frozen=True)
class KeypointLayout:
    """The keypoints of a data set.

    Attributes:
        names: in the order of the annotations.
        flip_pairs: (left, right) names; all others stay themselves when the image is mirrored.
        oks_sigmas: one a name; None where nothing says them.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...]
    oks_sigmas: tuple[float, ...] | None

    def hflip_indices(self) -> list[int]:
        """Where each keypoint of a mirrored image comes from: `mirrored = points[indices]`."""
        partner = dict(self.flip_pairs) | {right: left for left, right in self.flip_pairs}
        return [self.names.index(partner.get(name, name)) for name in self.names]


def keypoint_layout_of(dataset_name: str) -> KeypointLayout:
    """The keypoints of a registered data set, from its metadata or its annotation file's categories.

    The metadata hold `keypoint_names`, `keypoint_flip_map` and (ours) `keypoint_oks_sigmas`. What they lack
    comes from the file or else, for pairs, from the names and, for COCO's keypoints, from COCO's sigmas.

    Raises:
        InputError: the data set has no keypoints, or what is known of them does not fit together.
    """
    metadata = MetadataCatalog.get(dataset_name)
    names = _names_of(metadata)
    stated_pairs = metadata.get("keypoint_flip_map")
    stated_sigmas = metadata.get("keypoint_oks_sigmas")
    pairs = find_flip_pairs(names) if stated_pairs is None else stated_pairs
    sigmas = default_oks_sigmas(names) if stated_sigmas is None else stated_sigmas
    return KeypointLayout(
        tuple(names),
        _checked_pairs(pairs, names, dataset_name),
        None if sigmas is None else _checked_sigmas(sigmas, names, dataset_name),
    )


def common_keypoint_layout(dataset_names: Sequence[str]) -> KeypointLayout:
    """The layout that all the data sets share; their sigmas may differ, and those of the first are returned.

    Raises:
        InputError: one has no keypoints, or two have others, in another order or with other pairs.
    """
    first, *others = (keypoint_layout_of(name) for name in dataset_names)
    for name, other in zip(dataset_names[1:], others, strict=True):
        where = f"data sets {dataset_names[0]!r} and {name!r} differ in"
        if other.names != first.names:
            raise InputError(
                f"{where} keypoint_names: {len(first.names)} ({_brief(first.names)}) against"
                f" {len(other.names)} ({_brief(other.names)}); a keypoint head learns one set of keypoints"
            )
        if other.hflip_indices() != first.hflip_indices():
            raise InputError(
                f"{where} keypoint_flip_map: {list(first.flip_pairs)} against {list(other.flip_pairs)}; only"
                " data sets that agree can be used together"
            )
    return first


def _names_of(metadata: Metadata) -> list[str]:
    json_file = metadata.get("json_file")
    # A built-in data set is known without its file, which may not be there yet.
    is_readable = json_file is not None and (
        metadata.get("thing_classes") is None or Path(json_file).is_file()
    )
    if metadata.get("keypoint_names") is None and is_readable:
        categories = read_coco_categories(json_file)
        for category in categories:
            if category.get("keypoints") and not is_name_list(category["keypoints"]):
                raise InputError(
                    f'{json_file}: category {category["name"]!r}: "keypoints" is'
                    f" {category['keypoints']!r:.80}; it must be a list of names that all differ"
                )
        add_keypoint_metadata(metadata, categories)
        declaring = [c["name"] for c in categories if is_name_list(c.get("keypoints"))]
        if metadata.get("keypoint_names") is None and declaring:
            raise InputError(
                f"{json_file}: categories {_brief(declaring)} declare different keypoints or sigmas; a"
                ' keypoint head predicts one set: give them the same "keypoints", or one data set each'
            )
    names = metadata.get("keypoint_names")
    if names is None:
        where = (
            f'{json_file}: no category has "keypoints"' if json_file else "its metadata: no keypoint_names"
        )
        raise InputError(
            f"data set {metadata.name!r} declares no keypoints ({where}); add their names there, or train"
            " without keypoints (MODEL.KEYPOINT_ON False)"
        )
    return list(names)


def _checked_sigmas(sigmas: Sequence[float], names: Sequence[str], dataset_name: str) -> tuple[float, ...]:
    is_fit = len(sigmas) == len(names) and all(
        isinstance(sigma, int | float) and 0 < sigma < math.inf for sigma in sigmas
    )
    if not is_fit:
        raise InputError(
            f"data set {dataset_name!r} has {len(names)} keypoints ({_brief(names)}), but its OKS sigmas"
            f" (keypoint_oks_sigmas) are {list(sigmas)}; give a number above 0 for each keypoint"
        )
    return tuple(map(float, sigmas))


def _checked_pairs(
    pairs: Sequence[Sequence[str]], names: Sequence[str], dataset_name: str
) -> tuple[tuple[str, str], ...]:
    seen: set[str] = set()
    for pair in pairs:
        where = (
            f"flip pair {list(pair)} of data set {dataset_name!r} (keypoint_flip_map, KEYPOINT_FLIP_PAIRS)"
        )
        for name in pair:
            if name not in names:
                near = ", ".join(nearest_names(name, names) or names)
                raise InputError(f"{where}: there is no keypoint {name!r}; known: {near}")
            if name in seen:
                raise InputError(f"{where}: {name!r} is in another pair too; a keypoint has one partner")
            seen.add(name)
    return tuple((left, right) for left, right in pairs)


def _brief(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
