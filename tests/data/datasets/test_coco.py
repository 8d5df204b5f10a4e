"""panomask.data.datasets.coco: whole COCO files into dataset dicts."""

import copy
import json
import logging

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.coco import load_coco_json, register_coco_instances
from panomask.errors import InputError
from panomask.structures import BoxMode

DOCUMENT = {
    "info": {},
    "images": [
        {"id": 20, "file_name": "b.jpg", "height": 6, "width": 8},
        {"id": 10, "file_name": "a.jpg", "height": 12, "width": 16},
        {"id": 30, "file_name": "empty.jpg", "height": 3, "width": 3},
    ],
    "categories": [{"id": 7, "name": "nut"}, {"id": 0, "name": "all"}, {"id": 2, "name": "fig"}],
    "annotations": [
        {
            "id": 0,
            "image_id": 20,
            "category_id": 7,
            "bbox": [1, 1, 4, 3],
            "segmentation": [[1, 1, 5, 1, 1, 4]],
        },
        {"id": 5, "image_id": 10, "category_id": 2, "bbox": [0, 0, 2, 2], "iscrowd": 0, "truncated": True},
        {
            "id": 6,
            "image_id": 20,
            "category_id": 2,
            "bbox": [1, 1, 1, 2],
            "iscrowd": 1,
            "segmentation": {"size": [6, 8], "counts": [7, 2, 39]},
        },
    ],
}


@pytest.fixture
def load(tmp_path):
    """Write a changed DOCUMENT and load it."""

    def run(change=None, **kwargs):
        document = copy.deepcopy(DOCUMENT)
        if change:
            change(document)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(document))
        return load_coco_json(path, tmp_path, **kwargs)

    return run


@pytest.fixture
def name():
    """A data set name that is free again after the test."""
    yield "test_coco_set"
    if "test_coco_set" in DatasetCatalog.list():
        DatasetCatalog.remove("test_coco_set")
    MetadataCatalog.pop("test_coco_set", None)


def test_load(load, tmp_path, name):
    records = load(dataset_name=name, extra_annotation_keys=["truncated"])
    assert [r["image_id"] for r in records] == [10, 20, 30]
    assert records[0] == {
        "file_name": f"{tmp_path}/a.jpg",
        "height": 12,
        "width": 16,
        "image_id": 10,
        "annotations": [
            {
                "iscrowd": 0,
                "bbox": [0, 0, 2, 2],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 1,
                "truncated": True,
            }
        ],
    }
    first, crowd = records[1]["annotations"]
    assert first["category_id"] == 2
    assert first["segmentation"] == [[1, 1, 5, 1, 1, 4]]
    assert crowd["iscrowd"] == 1
    assert isinstance(crowd["segmentation"]["counts"], bytes)
    assert records[2]["annotations"] == []
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["all", "fig", "nut"]
    assert metadata.thing_dataset_id_to_contiguous_id == {0: 0, 2: 1, 7: 2}
    assert not hasattr(metadata, "keypoint_names")


def test_without_a_name_ids_stay_as_in_the_file(load):
    records = load()
    assert [a["category_id"] for a in records[1]["annotations"]] == [7, 2]


def test_keypoints(load, name):
    def change(document):
        document["categories"][0]["keypoints"] = ["left_end", "right_end"]
        document["categories"][0]["skeleton"] = [[1, 2]]
        document["annotations"][0]["keypoints"] = [1, 2, 2, 0, 0, 0]

    records = load(change, dataset_name=name)
    assert records[1]["annotations"][0]["keypoints"] == [1.5, 2.5, 2, 0.5, 0.5, 0]
    metadata = MetadataCatalog.get(name)
    assert metadata.keypoint_names == ["left_end", "right_end"]
    assert metadata.keypoint_flip_map == [("left_end", "right_end")]
    assert metadata.keypoint_connection_rules[0][:2] == ("left_end", "right_end")
    load(change, dataset_name=name)  # twice is fine

    def change_more(document):
        change(document)
        document["annotations"][0]["keypoints"] = [1, 2, 2]

    with pytest.raises(InputError, match=r"annotation 0 of image 20 \(b\.jpg\): bad keypoints: .* 2 times"):
        load(change_more)


def test_keypoint_metadata_registered_by_hand_stays(load, name):
    MetadataCatalog.get(name).set(keypoint_names=["l", "r"], keypoint_flip_map=[("l", "r")])

    def change(document):
        document["categories"][0]["keypoints"] = ["left_end", "right_end"]

    load(change, dataset_name=name)
    assert MetadataCatalog.get(name).keypoint_names == ["l", "r"]


def test_register_coco_instances(tmp_path, name):
    path = tmp_path / "instances.json"
    register_coco_instances(name, {"color": "red"}, str(path), str(tmp_path), on_bad="drop")
    metadata = MetadataCatalog.get(name)
    assert (metadata.json_file, metadata.image_root) == (str(path), str(tmp_path))
    assert (metadata.evaluator_type, metadata.color) == ("coco", "red")
    with pytest.raises(InputError, match="does not exist"):
        DatasetCatalog.get(name)
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0]["bbox"] = [1, 1, 0, 0]
    path.write_text(json.dumps(document))
    assert [len(r["annotations"]) for r in DatasetCatalog.get(name)] == [1, 1, 0]
    with pytest.raises(InputError, match="registered already"):
        register_coco_instances(name, {}, path, tmp_path)


def test_classes_that_disagree_with_the_known_ones(load, name):
    MetadataCatalog.get(name).set(thing_classes=("fig", "nut"))
    with pytest.raises(
        InputError, match=r"3 categories \(all, fig, nut\) disagree .*2 of them \(fig, nut\)"
    ) as e:
        load(dataset_name=name)
    assert "\n" not in str(e.value)


def _set(index, **fields):
    return lambda document: document["annotations"][index].update(fields)


def _remove(index, key):
    return lambda document: document["annotations"][index].pop(key)


BAD_ANNOTATIONS = [
    (
        _set(1, image_id=11),
        r'annotation 5: unknown image_id: 11; allowed are the ids in "images", such as 20',
    ),
    (_set(1, image_id="10"), r"annotation 5: unknown image_id: '10'"),
    (_set(1, category_id=1), r"annotation 5 of image 10 \(a\.jpg\): unknown category_id: 1; .*: 0, 2, 7"),
    (_set(1, id=6), r"annotation 6 of image 20 \(b\.jpg\): annotation id used twice: 6"),
    (_set(1, id=None), r"annotation number 1 \(counted from 0\) of image 10 \(a\.jpg\): no id"),
    (_set(1, image_id=[10]), r"annotation 5: no image_id: .*\[10\]"),
    (_set(1, bbox=[1, 1, 0, 3]), r"annotation 5 of image 10 \(a\.jpg\): box of no area: .*\[1, 1, 0, 3\]"),
    (_remove(1, "bbox"), r"annotation 5 .*: no box"),
    (_set(1, segmentation=[[1, 1, 2, 2]]), r"annotation 5 .*: polygon with fewer than three points: .*has 2"),
    (_set(1, segmentation=[[1, 1, 2, 2, 3, float("nan")]]), r"annotation 5 .*: bad polygon: .*nan"),
    (_set(1, segmentation={"size": [6, 8], "counts": [48]}), r"annotation 5 .*: RLE of another size"),
    (_set(1, segments_info=[]), r"annotation 5 .*: panoptic segments"),
    (
        lambda d: d["annotations"].insert(1, "x"),
        r"annotation number 1 \(counted from 0\): not an object: 'x'",
    ),
]


@pytest.mark.parametrize("change, message", BAD_ANNOTATIONS)
def test_bad_annotations_are_refused(load, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as e:
        load(change)
    assert str(e.value).startswith(f"{tmp_path}/instances.json: annotation")
    assert "ON_BAD_ANNOTATION drop" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("change, message", BAD_ANNOTATIONS)
def test_bad_annotations_are_dropped(load, caplog, change, message):
    with caplog.at_level(logging.WARNING):
        records = load(change, on_bad="drop")
    assert sum(len(r["annotations"]) for r in records) in (2, 3)  # 3 where a fourth was put in
    (record,) = caplog.records
    assert "1 of " in record.getMessage()
    assert "The first: annotation" in record.getMessage()


def test_the_summary_counts(load, caplog):
    def change(document):
        document["annotations"][0]["bbox"] = [0, 0, 0, 0]
        document["annotations"][1]["bbox"] = [0, 0, 1, 0]

    with caplog.at_level(logging.WARNING):
        load(change, on_bad="drop")
    message = caplog.records[0].getMessage()
    assert "2 of 3 annotations" in message
    assert "2 x box of no area" in message
    assert "[0, 0, 0, 0]" in message


def test_bad_polygons_beside_good_ones_are_dropped_alone(load, caplog):
    change = _set(0, segmentation=[[1, 1, 2, 2], [1, 1, 5, 1, 1, 4]])
    with caplog.at_level(logging.WARNING):
        records = load(change, on_bad="drop")
    assert records[1]["annotations"][0]["segmentation"] == [[1, 1, 5, 1, 1, 4]]
    assert "object kept with its other polygons" in caplog.records[0].getMessage()


def test_nothing_left_is_an_error(load):
    def change(document):
        for annotation in document["annotations"]:
            annotation["bbox"] = [0, 0, 0, 0]

    with pytest.raises(InputError, match=r"all 3 annotations are bad. The first: annotation 0"):
        load(change, on_bad="drop")


def _without(key):
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    "change, message",
    [
        (_without("images"), '"images" is missing at the top level'),
        (_without("annotations"), '"annotations" is missing'),
        (_without("categories"), '"categories" is missing'),
        (lambda d: d.update(annotations={}), '"annotations" is a dict; it must be a list'),
        (lambda d: d["images"][1].update(id=20), "id 20 of 'a.jpg' is that of"),
        (lambda d: d["images"][1].pop("height"), '"height" and "width" of image 10'),
        (lambda d: d["categories"][1].update(id=7), "id 7 is that of"),
    ],
)
@pytest.mark.parametrize("on_bad", ["refuse", "drop"])
def test_faults_of_the_file_are_always_refused(load, change, message, on_bad):
    with pytest.raises(InputError, match=message):
        load(change, on_bad=on_bad)


def test_images_without_annotations(load):
    records = load(_without("annotations"), require_annotations=False)
    assert [r["annotations"] for r in records] == [[], [], []]


def test_on_bad_is_checked(load):
    with pytest.raises(InputError, match=r"on_bad .*is 'ignore'; allowed are"):
        load(on_bad="ignore")


def test_register_coco_has_the_name():
    from panomask.data.datasets import register_coco

    assert register_coco.register_coco_instances is register_coco_instances


def test_dropping_bad_annotations_is_known_to_the_evaluator(tmp_path):
    register_coco_instances("test_dropping", {}, tmp_path / "a.json", tmp_path, on_bad="drop")
    assert MetadataCatalog.get("test_dropping").on_bad_annotation == "drop"
    DatasetCatalog.remove("test_dropping")
    MetadataCatalog.remove("test_dropping")
