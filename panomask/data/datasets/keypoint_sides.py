"""Which keypoints swap when an image is mirrored, told from names such as `left_eye` and `right_eye`."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"(?i:left|right)|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of names that differ in their side alone, left one first.

    A name is cut into words at spaces, signs, digits and changes of case, and after a leading left or right:
    left_eye, eye_left, Left Eye, leftEye, lefteye, eye.L, L_Eye, LEye, l_eye. A side is a word left or right
    or, beside other words, l or r; the case of letters does not matter.
    """
    words_of = {name: _words(name) for name in names}
    counts = Counter(words_of.values())
    by_words = {words: name for name, words in words_of.items() if counts[words] == 1}
    return [
        (name, by_words[_mirrored(words)])
        for words, name in by_words.items()
        if _is_left(words) and _mirrored(words) in by_words
    ]


def doubtful_pairs(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of names that a person might read as left and right, too doubtful to be swapped unasked.

    They are in none of the `pairs` and differ in one l and r, or left and right, somewhere: lknee and rknee,
    but also lip and rip.
    """
    paired = {name for pair in pairs for name in pair}
    free = [name for name in names if name not in paired]
    return [(left, right) for left in free for right in _with_one_side_changed(left) if right in free]


def _with_one_side_changed(name: str) -> set[str]:
    sides = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
    return {
        name[: match.start()] + right + name[match.end() :]
        for left, right in sides
        for match in re.finditer(left, name)
    }


def one_sided_names(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names that say left or right in full and are in none of the `pairs`."""
    paired = {name for pair in pairs for name in pair}
    return [name for name in names if name not in paired and {"left", "right"} & set(_words(name))]


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_OTHER_SIDE.get(word, word) for word in words)


def _is_left(words: tuple[str, ...]) -> bool:
    """Whether the first side that the words name is the left one."""
    sides = [word for word in words if word in _OTHER_SIDE]
    return words != ("l",) and sides[:1] in (["left"], ["l"])
