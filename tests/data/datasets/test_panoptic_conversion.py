"""From panoptic files to instances and label images, and back again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.data.datasets.panoptic_conversion import panoptic_to_instances, panoptic_to_semantic
from panomask.data.datasets.panoptic_creation import instances_to_panoptic
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids, write_segment_ids
from panomask.semantic_png import read_semantic_labels

IDS = np.array([[0, 700, 700, 9], [8, 700, 70000, 9], [8, 8, 70000, 9]])
CATEGORIES = [
    {"id": 3, "name": "sky", "isthing": 0},
    {"id": 4, "name": "dog", "isthing": 1, "color": [9, 8, 7]},
    {"id": 6, "name": "car", "isthing": 1},
    {"id": 7, "name": "mud", "isthing": 0},
]
SEGMENTS = [
    {"id": 9, "category_id": 7, "iscrowd": 0},
    {"id": 70000, "category_id": 4, "iscrowd": 1},
    {"id": 700, "category_id": 6, "iscrowd": 0},
    {"id": 8, "category_id": 3, "iscrowd": 0},
]


@pytest.fixture
def panoptic(tmp_path: Path) -> tuple[Path, Path]:
    images = [
        {"id": 5, "file_name": "a.jpg", "height": 3, "width": 4},
        {"id": 2, "file_name": "b/c.jpg", "height": 3, "width": 4},
    ]
    annotations = [
        {"image_id": 5, "file_name": "a.png", "segments_info": SEGMENTS},
        {"image_id": 2, "file_name": "c.png", "segments_info": []},
    ]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    (tmp_path / "pngs").mkdir()
    write_segment_ids(tmp_path / "pngs" / "a.png", IDS)
    write_segment_ids(tmp_path / "pngs" / "c.png", np.zeros_like(IDS))
    return tmp_path / "panoptic.json", tmp_path / "pngs"


def test_instances(panoptic: tuple[Path, Path], tmp_path: Path):
    assert panoptic_to_instances(*panoptic, tmp_path / "instances.json") == 2
    document = json.loads((tmp_path / "instances.json").read_text())
    assert [image["id"] for image in document["images"]] == [2, 5]
    assert document["images"][0]["file_name"] == "b/c.jpg"
    assert document["categories"] == [
        {"id": 4, "name": "dog", "color": [9, 8, 7]},
        {"id": 6, "name": "car"},
    ]
    crowd, car = document["annotations"]
    assert (mask_util.decode(crowd.pop("segmentation")) == (IDS == 70000)).all()
    assert (mask_util.decode(car.pop("segmentation")) == (IDS == 700)).all()
    shared = {"image_id": 5, "category_id": 4, "iscrowd": 1, "area": 2, "bbox": [2, 1, 1, 2]}
    assert crowd == {"id": 1, **shared, "segment_id": 70000}
    shared = {"image_id": 5, "category_id": 6, "iscrowd": 0, "area": 3, "bbox": [1, 0, 2, 2]}
    assert car == {"id": 2, **shared, "segment_id": 700}


def test_instances_of_stuff(panoptic: tuple[Path, Path], tmp_path: Path):
    assert panoptic_to_instances(*panoptic, tmp_path / "instances.json", with_stuff=True) == 4
    document = json.loads((tmp_path / "instances.json").read_text())
    assert [entry["category_id"] for entry in document["annotations"]] == [7, 4, 6, 3]
    assert len(document["categories"]) == 4


@pytest.mark.parametrize(
    "layout, classes, expected",
    [
        (
            "things-first",
            ["things", "sky", "mud"],
            [[255, 0, 0, 2], [1, 0, 0, 2], [1, 1, 0, 2]],
        ),
        (
            "all-classes",
            ["sky", "dog", "car", "mud"],
            [[255, 2, 2, 3], [0, 2, 1, 3], [0, 0, 1, 3]],
        ),
    ],
)
def test_label_images(
    panoptic: tuple[Path, Path], tmp_path: Path, layout: str, classes: list[str], expected: Any
):
    assert panoptic_to_semantic(*panoptic, tmp_path / "labels", layout=layout) == classes
    np.testing.assert_array_equal(read_semantic_labels(tmp_path / "labels" / "a.png"), expected)
    assert (read_semantic_labels(tmp_path / "labels" / "b" / "c.png") == 255).all()
    written = json.loads((tmp_path / "labels" / "classes.json").read_text())
    assert [entry["name"] for entry in written] == classes
    assert [entry["id"] for entry in written] == list(range(len(classes)))


@pytest.mark.parametrize("layout", ["things-first", "all-classes"])
def test_there_and_back(panoptic: tuple[Path, Path], tmp_path: Path, layout: str):
    panoptic_to_instances(*panoptic, tmp_path / "instances.json")
    panoptic_to_semantic(*panoptic, tmp_path / "labels", layout=layout)
    instances_to_panoptic(
        tmp_path / "instances.json",
        tmp_path / "back.json",
        tmp_path / "back",
        semantic_root=tmp_path / "labels",
        stuff=json.loads((tmp_path / "labels" / "classes.json").read_text()),
    )
    document = json.loads((tmp_path / "back.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    back = read_segment_ids(tmp_path / "back" / "a.png")
    (annotation,) = [entry for entry in document["annotations"] if entry["image_id"] == 5]
    found = {
        (names[s["category_id"]], s["iscrowd"], s["area"], *np.flatnonzero(back == s["id"]))
        for s in annotation["segments_info"]
    }
    names = {category["id"]: category["name"] for category in CATEGORIES}
    assert found == {
        (names[s["category_id"]], s["iscrowd"], (IDS == s["id"]).sum(), *np.flatnonzero(IDS == s["id"]))
        for s in SEGMENTS
    }
    assert not back[IDS == 0].any()


def test_a_fault_in_a_png_is_named_and_leaves_no_file(panoptic: tuple[Path, Path], tmp_path: Path):
    write_segment_ids(panoptic[1] / "a.png", np.where(IDS == 700, 70, IDS))
    with pytest.raises(InputError, match=r"a\.png: its pixels have segment id 70, which segments_info does"):
        panoptic_to_instances(*panoptic, tmp_path / "instances.json")
    assert not (tmp_path / "instances.json").exists()


def test_bad_arguments(panoptic: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(InputError, match="layout is 'other'; allowed are things-first, all-classes"):
        panoptic_to_semantic(*panoptic, tmp_path / "labels", layout="other")
    with pytest.raises(InputError, match="is read by this conversion"):
        panoptic_to_semantic(*panoptic, panoptic[1], overwrite=True)
    with pytest.raises(InputError, match="is read by this conversion"):
        panoptic_to_instances(*panoptic, panoptic[0], overwrite=True)


def test_more_classes_than_a_label_image_holds(panoptic: tuple[Path, Path], tmp_path: Path):
    document = json.loads(panoptic[0].read_text())
    document["categories"] += [{"id": 10 + i, "name": f"{i}", "isthing": i % 2} for i in range(251)]
    panoptic[0].write_text(json.dumps(document))
    assert len(panoptic_to_semantic(*panoptic, tmp_path / "most", layout="all-classes")) == 255
    document["categories"].append({"id": 300, "name": "one more", "isthing": 0})
    panoptic[0].write_text(json.dumps(document))
    with pytest.raises(InputError, match="256 classes, but a label image holds 0 to 254"):
        panoptic_to_semantic(*panoptic, tmp_path / "labels", layout="all-classes")
