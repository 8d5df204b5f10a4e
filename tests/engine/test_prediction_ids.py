"""Ids of images and categories in files of predictions: the annotation file's, the data set's, or numbers."""

import json
from pathlib import Path

import pytest

from panomask.data.catalog import Metadata
from panomask.engine.prediction_ids import CocoIds
from panomask.errors import InputError

METADATA = Metadata(thing_classes=["apple", "nut"])
PANOPTIC = Metadata(
    thing_classes=["apple", "nut"],
    stuff_classes=["things", "table", "wall"],
    thing_dataset_id_to_contiguous_id={90: 1, 7: 0},
    stuff_dataset_id_to_contiguous_id={0: 0, 200: 1, 150: 2},
    sem_seg_things_label=0,
)


def test_category_ids_of_the_data_set():
    metadata = Metadata(thing_classes=["x", "y"], thing_dataset_id_to_contiguous_id={90: 1, 7: 0})
    ids = CocoIds(metadata)
    assert ids.categories == [{"id": 7, "name": "x"}, {"id": 90, "name": "y"}]
    assert ids.category_id(1) == 90
    with pytest.raises(InputError, match="predicts class 2, but only 2"):
        ids.category_id(2)
    assert CocoIds(Metadata()).category_id(5) == 5


def _annotations(path: Path, names: list[str], categories: list[str]) -> str:
    content = {
        "images": [{"id": 100 + i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(categories, start=1)],
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_ids_of_an_annotation_file(tmp_path):
    names = ["a.png", "left/b.png", "right/b.png"]
    ids = CocoIds(METADATA, _annotations(tmp_path / "truth.json", names, ["nut", "pear", "apple"]))
    assert [ids.category_id(0), ids.category_id(1)] == [30, 10]
    assert ids.image_id(tmp_path / "a.png") == 100
    assert ids.image_id(tmp_path / "right" / "b.png") == 102
    with pytest.raises(InputError, match="2 images of this name"):
        ids.image_id(tmp_path / "b.png")
    with pytest.raises(InputError, match="no image of this name"):
        ids.image_id(tmp_path / "c.png")


def test_annotation_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError, match=r"truth\.json: lacks the model's classes \['nut'\]"):
        CocoIds(METADATA, _annotations(tmp_path / "truth.json", [], ["apple"]))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="no COCO annotations"):
        CocoIds(METADATA, str(tmp_path / "list.json"))


@pytest.mark.parametrize(
    ("key", "entries"),
    [("images", [5]), ("images", [{"id": 1}]), ("categories", 5), ("categories", [{"id": 1}])],
)
def test_broken_annotation_files_are_named(tmp_path, key, entries):
    content = {"images": [], "categories": [], key: entries}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"truth\.json: entry 0 \(counted from 0\) of '{key}' is .* and "):
        CocoIds(METADATA, str(tmp_path / "truth.json"))


def _segment(category: int, is_thing: bool) -> dict[str, object]:
    return {"id": 1, "category_id": category, "isthing": is_thing}


def test_panoptic_categories_of_the_data_set():
    ids = CocoIds(PANOPTIC)
    assert ids.panoptic_categories() == [
        {"id": 7, "name": "apple", "isthing": 1},
        {"id": 90, "name": "nut", "isthing": 1},
        {"id": 200, "name": "table", "isthing": 0},
        {"id": 150, "name": "wall", "isthing": 0},
    ]
    assert [ids.segment_category_id(_segment(1, True)), ids.segment_category_id(_segment(2, False))] == [
        90,
        150,
    ]
    with pytest.raises(InputError, match="predicts stuff class 0"):
        ids.segment_category_id(_segment(0, False))


def test_panoptic_categories_without_ids_are_numbered():
    metadata = Metadata(thing_classes=["apple", "nut"], stuff_classes=["things", "table"])
    assert [entry["id"] for entry in CocoIds(metadata).panoptic_categories()] == [0, 1, 2]


def test_things_and_stuff_in_one_list_are_told_apart():
    names = ["apple", "table", "nut"]
    metadata = Metadata(
        thing_classes=names,
        stuff_classes=names,
        thing_dataset_id_to_contiguous_id={1: 0, 3: 2},
        stuff_dataset_id_to_contiguous_id={2: 1},
    )
    entries = CocoIds(metadata).panoptic_categories()
    assert sorted((entry["id"], entry["name"], entry["isthing"]) for entry in entries) == [
        (1, "apple", 1),
        (2, "table", 0),
        (3, "nut", 1),
    ]


def test_panoptic_categories_of_an_annotation_file(tmp_path):
    def write(*names):
        content = {
            "images": [],
            "categories": [{"id": 5 * i, "name": n, "isthing": t} for i, (n, t) in names],
        }
        (tmp_path / "truth.json").write_text(json.dumps(content))
        return str(tmp_path / "truth.json")

    entries = [("wall", 0), ("nut", 1), ("apple", 1), ("table", 0)]
    ids = CocoIds(PANOPTIC, write(*enumerate(entries)))
    assert [entry["id"] for entry in ids.panoptic_categories()] == [10, 5, 15, 0]
    ids = CocoIds(PANOPTIC, write(*enumerate([*entries[:3], ("table", 1)])))
    with pytest.raises(InputError, match=r"truth\.json: lacks the model's things or stuff \['table'\]"):
        ids.panoptic_categories()
    only_stuff = Metadata(stuff_classes=["wall"])
    assert CocoIds(only_stuff, write(*enumerate(entries))).categories == []
