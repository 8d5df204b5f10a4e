"""COCO's matching of detections to objects, for all images and categories at once.

What pycocotools does for one image, category, area range and threshold after another, best detection first,
is done here in rounds: the first takes the best detection of every image and category, for all ranges and
thresholds, the second the next best, and so on. Only pairs that overlap enough to be matched take part; half
a million detections have some 100 000 of them.

N detections, G objects, P pairs of both that are of one group (an image and a category), C detections that
overlap an object enough, T IoU thresholds, A area ranges.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

PAIRS_AT_A_TIME = 500_000
"""Bounds the memory: of that many pairs, some 200 MB."""

COUNTED = 2**30
"""Added to an object's place so that it goes before all that need not be found."""

Overlaps = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Indices of detections and of objects, (P,) each -> how much they overlap, (P,); NaN is no match."""


@dataclass(frozen=True)
class Objects:
    """The truth, sorted by group; within a group the later one is matched if two overlap equally."""

    group: np.ndarray  # (G,)
    area: np.ndarray  # (G,)
    is_crowd: np.ndarray  # (G,) may be matched again and again
    is_ignored: np.ndarray  # (G,) need not be found; crowds are among them

    def counts_in(self, area_ranges: np.ndarray) -> np.ndarray:
        """Whether an object is to be found among those of an area range: (G, A)."""
        return ~(self.is_ignored[:, None] | is_outside(self.area, area_ranges))

    def chosen(self, keep: np.ndarray) -> "Objects":
        """Those of the indices or flags `keep`, which leave the order as it is."""
        return Objects(self.group[keep], self.area[keep], self.is_crowd[keep], self.is_ignored[keep])


@dataclass(frozen=True)
class Detections:
    """Sorted by group and, within a group, from the best score to the worst."""

    group: np.ndarray  # (N,)
    score: np.ndarray  # (N,)
    area: np.ndarray  # (N,)
    is_excused: np.ndarray  # (N,) no error, even if nothing matches

    @property
    def rank(self) -> np.ndarray:
        """The place in the group, 0 for the best: (N,)."""
        return _places(self.group)

    def chosen(self, keep: np.ndarray) -> "Detections":
        """Those of the indices or flags `keep`, which leave the order as it is."""
        return Detections(self.group[keep], self.score[keep], self.area[keep], self.is_excused[keep])


@dataclass(frozen=True)
class Matches:
    """The detections that overlap an object by the smallest threshold at least, and what became of them."""

    detection: np.ndarray  # (C,) ascending
    is_matched: np.ndarray  # (C, A, T)
    is_ignored: np.ndarray  # (C, A, T) matched, but to something that need not be found


def is_outside(area: np.ndarray, area_ranges: np.ndarray) -> np.ndarray:
    """(G,) areas, (A, 2) smallest and largest -> (G, A)."""
    return (area[:, None] < area_ranges[:, 0]) | (area[:, None] > area_ranges[:, 1])


def match(
    detections: Detections,
    objects: Objects,
    overlaps: Overlaps,
    *,
    thresholds: Sequence[float],
    area_ranges: np.ndarray,
) -> Matches:
    """Match by COCO's rule: every detection, best first, takes the object that it overlaps most.

    An object that is to be found goes before one that need not be, and is taken once.

    Args:
        thresholds: (T,) ascending or not.
        area_ranges: (A, 2) smallest and largest area, both included.
    """
    limits = np.minimum(thresholds, 1 - 1e-10)  # as pycocotools: an overlap of 1 may be a little less
    shape = (len(area_ranges), len(limits))
    detection, places = [np.zeros(0, np.int64)], [np.zeros((0, *shape), np.int32)]
    counts = objects.counts_in(area_ranges)
    for pair in _pairs(detections.group, objects.group):
        overlap = overlaps(*pair)
        enough = np.flatnonzero(overlap >= limits.min(initial=np.inf))
        if len(enough):
            rounds = _in_rounds(detections.group, pair[0][enough], pair[1][enough], overlap[enough])
            places.append(_play(rounds, is_crowd=objects.is_crowd, counts=counts, limits=limits))
            detection.append(rounds.detection)
    place = np.concatenate(places)  # (C, A, T)
    return Matches(np.concatenate(detection), place > 0, (place > 0) & (place < COUNTED))


def _pairs(group: np.ndarray, object_group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of all detections and objects of the same group, in pieces made of whole groups."""
    first = np.asarray(np.searchsorted(object_group, group, side="left"))
    partners = np.searchsorted(object_group, group, side="right") - first  # (N,)
    detection = np.flatnonzero(partners)
    first, partners = first[detection], partners[detection]
    starts = np.flatnonzero(np.diff(group[detection], prepend=-1))  # where a group begins
    total = np.concatenate([[0], np.cumsum(partners)])
    piece = total[starts] // PAIRS_AT_A_TIME
    cuts = starts[np.flatnonzero(np.diff(piece, prepend=-1))]
    for start, stop in pairwise([*cuts, len(detection)]):
        number = partners[start:stop]
        yield (
            np.repeat(detection[start:stop], number),
            np.repeat(first[start:stop], number) + ranges(number),
        )


def ranges(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each length n, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


@dataclass(frozen=True)
class _Rounds:
    """Pairs in the order of the rounds in which their detections have their turn."""

    detection: np.ndarray  # (C,) ascending, not by round
    by_round: np.ndarray  # (C,) the order of these by round
    starts: list[int]  # (rounds + 1,) where the detections of each round begin, by round
    first_pair: np.ndarray  # (C + 1,) of each detection, by round
    object: np.ndarray  # (P,)
    overlap: np.ndarray  # (P,)
    place: np.ndarray  # (P,) 1 for the object that its detection overlaps least, 2 for the next


def _in_rounds(group: np.ndarray, detection: np.ndarray, object_: np.ndarray, overlap: np.ndarray) -> _Rounds:
    """Sort pairs, which are sorted by detection and are all of their groups."""
    first = np.flatnonzero(np.diff(detection, prepend=-1))
    candidates = detection[first]
    turn = _places(group[candidates])  # (C,)
    by_round = np.argsort(turn, kind="stable")
    num_objects = np.diff(np.append(first, len(detection)))  # (C,)
    order = np.lexsort((object_, overlap, detection, np.repeat(turn, num_objects)))
    return _Rounds(
        candidates,
        by_round,
        np.append(0, np.cumsum(np.bincount(turn))).tolist(),
        np.append(0, np.cumsum(num_objects[by_round])),
        object_[order],
        overlap[order],
        ranges(num_objects[by_round]) + 1,
    )


def _play(rounds: _Rounds, *, is_crowd: np.ndarray, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The place (C, A, T) of the object that each detection takes, plus COUNTED if it counts; 0 for none."""
    seen, objects = np.unique(rounds.object, return_inverse=True)
    is_crowd, counts = is_crowd[seen], counts[seen]
    shape = (counts.shape[1], len(limits))
    is_taken = np.zeros((len(seen), *shape), bool)
    places = np.empty((len(rounds.detection), *shape), np.int32)
    for start, stop in pairwise(rounds.starts):
        first = rounds.first_pair[start:stop]
        pairs = slice(first[0], rounds.first_pair[stop])
        partner = objects[pairs]
        is_possible = ~is_taken[partner] | is_crowd[partner, None, None]  # (pairs, A, T)
        is_possible &= (rounds.overlap[pairs, None] >= limits)[:, None]
        value = (rounds.place[pairs, None] + COUNTED * counts[partner]).astype(np.int32)  # (pairs, A)
        best = np.maximum.reduceat(value[..., None] * is_possible, first - first[0])  # (detections, A, T)
        taker, area, threshold = np.nonzero(best)
        taken = objects[first[taker] + best[taker, area, threshold] % COUNTED - 1]
        is_taken[taken, area, threshold] = True
        places[rounds.by_round[start:stop]] = best
    return places


def _places(group: np.ndarray) -> np.ndarray:
    """Of each entry of a sorted array, how many equal ones are before it."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return ranges(np.diff(np.append(starts, len(group))))
