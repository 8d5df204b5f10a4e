"""The built-in names, below the data root of the moment."""

import json
import shutil

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets import builtin
from panomask.data.datasets.builtin_meta import (
    COCO_CATEGORIES,
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
    _get_builtin_metadata,
)
from panomask.errors import InputError

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}


@pytest.fixture
def coco_val(monkeypatch, tmp_path):
    """A coco_2017_val with one image and two objects, one of them of no area."""
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    categories = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]]
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
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    assert COCO_CATEGORIES[:80] == things
    by_id = {c["id"]: c["name"] for c in things}
    assert list(by_id) == sorted(by_id)
    assert (by_id[1], by_id[13], by_id[44], by_id[90]) == ("person", "stop sign", "bottle", "toothbrush")
    assert set(range(1, 91)) - set(by_id) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert len({tuple(c["color"]) for c in COCO_CATEGORIES}) == len(COCO_CATEGORIES) == 133
    meta = _get_builtin_metadata("coco")
    assert meta["thing_classes"][79] == "toothbrush"
    assert meta["thing_dataset_id_to_contiguous_id"][90] == 79
    with pytest.raises(InputError, match="coco"):
        _get_builtin_metadata("cityscape")


def test_coco_stuff():
    stuff = [c for c in COCO_CATEGORIES if not c["isthing"]]
    by_id = {c["id"]: c["name"] for c in stuff}
    assert len(by_id) == 53
    assert list(by_id) == sorted(by_id)
    assert (by_id[92], by_id[149], by_id[184], by_id[200]) == ("banner", "road", "tree-merged", "rug-merged")
    assert next(c["color"] for c in stuff if c["id"] == 187) == [70, 130, 180]
    separated = _get_builtin_metadata("coco_panoptic_separated")
    assert len(separated["stuff_classes"]) == len(set(separated["stuff_classes"])) == 54
    assert (separated["stuff_classes"][0], separated["stuff_classes"][40]) == ("things", "sky")
    assert separated["stuff_dataset_id_to_contiguous_id"][187] == 40
    assert separated["stuff_dataset_id_to_contiguous_id"][0] == 0
    assert len(separated["stuff_colors"]) == 54
    assert len(separated["thing_classes"]) == 80
    standard = _get_builtin_metadata("coco_panoptic_standard")
    assert standard["thing_classes"] == standard["stuff_classes"] == [c["name"] for c in COCO_CATEGORIES]
    assert standard["thing_dataset_id_to_contiguous_id"][90] == 79
    assert standard["stuff_dataset_id_to_contiguous_id"][92] == 80


def test_ade20k_classes():
    classes = MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes
    assert len(set(classes)) == len(classes) == 150
    assert (classes[0], classes[12], classes[149]) == ("wall", "person", "flag")


@pytest.fixture
def coco_panoptic(monkeypatch, tmp_path):
    """A coco_2017_val with one image of one segment, and the file of instances."""
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    coco = tmp_path / "coco"
    for folder in ("annotations", "val2017", "panoptic_val2017"):
        (coco / folder).mkdir(parents=True)
    (coco / "val2017" / "a.jpg").touch()
    (coco / "panoptic_val2017" / "a.png").touch()
    segment = {"id": 4, "category_id": 187, "area": 200, "bbox": [0, 0, 20, 10], "iscrowd": 0}
    panoptic = {"image_id": 1, "file_name": "a.png", "segments_info": [segment]}
    content = {"images": [IMAGE], "annotations": [panoptic], "categories": COCO_CATEGORIES}
    (coco / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    content = {"images": [IMAGE], "annotations": [], "categories": things}
    (coco / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return coco


def test_coco_panoptic(coco_panoptic):
    (standard,) = DatasetCatalog.get("coco_2017_val_panoptic")
    assert standard["segments_info"][0]["category_id"] == 119
    (separated,) = DatasetCatalog.get("coco_2017_val_panoptic_separated")
    assert separated["segments_info"][0]["category_id"] == 40
    assert separated["annotations"] == []
    (stuff,) = DatasetCatalog.get("coco_2017_val_panoptic_stuffonly")
    assert stuff["pan_seg_file_name"] == str(coco_panoptic / "panoptic_val2017/a.png")
    assert MetadataCatalog.get("coco_2017_val_panoptic_stuffonly").sem_seg_root is None
    (coco_panoptic / "panoptic_stuff_val2017").mkdir()
    root = MetadataCatalog.get("coco_2017_val_panoptic_stuffonly").sem_seg_root
    assert root == str(coco_panoptic / "panoptic_stuff_val2017")
    (coco_panoptic / "panoptic_stuff_val2017/a.png").touch()
    shutil.rmtree(coco_panoptic / "panoptic_val2017")
    (stuff,) = DatasetCatalog.get("coco_2017_val_panoptic_stuffonly")
    assert set(stuff) == {"file_name", "sem_seg_file_name"}
    with pytest.raises(InputError, match=r"panoptic_val2017 not found.*panoptic_annotations_trainval2017"):
        builtin.check_files("coco_2017_val_panoptic_separated")
    with pytest.raises(InputError, match=r"panoptic_train2017 and .*panoptic_train2017.json not found"):
        builtin.check_files("coco_2017_train_panoptic_stuffonly")


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


def test_person_keypoints():
    names = COCO_PERSON_KEYPOINT_NAMES
    assert len(names) == 17
    assert (names[0], names[2], names[5], names[10], names[16]) == (
        *("nose", "right_eye", "left_shoulder"),
        *("right_wrist", "right_ankle"),
    )
    assert len(COCO_PERSON_KEYPOINT_FLIP_MAP) == 8
    assert ("left_knee", "right_knee") in COCO_PERSON_KEYPOINT_FLIP_MAP
    assert {name for edge in KEYPOINT_CONNECTION_RULES for name in edge[:2]} == set(names)
    assert ("nose", "right_eye", (51, 102, 255)) in KEYPOINT_CONNECTION_RULES
    metadata = MetadataCatalog.get("keypoints_coco_2017_val")
    assert metadata.thing_classes == ["person"]
    assert list(metadata.keypoint_names) == list(names)


def test_keypoints(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    person = {"id": 1, "name": "person", "keypoints": list(COCO_PERSON_KEYPOINT_NAMES), "skeleton": [[1, 2]]}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    annotation["keypoints"] = [3, 4, 2] * 17
    for folder in ("annotations", "val2017"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    path = tmp_path / "coco/annotations/person_keypoints_val2017.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": [annotation], "categories": [person]}))
    (record,) = DatasetCatalog.get("keypoints_coco_2017_val")
    assert record["annotations"][0]["category_id"] == 0
    assert record["annotations"][0]["keypoints"] == [3.5, 4.5, 2] * 17


NAMES = (
    "coco_2014_train coco_2014_val coco_2014_valminusminival coco_2017_val_100 keypoints_coco_2014_minival"
    " keypoints_coco_2017_train keypoints_coco_2017_val_100 lvis_v1_train lvis_v1_test_dev"
    " lvis_v0.5_val_rand_100 lvis_v0.5_train_cocofied cityscapes_fine_instance_seg_train"
    " cityscapes_fine_sem_seg_test voc_2007_trainval voc_2007_test voc_2012_val shapes_train shapes_val"
    " shapes_panoptic_train shapes_panoptic_val coco_2017_train_panoptic coco_2017_val_100_panoptic"
    " coco_2017_train_panoptic_separated coco_2017_val_100_panoptic_stuffonly cityscapes_fine_panoptic_val"
).split()


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert name in DatasetCatalog.list()
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes
    assert metadata.evaluator_type in (
        "coco",
        "lvis",
        "pascal_voc",
        "cityscapes_instance",
        "cityscapes_sem_seg",
        "cityscapes_panoptic_seg",
        "coco_panoptic_seg",
        "sem_seg",
    )


@pytest.mark.parametrize(
    ("name", "paths", "num_classes"),
    [
        ("keypoints_coco_2014_val", ["coco/annotations/person_keypoints_val2014.json", "coco/val2014"], 1),
        ("lvis_v1_val", ["lvis/lvis_v1_val.json", "coco"], 1203),
        ("lvis_v0.5_test", ["lvis/lvis_v0.5_image_info_test.json", "coco"], 1230),
        ("lvis_v0.5_val_cocofied", ["lvis/lvis_v0.5_val_cocofied.json", "coco"], 80),
        (
            "cityscapes_fine_instance_seg_val",
            ["cityscapes/leftImg8bit/val", "cityscapes/gtFine/val"],
            8,
        ),
        (
            "voc_2012_train",
            ["VOC2012/ImageSets/Main/train.txt", "VOC2012/Annotations", "VOC2012/JPEGImages"],
            20,
        ),
    ],
)
def test_families_say_where_their_files_belong(monkeypatch, tmp_path, name, paths, num_classes):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    assert len(MetadataCatalog.get(name).thing_classes) == num_classes
    with pytest.raises(InputError) as e:
        DatasetCatalog.get(name)
    for path in paths:
        assert str(tmp_path / path) in str(e.value)
    assert "http" in str(e.value)
    assert "\n" not in str(e.value)


def test_voc_below_the_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / "VOC2007" / folder).mkdir(parents=True)
    (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("")
    assert DatasetCatalog.get("voc_2007_test") == []
    metadata = MetadataCatalog.get("voc_2007_test")
    assert (metadata.dirname, metadata.year, metadata.split) == (str(tmp_path / "VOC2007"), 2007, "test")


def test_explicit_root(monkeypatch, tmp_path):
    """Registered once more under a fixed root, as research code does with its own data folder."""
    names = [name for name in DatasetCatalog.list() if name.startswith(("coco_", "keypoints_coco_"))]
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
