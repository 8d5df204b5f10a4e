"""RLE that pycocotools would not survive is found before it gets there, and what it makes itself passes."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.evaluation import coco_masks
from panomask.evaluation.coco_masks import are_readable, fill_their_images, rle_areas, rle_boxes, to_rle

SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4


def test_none_for_no_mask():
    assert to_rle(None, 4, 4) is None
    assert to_rle([], 4, 4) is None
    assert to_rle([[1, 1, 2, 2]], 4, 4) is None  # two points; pycocotools would take them for a box
    with pytest.raises(ValueError, match="'height' and 'width'"):
        to_rle([SQUARE], None, None)


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ([[1e9] * 6], "numbers .x, y, ...."),
        ([[float("nan")] * 6], "numbers .x, y, ...."),
        ([["1"] * 6], "numbers .x, y, ...."),
        ({"size": [4, 4], "counts": [20, -4]}, "whole numbers from 0 on"),
        ({"size": [4, 4], "counts": [20]}, "20 pixels, its size is 4 x 4"),
        ({"size": [4, 4], "counts": None}, "whole numbers from 0 on"),
        ({"size": [4], "counts": "1"}, "the size .4. of a mask"),
        ({"size": [4.0, 4], "counts": "1"}, "the size"),
        ({"size": [0, 4], "counts": "1"}, "the size"),
        ({"size": None, "counts": "1"}, "the size None"),
        ({"size": [2**20, 2**20], "counts": "1"}, "too large"),
    ],
)
def test_hostile_segmentations_are_refused(segmentation, message):
    with pytest.raises(ValueError, match=message) as error:
        to_rle(segmentation, 4, 4)
    assert "\n" not in str(error.value)


def test_by_hand():
    """2 x 3 pixels: 1 of background, 3, 2. A fourth number is added to the last but one, here to 3."""
    texts = {
        "132": True,
        "1320": False,  # 3 + 0 pixels more
        "132M": True,  # 77 - 48 = 29, that is -3 in five bits: a run of 3 - 3
        "132L": False,  # a run of 3 - 4
        "13": False,
        "": False,
        "13R": False,  # 82 - 48 = 34: the number goes on
        "13R0": True,  # 34 without the bit that says so is 2
        "13p": False,  # beyond COCO's characters
        "13/": False,
        "13\u00e9": False,
        "13\u4e32": False,
        "13R" + "P" * 5 + "0": True,  # 2 in seven characters
        "13R" + "P" * 6 + "0": False,  # in eight
        "13R" + "P" * 9 + "0": False,
    }
    rles = [{"size": [2, 3], "counts": text} for text in texts]
    assert fill_their_images(rles).tolist() == list(texts.values())
    broken = {"", "13R", "13p", "13/", "13\u00e9", "13\u4e32"}
    assert are_readable(rles).tolist() == [text not in broken for text in texts]


def test_runs_that_are_right_in_sum_alone():
    """100 pixels as 150 and 50 less, with and without a run of 0 before them."""
    rles = [{"size": [10, 10], "counts": text} for text in ("f4^N", "0f4^N")]
    assert [_runs(rle["counts"].encode()) for rle in rles] == [[150, -50], [0, 150, -50]]
    assert fill_their_images(rles).tolist() == [False, False]
    assert are_readable(rles).all()


def _random_masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = rng.integers(1, 60, (count, 2)).tolist()
    return [(rng.random(s) < rng.choice([0, 0.05, 0.5, 0.95, 1])).astype(np.uint8) for s in shapes]


@pytest.mark.parametrize("characters", [40, 10_000])
def test_what_pycocotools_wrote_passes_and_is_measured(monkeypatch, characters):
    monkeypatch.setattr(coco_masks, "CHARACTERS_AT_A_TIME", characters)
    masks = _random_masks(300)  # more than pycocotools can measure at once
    rles = [mask_util.encode(np.asfortranarray(mask)) for mask in masks]
    assert are_readable(rles).all()
    assert fill_their_images(rles).all()
    as_text = [{**rle, "counts": rle["counts"].decode()} for rle in rles]
    assert fill_their_images(as_text).all()
    np.testing.assert_array_equal(rle_areas(rles), [mask.sum() for mask in masks])
    np.testing.assert_array_equal(rle_boxes(rles), [mask_util.toBbox(rle) for rle in rles])


def _runs(text: bytes) -> list[int] | None:
    """By COCO's definition, one character after the other; None if the text is none."""
    runs: list[int] = []
    number, bits = 0, 0
    for character in text:
        code = character - 48
        if not 0 <= code < 64:
            return None
        number |= (code & 31) << bits
        bits += 5
        if not code & 32:
            number -= (1 << bits) if code & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, bits = 0, 0
    return runs if runs and not bits else None


@pytest.mark.parametrize("characters", [40, 10_000])
def test_damaged_texts_are_told_from_whole_ones(monkeypatch, characters):
    monkeypatch.setattr(coco_masks, "CHARACTERS_AT_A_TIME", characters)
    rng = np.random.default_rng(1)
    rles = []
    for mask in _random_masks(600):
        text = bytearray(mask_util.encode(np.asfortranarray(mask))["counts"])
        place = rng.integers(len(text))
        damage = rng.integers(5)
        if damage == 0:
            del text[place:]
        elif damage == 1:
            text[place] ^= int(rng.integers(1, 64))
        elif damage == 2:
            text.insert(place, int(rng.integers(48, 112)))
        rles.append({"size": list(mask.shape), "counts": bytes(text)})
    decoded = [_runs(rle["counts"]) for rle in rles]
    expected = [
        bool(runs) and min(runs) >= 0 and sum(runs) == rle["size"][0] * rle["size"][1]
        for runs, rle in zip(decoded, rles, strict=True)
    ]
    assert 200 < sum(expected) < 500
    assert fill_their_images(rles).tolist() == expected
    assert are_readable(rles).tolist() == [runs is not None for runs in decoded]


def test_no_masks():
    assert are_readable([]).shape == fill_their_images([]).shape == rle_areas([]).shape == (0,)
    assert rle_boxes([]).shape == (0, 4)
