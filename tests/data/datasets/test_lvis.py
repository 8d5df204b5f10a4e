"""The LVIS reader: file names by coco_url, federated fields, classes and their counts."""

import json

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.lvis import get_lvis_instances_meta, load_lvis_json, register_lvis_instances
from panomask.data.datasets.lvis_categories import LVIS_CLASSES
from panomask.errors import InputError

URL = "http://images.cocodataset.org/val2017/000000397133.jpg"


def document(**changes):
    return {
        "images": [
            {
                "id": 397133,
                "coco_url": URL,
                "file_name": "COCO_val2014_000000397133.jpg",
                "height": 40,
                "width": 60,
                "neg_category_ids": [2],
                "not_exhaustive_category_ids": [5],
            },
            {"id": 7, "coco_url": URL.replace("val", "train"), "height": 4, "width": 6},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 397133,
                "category_id": 5,
                "bbox": [1, 2, 3, 4],
                "area": 6,
                "segmentation": [[1, 2, 4, 2, 4, 6]],
            }
        ],
        "categories": [
            {"id": 5, "name": "zebra", "frequency": "r", "image_count": 3},
            {"id": 2, "name": "acorn", "frequency": "c", "image_count": 40},
        ],
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    (tmp_path / "coco").mkdir()

    def to_file(content):
        path = tmp_path / "lvis.json"
        path.write_text(json.dumps(content))
        return path

    return to_file


@pytest.fixture
def registered(write, tmp_path):
    register_lvis_instances("my_lvis", {"extra": 1}, write(document()), tmp_path / "coco")
    yield "my_lvis"
    DatasetCatalog.remove("my_lvis")
    MetadataCatalog.remove("my_lvis")


def test_records(registered, tmp_path):
    small, large = DatasetCatalog.get(registered)
    assert small["file_name"] == str(tmp_path / "coco/train2017/000000397133.jpg")
    assert large["file_name"] == str(tmp_path / "coco/val2017/000000397133.jpg")
    assert (small["neg_category_ids"], small["not_exhaustive_category_ids"]) == ([], [])
    assert (large["neg_category_ids"], large["not_exhaustive_category_ids"]) == ([2], [5])
    (instance,) = large["annotations"]
    assert instance["category_id"] == 1
    assert instance["segmentation"] == [[1, 2, 4, 2, 4, 6]]


def test_classes_and_their_counts_come_from_the_file(registered):
    DatasetCatalog.get(registered)
    metadata = MetadataCatalog.get(registered)
    assert metadata.thing_classes == ["acorn", "zebra"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 5: 1}
    assert metadata.class_image_count == [{"id": 2, "image_count": 40}, {"id": 5, "image_count": 3}]
    assert (metadata.evaluator_type, metadata.extra) == ("lvis", 1)


def test_without_a_data_set_ids_stay(write, tmp_path):
    images = [{"id": 397133, "file_name": "a/b.jpg", "height": 40, "width": 60}]
    (record,) = load_lvis_json(write(document(images=images)), tmp_path / "coco")
    assert record["annotations"][0]["category_id"] == 5
    assert record["file_name"] == str(tmp_path / "coco/a/b.jpg")


def test_categories_without_counts(write, tmp_path):
    content = document(categories=[{"id": 5, "name": "zebra"}])
    load_lvis_json(write(content), tmp_path / "coco", "no_counts")
    assert MetadataCatalog.get("no_counts").get("class_image_count") is None
    MetadataCatalog.remove("no_counts")


def test_names_known_beforehand_stay(write, tmp_path):
    """A checkpoint compares names: they must not depend on whether the file has been read."""
    MetadataCatalog.get("known").set(thing_classes=["Acorn", "Zebra"])
    load_lvis_json(write(document()), tmp_path / "coco", "known")
    assert MetadataCatalog.get("known").thing_classes == ["Acorn", "Zebra"]
    MetadataCatalog.remove("known")


def test_another_vocabulary_than_the_known_one_is_refused(write, tmp_path):
    MetadataCatalog.get("other").set(**get_lvis_instances_meta("lvis_v1_train"))
    with pytest.raises(InputError, match="2 categories have other ids than the 1203"):
        load_lvis_json(write(document()), tmp_path / "coco", "other")
    MetadataCatalog.remove("other")


@pytest.mark.parametrize("url", ["a.jpg", 5, "http://x/..", "http://../a.jpg", ""])
def test_a_bad_url_is_named(write, tmp_path, url):
    content = document()
    content["images"][1]["coco_url"] = url
    with pytest.raises(InputError, match=r'lvis\.json: image number 1 .*"coco_url"'):
        load_lvis_json(write(content), tmp_path / "coco")


@pytest.mark.parametrize("ids", [3, "25", [2.5], ["2"], {"2": 1}])
def test_bad_lists_of_categories_are_named(write, tmp_path, ids):
    content = document()
    content["images"][1]["neg_category_ids"] = ids
    with pytest.raises(InputError, match=r'lvis\.json: image number 1 .*"neg_category_ids" is'):
        load_lvis_json(write(content), tmp_path / "coco")


def test_known_vocabularies():
    assert {version: len(names) for version, names in LVIS_CLASSES.items()} == {"v0.5": 1230, "v1": 1203}
    for names in LVIS_CLASSES.values():
        assert len(set(names)) == len(names)
        assert names[0] in ("acorn", "aerosol_can")
        assert names[-1] == "zucchini"
        assert sum("," in name or "\n" in name for name in names) == 0
    v1 = get_lvis_instances_meta("lvis_v1_val")
    assert v1["thing_classes"][v1["thing_dataset_id_to_contiguous_id"][1203]] == "zucchini"
    assert len(get_lvis_instances_meta("lvis_v0.5_val_cocofied")["thing_classes"]) == 80
    with pytest.raises(InputError, match="no version of LVIS"):
        get_lvis_instances_meta("lvis_v2_val")
