"""Precision over recall from matched detections, as pycocotools accumulates it.

Precision and recall rise at a right detection and nowhere else, so the curves are known from these alone.

N detections, C those that overlap an object enough, K categories, T IoU thresholds, R recall points, A area
ranges, M limits on the detections of an image and category. n and c are N and C of one category.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from panomask.evaluation.coco_matching import Detections, Matches, Objects, is_outside


@dataclass(frozen=True)
class Curves:
    """-1 where there is nothing to find."""

    precision: np.ndarray  # (T, R, K, A, M) the best at this recall or a higher one
    recall: np.ndarray  # (T, K, A, M) of all detections
    scores: np.ndarray  # (T, R, K, A, M) of the detection that reaches this recall


@dataclass(frozen=True)
class _Ranking:
    """The detections of a category from the best to the worst, those that may match apart."""

    score: np.ndarray  # (n,)
    rank: np.ndarray  # (n,)
    is_error: np.ndarray  # (n, A) if nothing matches
    position: np.ndarray  # (c,) of those that may match
    is_matched: np.ndarray  # (c, A, T)
    is_ignored: np.ndarray  # (c, A, T)

    def limited(self, limit: int) -> "_Ranking":
        """Without what is beyond the limit."""
        keep = self.rank < limit
        if keep.all():
            return self
        kept = keep[self.position]
        position = (np.cumsum(keep) - 1)[self.position[kept]]
        rows = (self.score[keep], self.rank[keep], self.is_error[keep])
        return _Ranking(*rows, position, self.is_matched[kept], self.is_ignored[kept])

    def errors(self) -> np.ndarray:
        """How many errors there are up to and including each that may match: (c, A, T)."""
        if_none_matched = np.cumsum(self.is_error, axis=0)[self.position]  # (c, A)
        no_errors = self.is_matched & self.is_error[self.position][..., None]
        return if_none_matched[..., None] - np.cumsum(no_errors, axis=0)


def precision_recall(
    detections: Detections,
    objects: Objects,
    matches: Matches,
    *,
    num_categories: int,
    num_images: int,
    recalls: np.ndarray,
    area_ranges: np.ndarray,
    limits: Sequence[int],
) -> Curves:
    """The curves of all categories; a group is category * num_images + image.

    Args:
        recalls: (R,) ascending.
        area_ranges: (A, 2).
        limits: (M,) how many detections of a group count, best first.
    """
    num_thresholds = matches.is_matched.shape[2]
    shape = (num_categories, len(area_ranges), len(limits))
    precision = np.full((num_thresholds, len(recalls), *shape), -1.0)
    recall, scores = np.full((num_thresholds, *shape), -1.0), precision.copy()
    to_find = _numbers_to_find(objects, num_categories, num_images, area_ranges)  # (K, A)
    for k, ranking in enumerate(_rankings(detections, matches, num_categories, num_images, area_ranges)):
        areas = np.flatnonzero(to_find[k])
        needed = [_numbers_needed(n, recalls) for n in to_find[k, areas]]
        for m, limit in enumerate(limits if len(areas) else ()):
            limited = ranking.limited(limit)
            found = limited.is_matched & ~limited.is_ignored  # (c, A, T)
            num_found = np.cumsum(found, axis=0)
            best = num_found / (limited.errors() + num_found + np.spacing(1))
            for a, need in zip(areas, needed, strict=True):
                recall[:, k, a, m] = found[:, a].sum(axis=0) / to_find[k, a]
                for t in range(num_thresholds):
                    hits = np.flatnonzero(found[:, a, t])
                    curve = _curve(best[hits, a, t], limited.score[limited.position[hits]], need)
                    precision[t, :, k, a, m], scores[t, :, k, a, m] = curve
                if len(limited.score):  # recall 0 is reached by the first detection, right or wrong
                    scores[:, recalls <= 0, k, a, m] = limited.score[0]
    return Curves(precision, recall, scores)


def _numbers_needed(to_find: int, recalls: np.ndarray) -> np.ndarray:
    """How many objects less one are to be found for each recall: (R,)."""
    return np.asarray(np.searchsorted(np.arange(1, to_find + 1) / to_find, recalls))


def _curve(precision: np.ndarray, score: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Precision and score (2, R) where `needed` + 1 objects are found; 0 where never so many are."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    is_reached = needed < len(envelope)
    curve = np.zeros((2, len(needed)))
    curve[:, is_reached] = envelope[needed[is_reached]], score[needed[is_reached]]
    return curve


def _numbers_to_find(
    objects: Objects, num_categories: int, num_images: int, area_ranges: np.ndarray
) -> np.ndarray:
    """(K, A)."""
    numbers = np.zeros((num_categories, len(area_ranges)), np.int64)
    np.add.at(numbers, objects.group // max(num_images, 1), objects.counts_in(area_ranges))
    return numbers


def _rankings(
    detections: Detections, matches: Matches, num_categories: int, num_images: int, area_ranges: np.ndarray
) -> Iterator[_Ranking]:
    first_groups = np.arange(num_categories + 1) * num_images
    ends = np.asarray(np.searchsorted(detections.group, first_groups))
    match_ends = np.asarray(np.searchsorted(matches.detection, ends))
    rank = detections.rank
    for k in range(num_categories):
        rows, may_match = slice(ends[k], ends[k + 1]), slice(match_ends[k], match_ends[k + 1])
        order = np.argsort(-detections.score[rows], kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        position = place[matches.detection[may_match] - ends[k]]
        by_position = np.argsort(position)
        is_error = ~is_outside(detections.area[rows], area_ranges)
        is_error &= ~detections.is_excused[rows, None]
        yield _Ranking(
            detections.score[rows][order],
            rank[rows][order],
            is_error[order],
            position[by_position],
            matches.is_matched[may_match][by_position],
            matches.is_ignored[may_match][by_position],
        )
