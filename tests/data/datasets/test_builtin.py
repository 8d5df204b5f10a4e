"""The built-in names, below the data root of the moment."""

import json

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets import builtin
from panomask.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from panomask.errors import InputError

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}


@pytest.fixture
def coco_val(monkeypatch, tmp_path):
    """A coco_2017_val with one image and two objects, one of them of no area."""
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    categories = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 2, 0, 4], "iscrowd": 0},
    ]
    content = {"images": [IMAGE], "annotations": annotations, "categories": categories}
    for folder in ("annotations", "val2017", "test2017"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    folder = tmp_path / "coco" / "annotations"
    (folder / "instances_val2017.json").write_text(json.dumps(content))
    del content["annotations"]
    (folder / "image_info_test-dev2017.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_classes():
    assert len(COCO_CATEGORIES) == 80
    by_id = {c["id"]: c["name"] for c in COCO_CATEGORIES}
    assert list(by_id) == sorted(by_id)
    assert (by_id[1], by_id[13], by_id[44], by_id[90]) == ("person", "stop sign", "bottle", "toothbrush")
    assert set(range(1, 91)) - set(by_id) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert len({tuple(c["color"]) for c in COCO_CATEGORIES}) == 80
    meta = _get_builtin_metadata("coco")
    assert meta["thing_classes"][79] == "toothbrush"
    assert meta["thing_dataset_id_to_contiguous_id"][90] == 79
    with pytest.raises(InputError, match="coco"):
        _get_builtin_metadata("cityscape")


def test_class_names_are_known_without_files(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    metadata = MetadataCatalog.get("coco_2014_minival")
    assert metadata.thing_classes[0] == "person"
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == str(tmp_path / "coco/annotations/instances_minival2014.json")
    assert metadata.image_root == str(tmp_path / "coco/val2014")
    monkeypatch.setenv("PANOMASK_DATASETS", "elsewhere")
    assert MetadataCatalog.get("coco_2014_minival").image_root == "elsewhere/coco/val2014"


def test_missing_files_say_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    with pytest.raises(InputError) as e:
        DatasetCatalog.get("coco_2017_train")
    message = str(e.value)
    for part in (
        "instances_train2017.json",
        f"{tmp_path}/coco/train2017",
        "PANOMASK_DATASETS",
        "cocodataset.org",
    ):
        assert part in message
    assert "\n" not in message


def test_published_sets_drop_bad_annotations(coco_val):
    (record,) = DatasetCatalog.get("coco_2017_val")
    assert record["file_name"] == str(coco_val / "coco" / "val2017" / "a.jpg")
    assert [a["category_id"] for a in record["annotations"]] == [79]


def test_test_images_have_no_annotations(coco_val):
    (record,) = DatasetCatalog.get("coco_2017_test-dev")
    assert record["annotations"] == []


def test_names():
    for name in ("coco_2014_train", "coco_2014_val", "coco_2014_valminusminival", "coco_2017_val_100"):
        assert name in DatasetCatalog.list()
    for name in ("shapes_train", "shapes_val"):
        assert name in DatasetCatalog.list()


def test_explicit_root(monkeypatch, tmp_path):
    """Registered once more under a fixed root, as research code does with its own data folder."""
    names = [name for name in DatasetCatalog.list() if name.startswith("coco_")]
    saved = {name: DatasetCatalog.pop(name) for name in names}
    metadata = {name: MetadataCatalog.pop(name) for name in names}
    try:
        builtin.register_all_coco(tmp_path / "root")
        paths = MetadataCatalog.get("coco_2017_val")
        assert paths.json_file == str(tmp_path / "root/coco/annotations/instances_val2017.json")
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        builtin.register_all_coco()
    assert saved.keys() == metadata.keys()
