"""Panoptic annotations read for evaluation: classes in order of ids, and faults in one line."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.evaluation.panoptic_files import (
    CategoryIds,
    PanopticAnnotations,
    PanopticClasses,
    read_panoptic_annotations,
)

CONTENT = {
    "images": [{"id": 139, "height": 4, "width": 6}, {"id": "b"}],
    "categories": [
        {"id": 200, "name": "sky", "isthing": 0},
        {"id": 7, "name": "cat", "isthing": 1},
    ],
    "annotations": [
        {
            "image_id": 139,
            "file_name": "139.png",
            "segments_info": [
                {"id": 5, "category_id": 200},
                {"id": 2**24 - 1, "category_id": 7, "iscrowd": 1},
                {"id": 8, "category_id": 7, "iscrowd": 0},
            ],
        },
        {"image_id": "b", "file_name": "b.png", "segments_info": []},
    ],
}


def read(tmp_path, content, classes=None):
    (tmp_path / "p.json").write_text(json.dumps(content))
    return read_panoptic_annotations(tmp_path / "p.json", tmp_path / "png", classes)


def test_what_a_file_says(tmp_path):
    found = read(tmp_path, CONTENT)
    assert (found.classes.ids, found.classes.names) == ((7, 200), ["cat", "sky"])
    assert found.classes.is_thing.tolist() == [True, False]
    assert found.position("139") == found.position(139) == 0
    assert found.position(140) is None
    assert found.sizes == [(4, 6), None]
    assert found.file_names[0] == str(tmp_path / "png" / "139.png")
    ids, classes, is_crowd = found.segments(0)
    assert ids.tolist() == [5, 2**24 - 1, 8]
    assert classes.tolist() == [1, 0, 0]
    assert is_crowd.tolist() == [False, True, False]
    assert len(found.segments(1).ids) == 0
    assert found.num_segments([0, 1]).tolist() == [1, 1], "crowds cannot be missed"
    assert found.num_segments([]).tolist() == [0, 0]


def test_predictions_have_the_classes_of_the_truth(tmp_path):
    truth = read(tmp_path, CONTENT)
    predictions = read(tmp_path, {"annotations": CONTENT["annotations"][:1]}, truth.classes)
    assert predictions.segments(0).classes.tolist() == [1, 0, 0]


def test_names_can_be_printed(tmp_path):
    assert read(tmp_path, change("categories/1/name", "c\ud83d")).classes.names == ["c?", "sky"]


def test_two_classes_of_one_name_are_told_apart():
    classes = PanopticClasses({3: ("a", True), 4: ("a", False), 5: ("b", False)})
    assert classes.names == ["a (3)", "a (4)", "b"]


def change(path: str, value):
    """The content with one value changed, or taken out (None); `path` as in annotations/0/image_id."""
    content = copy.deepcopy(CONTENT)
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    owner = content
    for key in way:
        owner = owner[key]
    if value is None:
        del owner[last]
    else:
        owner[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no panoptic annotation file: it needs an object with the list 'annotations'"),
        (change("categories", None), "object with the list 'categories'"),
        (
            {**CONTENT, "annotations": [{"image_id": 139, "category_id": 7}]},
            "annotations have no 'segments_info', so this is no pan",
        ),
        (change("annotations/0/segments_info", None), r"annotation 1 lacks 'segments_info'; add it"),
        (change("annotations/1/segments_info", None), r"annotation 2 lacks 'segments_info'; add it"),
        (change("annotations/1/segments_info", {}), "annotation 2: 'segments_info' must be a list"),
        (change("annotations/1/image_id", "c"), "annotation 2 is of image 'c', which 'images' does not list"),
        (change("annotations/1/image_id", 139), "image 139 has two annotations"),
        (change("annotations/0/segments_info/0/id", 8), "image 139: two segments have the id 8"),
        (change("annotations/0/segments_info/0/id", 0), "image 139: segment id 0; an integer from 1 to 1677"),
        (change("annotations/0/segments_info/0/id", 2**24), "segment id 16777216; an integer from 1 to"),
        (change("annotations/0/segments_info/0/id", None), "image 139: a segment lacks 'id'"),
        (
            change("annotations/0/segments_info/0/category_id", 9),
            "image 139: segment 5: category_id 9 is no category of the data set; it has 7, 200",
        ),
        (
            change("annotations/0/segments_info/0/iscrowd", "1"),
            "segment 5: iscrowd is '1'; allowed are 0 and 1",
        ),
        (change("annotations/0/segments_info/0/id", True), "image 139: segment id True; an integer"),
        (change("annotations/0/segments_info/0/category_id", True), "category_id True is no category"),
        (change("categories/0/isthing", None), "category 1 lacks 'isthing'"),
        (change("categories/0/isthing", 2), "category 1: id 200, isthing 2; an integer, and 0 or 1"),
        (
            change("categories/0", {"id": 7, "name": "cat", "isthing": 0}),
            "category 2: id 7 is the stuff 'cat' and the thing 'cat'; a category needs an id of its own",
        ),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    with pytest.raises(InputError, match=f"p.json.*{message}") as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_images_that_are_not_scored_are_counted(tmp_path, caplog):
    read(tmp_path, change("annotations/1", None))
    assert "p.json: 1 of 2 images have no annotation and are not scored" in caplog.text
    caplog.clear()
    read(tmp_path, CONTENT)
    assert not caplog.text


def test_dataset_dicts():
    metadata = Metadata()
    metadata.set(
        name="mine",
        thing_classes=["cat"],
        stuff_classes=["things", "sky"],
        thing_dataset_id_to_contiguous_id={7: 0},
        stuff_dataset_id_to_contiguous_id={200: 1, 0: 0},
        sem_seg_things_label=0,
    )
    segments = [{"id": np.int64(3), "category_id": 1, "isthing": False, "iscrowd": 0}]
    record = {"image_id": 1, "pan_seg_file_name": "a.png", "segments_info": segments, "height": 4, "width": 6}
    found = PanopticAnnotations.of_records("mine", metadata, [record])
    assert found.classes.ids == (7, 200), "0 is no category, but stands for things"
    assert found.segments(0).classes.tolist() == [1]
    assert found.sizes == [(4, 6)]
    with pytest.raises(
        InputError, match=r"data set 'mine': a\.jpg: its dict lacks image_id, pan_seg_file_name"
    ):
        PanopticAnnotations.of_records("mine", metadata, [{"file_name": "a.jpg"}])


def test_contiguous_ids_and_back():
    maps = {"thing_dataset_id_to_contiguous_id": {7: 0}, "stuff_dataset_id_to_contiguous_id": {200: 1}}
    to_category = CategoryIds(SimpleNamespace(name="mine", get=lambda key, default: maps.get(key, default)))
    assert to_category({"category_id": 0, "isthing": True}) == 7
    assert to_category({"category_id": 1, "isthing": 0}) == 200
    assert to_category({"category_id": 1}) == 1
    with pytest.raises(InputError, match="thing class 1 is not among the 1 thing classes of 'mine'"):
        to_category({"category_id": 1, "isthing": True})
