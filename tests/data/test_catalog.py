"""panomask.data.catalog: names, set-once metadata, the data root."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from panomask.data.catalog import (
    Metadata,
    MetadataCatalog,
    _DatasetCatalog,
    _MetadataCatalog,
    data_root,
    things_label,
)
from panomask.errors import InputError


def test_dataset_catalog_round_trip():
    catalog = _DatasetCatalog()
    catalog.register("b", lambda: [{"image_id": 1}])
    catalog.register("a", list)
    assert catalog.get("b") == [{"image_id": 1}]
    assert catalog.list() == ["a", "b"]
    assert "a" in catalog
    assert len(catalog) == 2
    assert "a, b" in str(catalog)
    assert catalog.pop("a") is list
    catalog.remove("b")
    assert catalog.list() == []


def test_dataset_catalog_refuses_a_name_that_is_taken():
    catalog = _DatasetCatalog()
    catalog.register("a", list)
    with pytest.raises(InputError, match="'a' is registered already"):
        catalog.register("a", list)
    with pytest.raises(TypeError, match="function"):
        catalog.register("c", [])


def test_unknown_dataset_names_the_nearest_and_the_known():
    catalog = _DatasetCatalog()
    for name in ("coco_2017_train", "coco_2017_val", "shapes_val"):
        catalog.register(name, list)
    with pytest.raises(
        InputError, match=r"'coco_2017_vall'.*Did you mean coco_2017_val.*Known: .*shapes_val"
    ) as e:
        catalog.get("coco_2017_vall")
    assert "\n" not in str(e.value)
    assert "DATASETS.REGISTER.<name>.ANNOTATIONS" in str(e.value)
    assert "PANOPTIC_ROOT" in str(e.value)
    with pytest.raises(InputError, match="Known: none"):
        _DatasetCatalog().get("x")


def test_metadata_is_set_once():
    metadata = Metadata(name="m")
    assert metadata.set(thing_classes=["a", "b"], evaluator_type="coco") is metadata
    metadata.thing_classes = ["a", "b"]  # the same value is fine
    with pytest.raises(InputError, match=r"'thing_classes' of data set 'm' is \['a', 'b'\].*\['c'\]") as e:
        metadata.thing_classes = ["c"]
    assert "\n" not in str(e.value)
    assert metadata.thing_classes == ["a", "b"]
    assert metadata.as_dict() == {"name": "m", "thing_classes": ["a", "b"], "evaluator_type": "coco"}


def test_metadata_compares_arrays():
    metadata = Metadata(name="m", sizes=np.array([1, 2]))
    metadata.sizes = np.array([1, 2])
    with pytest.raises(InputError, match="sizes"):
        metadata.sizes = np.array([1, 3])


def test_colors_may_be_changed():
    metadata = Metadata(name="m", stuff_colors=[[1, 2, 3]])
    metadata.set(stuff_colors=[(4, 5, 6)])
    assert metadata.stuff_colors == [(4, 5, 6)]


def test_metadata_unknown_field():
    metadata = Metadata(name="m", json_file="f")
    assert metadata.get("stuff_classes") is None
    assert metadata.get("stuff_classes", 3) == 3
    assert not hasattr(metadata, "stuff_classes")
    with pytest.raises(AttributeError, match="'m' has no 'stuff_classes'; it has: json_file, name"):
        _ = metadata.stuff_classes
    assert Metadata().name == "N/A"


def test_metadata_can_be_copied_and_pickled():
    metadata = Metadata(name="m", thing_classes=["a"])
    assert pickle.loads(pickle.dumps(metadata)) == metadata
    assert copy.deepcopy(metadata) == metadata


def test_metadata_catalog():
    catalog = _MetadataCatalog()
    assert catalog.get("x") is catalog.get("x")
    assert catalog.get("x").as_dict() == {"name": "x"}
    assert catalog.list() == ["x"]
    assert catalog.pop("x").name == "x"
    assert catalog.pop("x", None) is None
    with pytest.raises(KeyError):
        catalog.remove("x")
    with pytest.raises(InputError, match="name"):
        catalog.get("")


def test_provided_fields_are_fresh_at_every_lookup():
    catalog = _MetadataCatalog()
    paths = {"json_file": "a.json"}
    catalog.provide("x", lambda: paths)
    catalog.get("x").set(thing_classes=["c"])
    assert catalog.get("x").json_file == "a.json"
    paths = {"json_file": "b.json"}
    assert catalog.get("x").json_file == "b.json"
    assert catalog.get("x").thing_classes == ["c"]
    catalog.remove("x")
    assert catalog.get("x").as_dict() == {"name": "x"}
    catalog.provide("y", lambda: paths)
    assert catalog.list() == ["x", "y"]
    assert catalog.pop("y").json_file == "b.json"
    assert catalog.list() == ["x"]


def test_data_root(monkeypatch):
    monkeypatch.delenv("PANOMASK_DATASETS", raising=False)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert data_root() == Path("datasets")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/d2")
    assert data_root() == Path("/d2")
    monkeypatch.setenv("PANOMASK_DATASETS", "~/sets")
    assert data_root() == Path.home() / "sets"


def test_the_catalogs_are_importable_where_detectron2_users_look():
    from panomask.data import DatasetCatalog, Metadata, MetadataCatalog

    assert "coco_2017_train" in DatasetCatalog.list()
    assert isinstance(MetadataCatalog.get("coco_2017_train"), Metadata)


def test_empty_global_name_is_refused():
    with pytest.raises(InputError):
        MetadataCatalog.get("")


def test_the_label_of_all_things():
    assert things_label(Metadata().set(stuff_classes=["things", "sky"])) == 0
    assert things_label(Metadata().set(stuff_classes=["sky"])) is None
    assert things_label(Metadata().set(stuff_classes=["sky", "all"], sem_seg_things_label=1)) == 1
    assert things_label(Metadata().set(stuff_classes=["things"], sem_seg_things_label=None)) is None
    assert things_label(Metadata()) == 0
