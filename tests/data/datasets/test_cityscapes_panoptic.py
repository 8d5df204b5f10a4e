"""panomask.data.datasets.cityscapes_panoptic: one street."""

import json

import pytest

from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.data.datasets.cityscapes_panoptic import get_cityscapes_panoptic_files
from panomask.errors import InputError

IMAGE_ID = "ulm_000001_000019"
SEGMENTS = [
    {"id": 7, "category_id": 7, "area": 9, "bbox": [0, 0, 3, 3], "iscrowd": 0},
    {"id": 26000, "category_id": 26, "area": 9, "bbox": [0, 0, 3, 3], "iscrowd": 0},
]


@pytest.fixture
def street(monkeypatch, tmp_path):
    """cityscapes_fine_panoptic_val with one image; returns its folder."""
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    root = tmp_path / "cityscapes"
    for folder in ("leftImg8bit/val/ulm", "gtFine/val/ulm", "gtFine/cityscapes_panoptic_val"):
        (root / folder).mkdir(parents=True)
    (root / f"leftImg8bit/val/ulm/{IMAGE_ID}_leftImg8bit.png").touch()
    (root / f"gtFine/cityscapes_panoptic_val/{IMAGE_ID}_gtFine_panoptic.png").touch()
    write(root)
    return root


def write(root, image_id=IMAGE_ID, road_id=7):
    annotation = {
        "image_id": image_id,
        "file_name": f"{IMAGE_ID}_gtFine_panoptic.png",
        "segments_info": SEGMENTS,
    }
    categories = [{"id": road_id, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}]
    content = {"images": [], "annotations": [annotation], "categories": categories}
    (root / "gtFine/cityscapes_panoptic_val.json").write_text(json.dumps(content))
    return content


def test_classes_are_train_ids(street):
    (record,) = DatasetCatalog.get("cityscapes_fine_panoptic_val")
    assert record["image_id"] == IMAGE_ID
    assert record["file_name"] == str(street / f"leftImg8bit/val/ulm/{IMAGE_ID}_leftImg8bit.png")
    found = [(s["id"], s["category_id"], s["isthing"]) for s in record["segments_info"]]
    assert found == [(7, 0, False), (26000, 13, True)]
    assert "sem_seg_file_name" not in record
    labels = street / f"gtFine/val/ulm/{IMAGE_ID}_gtFine_labelTrainIds.png"
    labels.touch()
    (record,) = DatasetCatalog.get("cityscapes_fine_panoptic_val")
    assert record["sem_seg_file_name"] == str(labels)
    metadata = MetadataCatalog.get("cityscapes_fine_panoptic_val")
    assert metadata.gt_dir == str(street / "gtFine/val")
    assert metadata.stuff_classes[13] == metadata.thing_classes[13] == "car"


def test_things_and_stuff_apart(street):
    (record,) = DatasetCatalog.get("cityscapes_fine_panoptic_val_separated")
    found = [(s["id"], s["category_id"], s["isthing"]) for s in record["segments_info"]]
    assert found == [(7, 1, False), (26000, 2, True)]
    assert [(a["segment_id"], a["category_id"]) for a in record["annotations"]] == [(26000, 2)]
    metadata = MetadataCatalog.get("cityscapes_fine_panoptic_val_separated")
    assert metadata.thing_classes[2] == "car"
    assert metadata.stuff_classes[:2] == ["things", "road"]
    assert (len(metadata.thing_classes), len(metadata.stuff_classes)) == (8, 12)
    assert metadata.stuff_colors[1] == [128, 64, 128]


def test_files(street):
    files = get_cityscapes_panoptic_files(street / "leftImg8bit/val", street / "gtFine/x", write(street))
    assert files == [
        (
            str(street / f"leftImg8bit/val/ulm/{IMAGE_ID}_leftImg8bit.png"),
            str(street / f"gtFine/x/{IMAGE_ID}_gtFine_panoptic.png"),
            SEGMENTS,
        )
    ]


def test_bad_files(street):
    write(street, image_id="ulm_2")
    with pytest.raises(InputError, match=r"annotation number 0 .*no image <city>/ulm_2_leftImg8bit\.png in"):
        DatasetCatalog.get("cityscapes_fine_panoptic_val")
    write(street, road_id=0)
    with pytest.raises(InputError, match=r"'road' has id 0, .*without --use-train-id"):
        DatasetCatalog.get("cityscapes_fine_panoptic_val")
    (street / "gtFine/cityscapes_panoptic_val.json").unlink()
    with pytest.raises(InputError, match=r"convert_panoptic.py from-cityscapes"):
        DatasetCatalog.get("cityscapes_fine_panoptic_val")
