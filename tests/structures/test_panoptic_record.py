"""Objects of the segments of a panoptic PNG, by hand on one of 3 x 4 pixels."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BoxMode
from panomask.structures.panoptic_record import (
    has_masks_in_png,
    has_segments,
    objects_of_segments,
    read_segment_map,
    segment_map_of,
    stated_size,
)

IDS = np.array([[0, 7, 7, 9], [0, 7, 7, 9], [300, 300, 7, 300]])


@pytest.fixture
def record(tmp_path):
    write_segment_ids(tmp_path / "a.png", IDS)
    return {
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": [
            {"id": 300, "category_id": 1, "isthing": False, "iscrowd": 0},
            {"id": 9, "category_id": 2, "isthing": True, "iscrowd": 1},
            {"id": 7, "category_id": 0, "isthing": True, "iscrowd": 0},
        ],
        "annotations": [
            {"segment_id": 7, "category_id": 0, "iscrowd": 0},
            # A box that the JSON states is not trusted.
            {"segment_id": 9, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 1, 1], "bbox_mode": 0},
        ],
    }


def test_masks_boxes_and_areas_are_those_of_the_pixels(record):
    objects = objects_of_segments(record, read_segment_map(record))
    assert [o["bbox"] for o in objects] == [[1, 0, 2, 3], [3, 0, 1, 2]]
    assert [(o["area"], o["iscrowd"], o["bbox_mode"]) for o in objects] == [
        (5, 0, BoxMode.XYWH_ABS),
        (2, 1, BoxMode.XYWH_ABS),
    ]
    assert (mask_util.decode(objects[0]["segmentation"]) == (IDS == 7)).all()
    assert "segmentation" not in record["annotations"][0]


def test_without_annotations_the_things_are_the_objects(record):
    with_them = objects_of_segments(record, read_segment_map(record))
    del record["annotations"]
    without = objects_of_segments(record, read_segment_map(record))
    assert {o["segment_id"]: o["segmentation"] for o in with_them} == {
        o["segment_id"]: o["segmentation"] for o in without
    }
    assert [o["category_id"] for o in without] == [2, 0]


def test_masks_of_their_own_are_kept(record):
    assert has_segments(record)
    assert has_masks_in_png(record)
    polygon = {"segmentation": [[0, 0, 1, 0, 1, 1]], "category_id": 0, "segment_id": 7}
    record["annotations"][0] = polygon
    objects = objects_of_segments(record, read_segment_map(record))
    assert objects[0] == polygon
    assert objects[1]["bbox"] == [3, 0, 1, 2]
    assert not has_masks_in_png({**record, "annotations": [polygon]})
    assert not has_masks_in_png({**record, "annotations": []})
    assert not has_masks_in_png({"annotations": [{"segment_id": 7}]})
    assert not has_segments({**record, "segments_info": None})


def test_size_that_the_dict_states():
    assert stated_size({"height": 3, "width": 4}) == (3, 4)
    assert stated_size({"height": 3, "width": None}) is None
    assert stated_size({}) is None


def test_errors_name_the_png(record):
    record["annotations"][0]["segment_id"] = 8
    with pytest.raises(InputError, match=r"a\.png: an object has segment_id 8"):
        objects_of_segments(record, read_segment_map(record))
    with pytest.raises(InputError, match=r"a\.png: 4 x 3 "):
        read_segment_map({**record, "height": 4, "width": 4})
    with pytest.raises(InputError, match=r"a\.png: 4 x 3 "):
        read_segment_map(record, (4, 4))
    with pytest.raises(InputError, match=r"a\.png: its pixels have segment ids 7, 9"):
        read_segment_map({**record, "segments_info": record["segments_info"][:1]})


def test_pixels_of_dropped_segments_are_void(record):
    """Whether the dict or its data set says that segments were dropped."""
    record["segments_info"] = record["segments_info"][:1]
    expected = [[0] * 4, [0] * 4, [256, 256, 0, 256]]
    assert read_segment_map(record, on_bad="drop").tolist() == expected
    record["on_bad_annotation"] = "drop"
    assert read_segment_map(record).tolist() == expected
    assert segment_map_of(record, IDS).tolist() == expected
