"""panomask.data.datasets.coco_categories: reading the file, its categories and keypoint declarations."""

import json

import pytest

from panomask.data.datasets import coco_categories
from panomask.data.datasets.coco_categories import (
    check_categories,
    distinct_color,
    keypoint_metadata,
    read_coco_categories,
    read_json,
)
from panomask.errors import InputError

CATEGORIES = [{"id": 7, "name": "b"}, {"id": 0, "name": "a", "keypoints": ["x [", 'y"}']}]
IN_ORDER = [CATEGORIES[1], CATEGORIES[0]]


def write(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


@pytest.fixture
def no_full_parse(monkeypatch):
    def fail(json_file):
        raise AssertionError(f"{json_file} was parsed as a whole")

    monkeypatch.setattr(coco_categories, "read_json", fail)


@pytest.mark.parametrize(
    "document",
    [
        {"images": [], "annotations": [], "categories": CATEGORIES},
        {"categories": CATEGORIES, "images": [{"id": 1}], "annotations": []},
        {"info": {"categories": [{"id": 1, "name": "no"}]}, "categories": CATEGORIES},
        {"categories": CATEGORIES, "info": {"categories": [{"id": 1, "name": "no"}]}},
        {"categories": CATEGORIES, "z": {"categories": [{"id": 1, "name": "no"}]}, "images": []},
        {"info": "categories", "x": '"categories": [{"id": 1, "name": "no"}]}', "categories": CATEGORIES},
        {"categories": CATEGORIES, "x": '"categories": [{"id": 1, "name": "no"}]}'},
        {"x": ["\\", '\\"', "categories"], "categories": CATEGORIES, "images": [{"file_name": "é\\"}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_found_without_parsing_the_file(tmp_path, no_full_parse, document, indent):
    assert read_coco_categories(write(tmp_path, json.dumps(document, indent=indent))) == IN_ORDER


def test_a_nested_key_followed_by_much_space_is_no_top_level_key(tmp_path):
    nested = '{"info": {"categories": [{"id": 1, "name": "no"}] }' + " " * 5000
    path = write(tmp_path, nested + ', "categories" : ' + json.dumps(CATEGORIES) + ', "images": []}')
    assert read_coco_categories(path) == IN_ORDER


def test_falls_back_to_the_full_parse(tmp_path):
    path = write(tmp_path, '{"\\u0063ategories": [{"id": 1, "name": "a"}]}')
    assert read_coco_categories(path) == [{"id": 1, "name": "a"}]
    path = write(tmp_path, "\ufeff" + json.dumps({"categories": CATEGORIES}))
    assert read_coco_categories(path) == IN_ORDER


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"file.json: line 1 column 1: broken JSON .*ends too early"),
        ('{"images": [],\n "categories": [{"id": 1,', r"line 2 column \d+: broken JSON .*ends too early"),
        ('{"images": [}, "a": []}', r"line 1 column 13: broken JSON .*correct it there"),
        ('{"images": [{"file_name": "a.j', r"line 1 column 27: .*Unterminated string.*ends too early"),
        ('{"categories": [{"id": 1,}]}', r"line 1 column \d+: broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[]", r"the top level is a list; .*a file of results"),
        (
            '{"images": [], "a": 1}',
            r"\"categories\" is missing at the top level \(keys there: 'images', 'a'\)",
        ),
        ('{"categories": {"id": 1}}', r"\"categories\" is a dict; it must be a list"),
        ('{"info": {"categories": [{"id": 1, "name": "a"}]}}', "is missing at the top level"),
    ],
)
def test_broken_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as e:
        read_coco_categories(write(tmp_path, text))
    assert "\n" not in str(e.value)
    assert str(tmp_path) in str(e.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no\.json: file does not exist"):
        read_coco_categories(tmp_path / "no.json")
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_json(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"a\.jpg: byte 0: not UTF-8"):
        read_json(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "categories, message",
    [
        ([], "is empty"),
        ([3], "category number 0 .*is 3"),
        ([{"name": "a"}], '"id" is None; it must be an integer'),
        ([{"id": "1", "name": "a"}], "\"id\" is '1'"),
        ([{"id": True, "name": "a"}], '"id" is True'),
        ([{"id": 1}], '"name" is None; category 1 needs'),
        ([{"id": 1, "name": ""}], "\"name\" is ''"),
        ([{"id": 1, "name": "\ud83d"}], r'"name" is .*ud83d.* of whole characters'),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "number 1 .*id 1 is that of category number 0"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "name 'a' is that of category number 0 too"),
    ],
)
def test_bad_categories(categories, message):
    with pytest.raises(InputError, match=message) as e:
        check_categories("f.json", categories)
    assert str(e.value).startswith("f.json: ")


def test_keypoint_metadata():
    names = ["nose", "left_eye", "right_eye", "ear_left", "ear_right", "left_over"]
    category = {"id": 1, "name": "p", "keypoints": names, "skeleton": [[1, 2], [3, 1], [7, 1], "x", [0, 1]]}
    meta = keypoint_metadata([{"id": 0, "name": "a"}, category, {**category, "id": 2}])
    assert meta["keypoint_names"] == names
    assert meta["keypoint_flip_map"] == [("left_eye", "right_eye"), ("ear_left", "ear_right")]
    assert [edge[:2] for edge in meta["keypoint_connection_rules"]] == [
        ("nose", "left_eye"),
        ("right_eye", "nose"),
    ]


def test_no_keypoint_metadata():
    assert keypoint_metadata([{"id": 1, "name": "a"}, {"id": 2, "name": "b", "keypoints": []}]) == {}
    different = [{"id": i, "name": str(i), "keypoints": [f"k{i}"]} for i in range(2)]
    assert keypoint_metadata(different) == {}
    of_two = [{"id": i, "name": str(i), "keypoints": ["k"], "sigmas": [0.1 + i]} for i in range(2)]
    assert keypoint_metadata(of_two) == {}
    assert keypoint_metadata(of_two[:1])["keypoint_oks_sigmas"] == [0.1]


def test_distinct_colors():
    colors = [distinct_color(i) for i in range(200)]
    assert len(set(colors)) == 200
    assert all(0 <= c <= 255 for color in colors for c in color)
