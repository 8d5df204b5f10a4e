"""panomask.data.datasets: coco_panoptic, panoptic_reading and panoptic_annotations."""

import copy
import json
import logging

import numpy as np
import pytest
from PIL import Image

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.coco import load_coco_json
from panomask.data.datasets.coco_panoptic import (
    load_coco_panoptic_json,
    load_panoptic,
    merge_to_panoptic,
    register_coco_panoptic,
    register_coco_panoptic_separated,
    register_panoptic,
)
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BoxMode

DOCUMENT = {
    "images": [
        {"id": 20, "file_name": "b.png", "height": 2, "width": 3},
        {"id": 10, "file_name": "a.jpg", "height": 2, "width": 2},
    ],
    "annotations": [
        {
            "image_id": 20,
            "file_name": "b.png",
            "segments_info": [
                {"id": 300, "category_id": 9, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0},
                {"id": 5, "category_id": 7, "area": 2, "bbox": [0, 1, 2, 1], "iscrowd": 0},
                {"id": 70000, "category_id": 50, "iscrowd": 1},
            ],
        },
        {"image_id": 10, "file_name": "a.png", "segments_info": []},
    ],
    "categories": [
        {"id": 7, "name": "sky", "isthing": 0},
        {"id": 9, "name": "cat", "isthing": 1},
        {"id": 50, "name": "dog", "isthing": 1},
    ],
}
META = {
    "thing_classes": ["cat", "dog"],
    "thing_dataset_id_to_contiguous_id": {9: 0, 50: 1},
    "stuff_classes": ["things", "sky"],
    "stuff_dataset_id_to_contiguous_id": {7: 1, 0: 0},
}


@pytest.fixture
def files(tmp_path):
    """Folders of images and PNG files, and a function that writes a changed DOCUMENT."""
    for folder in ("images", "png"):
        (tmp_path / folder).mkdir()
    for name, size in (("b.png", (3, 2)), ("a.jpg", (2, 2))):
        Image.new("RGB", size).save(tmp_path / "images" / name)
    write_segment_ids(tmp_path / "png" / "b.png", np.array([[300, 300, 70000], [5, 5, 0]]))
    write_segment_ids(tmp_path / "png" / "a.png", np.zeros((2, 2), dtype=int))

    def write(change=None):
        document = copy.deepcopy(DOCUMENT)
        if change:
            change(document)
        (tmp_path / "p.json").write_text(json.dumps(document))
        return tmp_path / "p.json", tmp_path / "png", tmp_path / "images"

    return write


@pytest.fixture
def name():
    """A data set name that is free again after the test."""
    yield "panoptic_of_the_test"
    for each in list(DatasetCatalog):
        if each.startswith("panoptic_of_the_test"):
            DatasetCatalog.remove(each)
            MetadataCatalog.pop(each, None)


def segments(document, image=0):
    return document["annotations"][image]["segments_info"]


def test_records(files, tmp_path):
    first, second = load_panoptic(*files())
    assert (first["image_id"], second["image_id"]) == (10, 20)
    assert first["segments_info"] == first["annotations"] == []
    assert second == {
        "file_name": str(tmp_path / "images/b.png"),
        "height": 2,
        "width": 3,
        "image_id": 20,
        "pan_seg_file_name": str(tmp_path / "png/b.png"),
        "segments_info": [
            {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 0, "area": 2},
            {"id": 5, "category_id": 1, "isthing": False, "iscrowd": 0, "area": 2},
            {"id": 70000, "category_id": 1, "isthing": True, "iscrowd": 1},
        ],
        "annotations": [
            {
                "category_id": 0,
                "iscrowd": 0,
                "segment_id": 300,
                "bbox": [0, 0, 2, 1],
                "bbox_mode": BoxMode.XYWH_ABS,
            },
            {"category_id": 1, "iscrowd": 1, "segment_id": 70000},
        ],
    }


def test_the_greatest_id_is_allowed(files):
    records = load_panoptic(*files(lambda document: segments(document)[0].update(id=2**24 - 1)))
    assert records[1]["segments_info"][0]["id"] == 16777215


def test_one_registration(files, name):
    json_file, root, images = files()
    text = json_file.read_text()
    json_file.unlink()
    register_panoptic(name, json_file, root, images, {"owner": "me"})  # reads nothing
    metadata = MetadataCatalog.get(name)
    assert metadata.get("thing_classes") is None
    json_file.write_text(text)
    assert len(DatasetCatalog.get(name)) == len(DatasetCatalog.get(name)) == 2
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.stuff_classes == ["things", "sky"]
    assert metadata.stuff_dataset_id_to_contiguous_id == {7: 1, 0: 0}
    assert (metadata.panoptic_json, metadata.panoptic_root) == (str(json_file), str(root))
    assert (metadata.ignore_label, metadata.label_divisor, metadata.sem_seg_things_label) == (255, 1000, 0)
    assert (metadata.evaluator_type, metadata.owner) == ("coco_panoptic_seg", "me")


def _first(**fields):
    return lambda document: segments(document)[0].update(fields)


def _annotation(**fields):
    return lambda document: document["annotations"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            _first(category_id=8),
            r"image 20 \('b.png'\), segment 300: unknown category_id: 8; allowed .*7, 9, 50",
        ),
        (_first(category_id=0), "unknown category_id: 0"),
        (_first(category_id=[9]), r"unknown category_id: \[9\]"),
        (_first(id=0), "segment 0: bad segment id.*from 1 to 16777215"),
        (_first(id=2**24), "segment 16777216: bad segment id"),
        (_first(id="300"), r"segment number 0 \(counted from 0\): bad segment id: \"id\" is '300'"),
        (_first(id=True), "bad segment id"),
        (_first(id=5), "segment 5: segment id used twice"),
        (_first(iscrowd=2), "bad iscrowd: 2"),
        (_first(isthing=0), "conflicting isthing: .*category 9 is a thing"),
        (_first(bbox=[1, 2]), r"bad box: \"bbox\" is \[1, 2\]"),
        (lambda d: segments(d).insert(0, None), "segment number 0 .*: not an object: None"),
        (_annotation(image_id=11), r"annotation number 0 .*: unknown image_id: 11; allowed .* such as 20"),
        (_annotation(image_id="20"), "unknown image_id: '20'"),
        (_annotation(image_id=None), "no image_id"),
        (_annotation(segments_info=None), 'no segments_info: "segments_info" is None'),
        (_annotation(file_name=3), 'no file_name: "file_name" is 3'),
        (_annotation(file_name="c.png"), "PNG missing: 'c.png' is not in .*png; put it there"),
        (_annotation(file_name="a.jpg"), r"'a.jpg' is not in .*png \(but 'a.png' is\)"),
        (_annotation(file_name="sub/c.png"), "'sub/c.png' is not in"),
        (lambda d: d["annotations"].insert(1, d["annotations"][0]), "number|second annotation of an image"),
        (
            lambda d: d["annotations"].pop(),
            r"image 10 \('a.jpg'\): image without annotation: .*1 of 2 images",
        ),
        (lambda d: d["annotations"].insert(0, 7), "annotation number 0 .*: not an object: 7"),
        (lambda d: d.update(annotations={}), '"annotations" is a dict'),
        (lambda d: d.pop("images"), 'the key "images" is missing'),
        (lambda d: d.pop("categories"), 'the key "categories" is missing'),
        (lambda d: d["categories"][0].pop("isthing"), 'category 7 .* has no "isthing"'),
    ],
)
def test_bad_files_are_named_in_one_line(files, change, words):
    json_file, root, images = files(change)
    with pytest.raises(InputError, match=words) as error:
        load_panoptic(json_file, root, images)
    assert str(error.value).startswith(f"{json_file}: ")
    assert "\n" not in str(error.value)


def test_a_missing_folder(files, tmp_path):
    json_file, root, images = files()
    with pytest.raises(
        InputError, match=r"folder of panoptic PNG files .*nowhere does not exist.*PANOPTIC_ROOT"
    ):
        load_panoptic(json_file, tmp_path / "nowhere", images)
    with pytest.raises(InputError, match=r"is not in the image folder .*nowhere, but in .*images; give that"):
        load_panoptic(json_file, root, tmp_path / "nowhere")


def test_drop_leaves_bad_segments_and_images_out(files, name, caplog):
    def change(document):
        segments(document)[0]["category_id"] = 8
        document["annotations"].pop()

    register_panoptic(name, *files(change), on_bad="drop")
    with caplog.at_level(logging.WARNING):
        (record,) = DatasetCatalog.get(name)
    assert [segment["id"] for segment in record["segments_info"]] == [5, 70000]
    assert [annotation["segment_id"] for annotation in record["annotations"]] == [70000]
    assert record["on_bad_annotation"] == MetadataCatalog.get(name).on_bad_annotation == "drop"
    (warning,) = caplog.messages
    assert "1 x unknown category_id" in warning
    assert "1 x image without annotation" in warning


def test_drop_refuses_when_nothing_is_left(files):
    with pytest.raises(InputError, match=r"all .* are bad. The first: .*PNG missing"):
        load_panoptic(
            *files(lambda d: [a.update(file_name="c.png") for a in d["annotations"]]), on_bad="drop"
        )
    with pytest.raises(InputError, match='allowed are "refuse" and "drop"'):
        load_panoptic(*files(), on_bad="ignore")


def test_the_other_kind_of_file(files, tmp_path):
    instances = {"id": 1, "image_id": 20, "category_id": 9, "bbox": [0, 0, 2, 1], "segmentation": []}
    json_file, root, images = files(lambda d: d.update(annotations=[instances]))
    with pytest.raises(InputError, match=r"a COCO file of instances .*PANOPTIC_ROOT"):
        load_panoptic(json_file, root, images)
    json_file, root, images = files()
    with pytest.raises(InputError, match=r"a COCO panoptic file, .*PANOPTIC_ROOT"):
        load_coco_json(json_file, images)


def test_detectron2_reader(files, tmp_path):
    def change(document):
        document["annotations"][1]["image_id"] = "000010"
        segments(document)[2]["note"] = "blurred"

    json_file, root, images = files(change)
    first, second = load_coco_panoptic_json(json_file, images, root, META)
    # "b.jpg", the PNG's name with Detectron2's ending, is not there: "images" says b.png
    assert (first["file_name"], first["image_id"]) == (str(images / "b.png"), 20)
    assert (second["file_name"], second["image_id"]) == (str(images / "a.jpg"), 10)
    assert second["pan_seg_file_name"] == str(root / "a.png")
    assert set(first) == {"file_name", "image_id", "pan_seg_file_name", "segments_info"}
    assert first["segments_info"][2] == {
        **{"id": 70000, "category_id": 1, "isthing": True, "iscrowd": 1},
        "note": "blurred",
    }
    assert first["segments_info"][0]["bbox"] == [0, 0, 2, 1]


def test_detectron2_reader_needs_only_annotations(files):
    json_file, root, images = files(lambda d: (d.pop("images"), d.pop("categories")))
    records = load_coco_panoptic_json(json_file, images, root, META)
    assert [record["file_name"] for record in records] == [str(images / "b.jpg"), str(images / "a.jpg")]
    things_only = {**META, "stuff_dataset_id_to_contiguous_id": {}}
    with pytest.raises(InputError, match=r"segment 5: unknown category_id: 7; allowed .*9, 50"):
        load_coco_panoptic_json(json_file, images, root, things_only)


def test_detectron2_reader_looks_at_no_more_than_it_needs(files):
    def change(document):
        document["categories"].append({"id": [], "name": 3})
        document["images"][0]["file_name"] = True

    json_file, root, images = files(change)
    first, _ = load_coco_panoptic_json(json_file, images, root, META)
    assert first["file_name"] == str(images / "b.jpg")


def test_label_zero_of_detectron2_is_no_category(files):
    json_file, root, images = files(_first(category_id=0))
    with pytest.raises(InputError, match="unknown category_id: 0"):
        load_coco_panoptic_json(json_file, images, root, META)


def test_register_coco_panoptic(files, name):
    json_file, root, images = files()
    register_coco_panoptic(name, META, str(images), str(root), str(json_file), "instances.json")
    assert [len(record["segments_info"]) for record in DatasetCatalog.get(name)] == [3, 0]
    metadata = MetadataCatalog.get(name)
    assert metadata.json_file == "instances.json"
    assert metadata.get("sem_seg_things_label") is None
    assert metadata.stuff_classes == META["stuff_classes"]


INSTANCES = {
    "images": DOCUMENT["images"],
    "categories": DOCUMENT["categories"][1:],
    "annotations": [
        {
            "id": 1,
            "image_id": 20,
            "category_id": 50,
            "bbox": [0, 0, 2, 2],
            "segmentation": [[0, 0, 2, 0, 2, 2]],
        }
    ],
}


@pytest.fixture
def separated(files, name, tmp_path):
    """Registers with converted labels and a file of instances, or without."""

    def register(*, labels: bool, instances: bool, metadata=META):
        json_file, root, images = files()
        if instances:
            (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
        if labels:
            (images / "b.png").rename(images / "b.jpg")
            (tmp_path / "labels").mkdir()
            for label in "ab":
                Image.new("L", (2, 2)).save(tmp_path / "labels" / f"{label}.png")
            text = (tmp_path / "instances.json").read_text() if instances else ""
            (tmp_path / "instances.json").write_text(text.replace("b.png", "b.jpg"))
        register_coco_panoptic_separated(
            name,
            metadata,
            str(images),
            str(root),
            str(json_file),
            str(tmp_path / "labels"),
            str(tmp_path / "instances.json") if instances else None,
        )
        return DatasetCatalog.get(f"{name}_separated"), DatasetCatalog.get(f"{name}_stuffonly")

    return register


def test_separated_as_in_detectron2(separated, name, tmp_path):
    merged, stuff = separated(labels=True, instances=True)
    assert [set(record) for record in merged] == 2 * [
        {"file_name", "height", "width", "image_id", "annotations", "sem_seg_file_name"}
    ]
    assert merged[1]["annotations"][0]["segmentation"] == [[0, 0, 2, 0, 2, 2]]
    assert merged[1]["annotations"][0]["category_id"] == 1
    assert merged[1]["sem_seg_file_name"] == str(tmp_path / "labels/b.png")
    assert [set(record) for record in stuff] == 2 * [{"file_name", "sem_seg_file_name"}]
    metadata = MetadataCatalog.get(f"{name}_separated")
    assert metadata.sem_seg_root == str(tmp_path / "labels")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert MetadataCatalog.get(f"{name}_stuffonly").evaluator_type == "sem_seg"
    assert MetadataCatalog.get(f"{name}_stuffonly").get("json_file") is None


def test_separated_without_converted_labels(separated, name):
    merged, stuff = separated(labels=False, instances=True)
    assert [segment["category_id"] for segment in merged[1]["segments_info"]] == [0, 1, 1]
    assert merged[1]["annotations"][0]["segmentation"] == [[0, 0, 2, 0, 2, 2]]  # those of the file
    assert "sem_seg_file_name" not in merged[1]
    assert "annotations" not in stuff[1]
    assert stuff[1]["pan_seg_file_name"] == merged[1]["pan_seg_file_name"]
    assert MetadataCatalog.get(f"{name}_stuffonly").sem_seg_things_label == 0
    assert MetadataCatalog.get(f"{name}_stuffonly").sem_seg_root is None


@pytest.mark.parametrize("metadata", [META, {}])
def test_separated_from_panoptic_files_alone(separated, name, metadata):
    merged, stuff = separated(labels=False, instances=False, metadata=metadata)
    assert [annotation["segment_id"] for annotation in merged[1]["annotations"]] == [300, 70000]
    assert len(stuff) == 2
    assert MetadataCatalog.get(f"{name}_separated").stuff_classes == ["things", "sky"]
    assert MetadataCatalog.get(f"{name}_separated").get("json_file") is None


def test_objects_without_labels_are_refused():
    assert merge_to_panoptic([], []) == []
    with pytest.raises(InputError, match=r"x\.jpg: has objects, but no semantic labels"):
        merge_to_panoptic([{"file_name": "x.jpg", "image_id": 1}], [])
