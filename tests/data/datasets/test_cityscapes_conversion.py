"""Cityscapes' instance images as COCO panoptic files, by a picture of 3 x 4 pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panomask.data.datasets.cityscapes_conversion import cityscapes_to_panoptic
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids

# road 7, a car 26001, a group of cars 26, static 4 and a caravan 29000, which are not scored
PIXELS = np.array([[7, 7, 26001, 26001], [7, 26, 26, 26001], [4, 29000, 7, 7]], dtype=np.uint16)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    city = tmp_path / "gtFine" / "val" / "bonn"
    city.mkdir(parents=True)
    Image.fromarray(PIXELS).save(city / "bonn_000001_000019_gtFine_instanceIds.png")
    return city.parent


def test_file_and_pictures(split: Path):
    json_file, folder = cityscapes_to_panoptic(split)
    assert json_file == split.parent / "cityscapes_panoptic_val.json"
    assert folder == split.parent / "cityscapes_panoptic_val"
    document = json.loads(json_file.read_text())
    assert document["images"] == [
        {
            "id": "bonn_000001_000019",
            "file_name": "bonn/bonn_000001_000019_leftImg8bit.png",
            "height": 3,
            "width": 4,
        }
    ]
    (annotation,) = document["annotations"]
    assert annotation["file_name"] == "bonn_000001_000019_gtFine_panoptic.png"
    assert annotation["segments_info"] == [
        {"id": 7, "category_id": 7, "iscrowd": 0, "area": 5, "bbox": [0, 0, 4, 3]},
        {"id": 26, "category_id": 26, "iscrowd": 1, "area": 2, "bbox": [1, 1, 2, 1]},
        {"id": 26001, "category_id": 26, "iscrowd": 0, "area": 3, "bbox": [2, 0, 2, 2]},
    ]
    ids = read_segment_ids(folder / annotation["file_name"])
    np.testing.assert_array_equal(ids, np.where((PIXELS == 4) | (PIXELS == 29000), 0, PIXELS))
    assert len(document["categories"]) == 19
    assert document["categories"][13] == {
        "id": 26,
        "name": "car",
        "supercategory": "vehicle",
        "isthing": 1,
        "color": [0, 0, 142],
    }


def test_bad_input_is_named(split: Path, tmp_path: Path):
    with pytest.raises(InputError, match="folder does not exist"):
        cityscapes_to_panoptic(tmp_path / "none")
    with pytest.raises(InputError, match=r"no <city>/\*_gtFine_instanceIds.png is there"):
        cityscapes_to_panoptic(split.parent)
    Image.fromarray(PIXELS + np.uint16(8000)).save(
        split / "bonn" / "bonn_000002_000019_gtFine_instanceIds.png"
    )
    with pytest.raises(InputError, match=r"bonn_000002_000019_gtFine_instanceIds.png: holds 34001, which is"):
        cityscapes_to_panoptic(split)
    assert not (split.parent / "cityscapes_panoptic_val.json").exists()
