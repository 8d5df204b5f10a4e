"""panomask.data.datasets.coco_annotations: one annotation, good or bad."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.data.datasets.coco_annotations import BadAnnotation, _decode_runs, convert_annotation
from panomask.structures import BoxMode

HEIGHT, WIDTH = 6, 8
TRIANGLE = [1, 1, 5, 1, 1, 4]


def convert(num_keypoints=None, extra_keys=(), **fields):
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 3], **fields}
    return convert_annotation(
        annotation, height=HEIGHT, width=WIDTH, num_keypoints=num_keypoints, extra_keys=extra_keys
    )


def rle_of(mask):
    """The compressed RLE as it stands in a JSON file."""
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def test_a_plain_object():
    assert convert(area=12.0, score=0.5, extra_keys=["score", "absent"]) == {
        "bbox": [1, 1, 4, 3],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 3,
        "iscrowd": 0,
        "score": 0.5,
    }


def test_polygons_are_kept_as_they_are():
    polygons = [TRIANGLE, [0.5, 0.5, 2.25, 0.5, 2.25, 2.0, 0.5, 2.0]]
    assert convert(segmentation=polygons)["segmentation"] == polygons
    assert "segmentation" not in convert(segmentation=[])


def test_compressed_rle_is_kept():
    rle = rle_of(np.eye(HEIGHT, WIDTH))
    assert convert(segmentation=rle, iscrowd=1) | {"segmentation": rle, "iscrowd": 1} == convert(
        segmentation=rle, iscrowd=1
    )


def test_uncompressed_rle_is_compressed():
    # column by column: 7 pixels off, 2 on (rows 1 and 2 of column 1), the remaining 39 off
    converted = convert(segmentation={"size": [HEIGHT, WIDTH], "counts": [7, 2, 39]}, iscrowd=1)
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[1:3, 1] = 1
    np.testing.assert_array_equal(mask_util.decode(converted["segmentation"]), expected)
    assert converted["iscrowd"] == 1


def test_run_decoder_agrees_with_pycocotools():
    rng = np.random.default_rng(0)
    for height, width, density in [
        (1, 1, 1),
        (37, 23, 0.5),
        (400, 300, 0.001),
        (3000, 2000, 1e-6),
        (5, 4, 0),
    ]:
        mask = rng.random((height, width)) < density
        pixels = mask.ravel(order="F").astype(np.int8)
        changes = np.flatnonzero(np.diff(pixels, prepend=0))
        runs = np.diff(np.concatenate(([0], changes, [height * width])))
        np.testing.assert_array_equal(_decode_runs(rle_of(mask)["counts"]), runs)


def test_keypoints_move_to_pixel_centres():
    keypoints = [3, 4, 2, 0, 0, 0]
    converted = convert(keypoints=keypoints, num_keypoints=2)
    assert converted["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]
    assert keypoints == [3, 4, 2, 0, 0, 0]
    assert convert(keypoints=keypoints)["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]
    assert "keypoints" not in convert(keypoints=[], num_keypoints=2)


def test_very_long_polygons_pass_the_coarse_bound():
    assert convert(segmentation=[[99_999.0] * 1000])["segmentation"]


@pytest.mark.parametrize(
    "box, kind",
    [
        (None, "no box"),
        ([], "no box"),
        ([1, 2, 3], "bad box"),
        ("1234", "bad box"),
        ([1, 2, "3", 4], "bad box"),
        ([1, math.nan, 3, 4], "bad box"),
        ([1, 2, math.inf, 4], "bad box"),
        ([1, 2, 10**400, 4], "bad box"),
        ([1, 2, 0, 4], "box of no area"),
        ([1, 2, 3, -4], "box of no area"),
    ],
)
def test_bad_boxes(box, kind):
    with pytest.raises(BadAnnotation, match=f"^{kind}: ") as e:
        convert(bbox=box)
    assert e.value.kind == kind


@pytest.mark.parametrize(
    "polygon, kind",
    [
        ([1, 1, 5, 1], "polygon with fewer than three points"),
        ([], "polygon with fewer than three points"),
        ([1, 1, 5, 1, 1, 4, 2], "bad polygon: .* has 7 numbers; an even count"),
        ([1, 1, 5, 1, 1, math.nan], "bad polygon: .* holds nan"),
        ([1, 1, 5, 1, 1, -math.inf], "bad polygon: .* holds -inf"),
        ([1, 1, 5, 1, 1, 1e9], "bad polygon: .* holds 1000000000.0"),
        ([1, 1, 5, 1, 1, None], "bad polygon: .* holds None"),
        ([[1, 1], [5, 1], [1, 4]], "bad polygon: .* holds \\[1, 1\\]"),
        (7, "bad polygon: .*7 where a polygon"),
    ],
)
def test_bad_polygons(polygon, kind):
    with pytest.raises(BadAnnotation, match=kind) as e:
        convert(segmentation=[TRIANGLE, polygon])
    assert e.value.rest == [TRIANGLE]
    with pytest.raises(BadAnnotation, match=kind) as e:
        convert(segmentation=[polygon])
    assert e.value.rest == []


@pytest.mark.parametrize(
    "counts",
    [
        "",  # nothing
        [],
        "o",  # a continuation that does not come
        "0o",
        "\x00",
        "~~~~",
        "é4",
        "oooooooooooooooo0",  # a number of 80 bits
        "1_",  # negative
        [7, -2, 43],
        [7, 2.5, 38.5],
        [7, "2", 39],
        [[7, 2, 39]],
        [7, 2, None],
        [2**70],
        17,
        None,
    ],
)
def test_damaged_rle(counts):
    with pytest.raises(BadAnnotation, match=r"^bad RLE: counts"):
        convert(segmentation={"size": [HEIGHT, WIDTH], "counts": counts})


@pytest.mark.parametrize("counts", [[7, 2, 40], [7, 2, 38], [0], "1", rle_of(np.ones((7, 8)))["counts"]])
def test_rle_that_does_not_fill_the_image(counts):
    with pytest.raises(BadAnnotation, match=r"add up to \d+ pixels; they must cover the image, 6 x 8 = 48"):
        convert(segmentation={"size": [HEIGHT, WIDTH], "counts": counts})


@pytest.mark.parametrize("size", [[WIDTH, HEIGHT], None, "6x8", [6]])
def test_rle_of_another_size(size):
    with pytest.raises(BadAnnotation, match=r"RLE of another size: .*must be that of the image, \[6, 8\]"):
        convert(segmentation={"size": size, "counts": [48]})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"iscrowd": 2}, "bad iscrowd: 2; allowed are 0 and 1"),
        ({"iscrowd": None}, "bad iscrowd: None"),
        ({"ignore": 1}, "ignore flag"),
        ({"segmentation": "abc"}, "bad segmentation: .*'abc'"),
        ({"keypoints": "abc"}, "bad keypoints: .*'abc'"),
        ({"keypoints": [1, 2]}, "bad keypoints: .*has 2 numbers"),
        ({"keypoints": [1, 2, 2], "num_keypoints": 2}, "has 3 numbers; allowed is 2 times x, y, visibility"),
        ({"keypoints": [1, 2, 3]}, "bad keypoints: a visibility is 3"),
        ({"keypoints": [1, math.nan, 2]}, "bad keypoints"),
    ],
)
def test_other_faults(fields, message):
    with pytest.raises(BadAnnotation, match=message):
        convert(**fields)
