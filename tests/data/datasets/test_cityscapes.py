"""The Cityscapes reader on a street of rectangles."""

import builtins
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from panomask.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from panomask.data.datasets.cityscapes import load_cityscapes_instances, load_cityscapes_semantic
from panomask.data.datasets.cityscapes_labels import CITYSCAPES_LABELS, INSTANCE_LABELS
from panomask.errors import InputError

NAME = "ulm_000001_000019_"


def rectangle(label, x0, y0, x1, y1, **more):
    """Cityscapes' polygon through the border pixels of x0..x1, y0..y1, all of which are filled."""
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


STREET = [
    rectangle("road", 0, 0, 39, 19),
    rectangle("car", 2, 2, 11, 11),
    rectangle("cargroup", 20, 2, 29, 5),
    rectangle("license plate", 3, 3, 5, 4),
    rectangle("person", 8, 2, 11, 11),  # in front of the car's right part
    rectangle("caravan", 2, 8, 7, 11),  # not scored, but hides the car's lower left
    rectangle("truck", 0, 0, 39, 19, deleted=1),
    rectangle("bus", 32, 12, 35, 15),
    rectangle("pole", 30, 10, 39, 19),  # hides the bus
]


@pytest.fixture
def street(tmp_path):
    """(image_dir, gt_dir) of one image, 40 x 20, in one city."""
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "ulm").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(tmp_path / "leftImg8bit/ulm" / f"{NAME}leftImg8bit.png")
    write_street(tmp_path, STREET)
    ids = np.full((20, 40), 7, dtype=np.uint16)
    ids[2:12, 2:12] = 26000
    ids[2:6, 20:30] = 26
    ids[2:12, 8:12] = 24003
    ids[8:12, 2:8] = 29000
    ids[10:20, 30:40] = 17
    Image.fromarray(ids).save(tmp_path / "gtFine/ulm" / f"{NAME}gtFine_instanceIds.png")
    return tmp_path / "leftImg8bit", tmp_path / "gtFine"


def write_street(root, objects):
    content = {"imgHeight": 20, "imgWidth": 40, "objects": objects}
    (root / "gtFine/ulm" / f"{NAME}gtFine_polygons.json").write_text(json.dumps(content))


def masks(record):
    """Class and crowd flag -> mask of the only such object."""
    found = {}
    for annotation in record["annotations"]:
        rles = mask_util.frPyObjects(annotation["segmentation"], record["height"], record["width"])
        rle = mask_util.merge(rles) if isinstance(rles, list) else rles
        found[annotation["category_id"], annotation["iscrowd"]] = mask_util.decode(rle).astype(bool)
    assert len(found) == len(record["annotations"])
    return found


def expected_masks():
    car, person, cars = (np.zeros((20, 40), dtype=bool) for _ in range(3))
    car[2:8, 2:8] = True
    person[2:12, 8:12] = True
    cars[2:6, 20:30] = True
    return {(2, 0): car, (0, 0): person, (2, 1): cars}


def test_polygons_without_what_is_in_front(street):
    (record,) = load_cityscapes_instances(*street)
    assert (record["image_id"], record["height"], record["width"]) == (f"{NAME}leftImg8bit.png", 20, 40)
    assert record["file_name"] == str(street[0] / "ulm" / f"{NAME}leftImg8bit.png")
    found, expected = masks(record), expected_masks()
    assert found.keys() == expected.keys()  # neither the deleted truck nor the hidden bus
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key], mask)
    boxes = {(a["category_id"], a["iscrowd"]): a["bbox"] for a in record["annotations"]}
    np.testing.assert_allclose(boxes[0, 0], (8, 2, 12, 12))
    np.testing.assert_allclose(boxes[2, 1], (20, 2, 30, 6))


def test_pixels(street):
    (record,) = load_cityscapes_instances(*street, from_json=False, to_polygons=False)
    found, expected = {}, expected_masks()
    for annotation in record["annotations"]:
        found[annotation["category_id"], annotation["iscrowd"]] = annotation
    assert found.keys() == expected.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(mask_util.decode(found[key]["segmentation"]).astype(bool), mask)
    assert found[2, 0]["bbox"] == (2, 2, 7, 7)  # pixel indices, as Detectron2 has them here
    (record,) = load_cityscapes_instances(*street, from_json=False)
    outline = next(a for a in record["annotations"] if a["category_id"] == 0)["segmentation"][0]
    assert (min(outline[0::2]), max(outline[0::2])) == (8, 11)


def test_semantic(street):
    labels = street[1] / "ulm" / f"{NAME}gtFine_labelTrainIds.png"
    with pytest.raises(
        InputError, match=r"labelTrainIds\.png: file does not exist.*csCreateTrainIdLabelImgs"
    ):
        load_cityscapes_semantic(*street)
    Image.new("L", (40, 20)).save(labels)
    (record,) = load_cityscapes_semantic(*street)
    assert record == {
        "file_name": str(street[0] / "ulm" / f"{NAME}leftImg8bit.png"),
        "sem_seg_file_name": str(labels),
        "height": 20,
        "width": 40,
    }


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rectangle("cat", 0, 0, 1, 1), "object number 0 .*'cat' is no label of Cityscapes"),
        ({"label": "car", "polygon": [[0, 0], [1, 1]]}, "object number 0 .*its polygon is"),
        ({"label": "car"}, "object number 0 .*its polygon is None"),
        ({"label": "car", "polygon": []}, r"object number 0 .*its polygon is \[\]"),
        ({"label": "car", "polygon": [[0, 0, 1]] * 3}, "object number 0 .*its polygon is"),
        (
            {"label": "car", "polygon": [[0, 0], [9, float("nan")], [9, 9]]},
            "object number 0 .*its polygon is",
        ),
        ({"label": "car", "polygon": [[0, 0], [9, 1e30], [9, 9]]}, "object number 0 .*its polygon is"),
        ("car", "object number 0 .*is car"),
    ],
)
def test_a_bad_object_is_named(street, bad, message):
    write_street(street[0].parent, [bad])
    with pytest.raises(InputError, match=f"polygons.json: {message}"):
        load_cityscapes_instances(*street)


def test_a_file_without_objects_is_named(street):
    write_street(street[0].parent, None)
    with pytest.raises(InputError, match=r'polygons\.json: "objects" is None'):
        load_cityscapes_instances(*street)
    write_street(street[0].parent, [])
    assert load_cityscapes_instances(*street)[0]["annotations"] == []
    Image.new("RGB", (40, 20)).save(street[1] / "ulm" / f"{NAME}gtFine_instanceIds.png")
    with pytest.raises(InputError, match=r"instanceIds\.png: has 3 colours"):
        load_cityscapes_instances(*street, from_json=False)


def test_missing_files_are_named(street, tmp_path):
    with pytest.raises(InputError, match="none: folder does not exist"):
        load_cityscapes_instances(tmp_path / "none", street[1])
    with pytest.raises(InputError, match="no image"):
        load_cityscapes_instances(street[1], street[1])
    with pytest.raises(InputError, match="from_json=False"):
        load_cityscapes_instances(*street, to_polygons=False)
    (street[1] / "ulm" / f"{NAME}gtFine_instanceIds.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"instanceIds\.png: cannot be read"):
        load_cityscapes_instances(*street, from_json=False)
    (street[1] / "ulm" / f"{NAME}gtFine_polygons.json").write_text("[]")
    with pytest.raises(InputError, match="imgHeight"):
        load_cityscapes_instances(*street)


def test_shapely_is_asked_for(street, monkeypatch):
    real = builtins.__import__

    def without_shapely(name, *rest):
        if name == "shapely":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_shapely)
    with pytest.raises(InputError, match="pip install 'shapely>=2'"):
        load_cityscapes_instances(*street)


def test_labels():
    assert len(CITYSCAPES_LABELS) == 35
    assert len({label.name for label in CITYSCAPES_LABELS}) == 35
    assert [c["trainId"] for c in CITYSCAPES_CATEGORIES] == list(range(19))
    assert [c["name"] for c in CITYSCAPES_CATEGORIES if c["isthing"]] == [x.name for x in INSTANCE_LABELS]
    assert [label.id for label in INSTANCE_LABELS] == [24, 25, 26, 27, 28, 31, 32, 33]
    assert CITYSCAPES_CATEGORIES[6] == {
        "color": (250, 170, 30),
        "isthing": 0,
        "id": 19,
        "trainId": 6,
        "name": "traffic light",
    }
