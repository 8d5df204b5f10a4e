"""panomask.data.datasets.panoptic_categories: things, stuff and their numbers."""

import json

import pytest

from panomask.data.catalog import Metadata, MetadataCatalog
from panomask.data.datasets.panoptic_categories import (
    SegmentClass,
    check_panoptic_categories,
    classes_of_metadata,
    ensure_panoptic_metadata,
    panoptic_class_metadata,
    panoptic_classes,
    set_panoptic_metadata,
)
from panomask.errors import InputError

CATEGORIES = [
    {"id": 40, "name": "grass", "isthing": 0, "color": [1, 2, 3]},
    {"id": 9, "name": "cat", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
    {"id": 50, "name": "dog", "isthing": 1, "color": [4, 5, 6]},
]


def checked(categories=CATEGORIES):
    return check_panoptic_categories("p.json", categories)


def test_numbers_follow_the_ids():
    assert panoptic_classes(checked()) == {
        9: SegmentClass(0, True),
        50: SegmentClass(1, True),
        7: SegmentClass(1, False),
        40: SegmentClass(2, False),
    }
    fields = panoptic_class_metadata(checked())
    assert fields["thing_classes"] == ["cat", "dog"]
    assert fields["thing_dataset_id_to_contiguous_id"] == {9: 0, 50: 1}
    assert fields["stuff_classes"] == ["things", "sky", "grass"]
    assert fields["stuff_dataset_id_to_contiguous_id"] == {7: 1, 40: 2, 0: 0}
    assert fields["thing_colors"][1] == [4, 5, 6]
    assert fields["stuff_colors"][2] == [1, 2, 3]
    assert len(fields["stuff_colors"]) == 3
    assert len({tuple(color) for color in fields["stuff_colors"] + fields["thing_colors"]}) == 5


def test_category_zero_is_a_category():
    categories = checked([{"id": 0, "name": "sky", "isthing": 0}, {"id": 1, "name": "cat", "isthing": 1}])
    assert panoptic_class_metadata(categories)["stuff_dataset_id_to_contiguous_id"] == {0: 1}


def test_things_alone_and_stuff_alone():
    fields = panoptic_class_metadata(checked([CATEGORIES[1]]))
    assert (fields["thing_classes"], fields["stuff_classes"]) == (["cat"], ["things"])
    fields = panoptic_class_metadata(checked([CATEGORIES[0]]))
    assert (fields["thing_classes"], fields["stuff_classes"]) == ([], ["things", "grass"])


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 3, "name": "cat"}], r"category 3 \('cat'\) has no \"isthing\".*without PANOPTIC_ROOT"),
        ([{"id": 3, "name": "cat", "isthing": 2}], r"category 3 \('cat'\) has 2 as \"isthing\""),
        ([{"id": 3, "name": "cat", "isthing": "1"}], "has '1' as"),
        ([{"id": 3, "name": "cat", "isthing": None}], "has None as"),
        (
            [*CATEGORIES, {"id": 9, "name": "lion", "isthing": 0}],
            "number 4 .*: id 9 is stuff here and a thing in",
        ),
        ([*CATEGORIES, {"id": 8, "name": "sky", "isthing": 1}], "name 'sky' is a thing here and stuff in"),
        ([*CATEGORIES, {"id": 9, "name": "lion", "isthing": 1}], "id 9 is that of category number 1 too"),
        (
            [*CATEGORIES, {"id": 8, "name": "sky", "isthing": 0}],
            "name 'sky' is that of category number 2 too",
        ),
        ([*CATEGORIES, {"id": 9, "name": "lion", "isthing": []}], "id 9 is that of category number 1 too"),
        ([*CATEGORIES, 5], "number 4 .*: is 5"),
        ([*CATEGORIES, {"id": [], "name": {}, "isthing": 1}], r"\"id\" is \[\]"),
        ([], "is empty"),
    ],
)
def test_bad_categories(categories, words):
    with pytest.raises(InputError, match=words) as error:
        checked(categories)
    assert str(error.value).startswith("p.json: ")
    assert "\n" not in str(error.value)


def test_metadata_are_set_once():
    metadata = Metadata(name="set", stuff_colors=[[0, 0, 0]] * 3)
    assert set_panoptic_metadata(metadata, "p.json", checked())[40] == SegmentClass(2, False)
    set_panoptic_metadata(metadata, "p.json", checked())
    assert metadata.stuff_colors == [[0, 0, 0]] * 3  # those of the user
    with pytest.raises(InputError, match="known with"):
        set_panoptic_metadata(metadata, "p.json", checked(CATEGORIES[:3]))


def test_no_class_has_the_number_of_void():
    stuff = [{"id": i, "name": f"s{i}", "isthing": 0} for i in range(1, 256)]
    set_panoptic_metadata(Metadata(), "p.json", checked(stuff[:254]))
    with pytest.raises(InputError, match=r"255 stuff categories.*255 stands for void.*IGNORE_LABEL 65535"):
        set_panoptic_metadata(Metadata(), "p.json", checked(stuff))
    set_panoptic_metadata(Metadata(ignore_label=65535), "p.json", checked(stuff))


def test_the_head_of_the_file_gives_the_classes(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": CATEGORIES}))
    MetadataCatalog.get("head_only").set(panoptic_json=str(path))
    try:
        ensure_panoptic_metadata("head_only")
        path.unlink()
        ensure_panoptic_metadata("head_only")  # known by now
        assert MetadataCatalog.get("head_only").stuff_classes == ["things", "sky", "grass"]
    finally:
        MetadataCatalog.remove("head_only")


def test_classes_of_detectron2_metadata():
    maps = {"thing_dataset_id_to_contiguous_id": {9: 0}, "stuff_dataset_id_to_contiguous_id": {7: 1, 0: 0}}
    assert classes_of_metadata(maps, {9, 7}) == {9: SegmentClass(0, True), 7: SegmentClass(1, False)}
    assert 0 in classes_of_metadata(maps, None)
    both = {**maps, "stuff_dataset_id_to_contiguous_id": {9: 3, 7: 1}}
    assert classes_of_metadata(both, None)[9] == SegmentClass(0, True)  # things win
    with pytest.raises(InputError, match="needs stuff_dataset_id_to_contiguous_id"):
        classes_of_metadata({"thing_dataset_id_to_contiguous_id": {}}, None)
