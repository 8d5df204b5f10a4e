"""Objects of the segments of a panoptic PNG, by hand on one of 3 x 4 pixels."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.evaluation.segment_truth import has_objects_in_png, objects_of_segments, semantic_truth
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BoxMode

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
    objects, size = objects_of_segments(record, Metadata())
    assert size == (3, 4)
    assert [o["bbox"] for o in objects] == [[1, 0, 2, 3], [3, 0, 1, 2]]
    assert [(o["area"], o["iscrowd"], o["bbox_mode"]) for o in objects] == [
        (5, 0, BoxMode.XYWH_ABS),
        (2, 1, BoxMode.XYWH_ABS),
    ]
    assert (mask_util.decode(objects[0]["segmentation"]) == (IDS == 7)).all()
    assert "segmentation" not in record["annotations"][0]


def test_without_annotations_the_things_are_the_objects(record):
    with_them, _ = objects_of_segments(record, Metadata())
    del record["annotations"]
    without, _ = objects_of_segments(record, Metadata())
    assert {o["segment_id"]: o["segmentation"] for o in with_them} == {
        o["segment_id"]: o["segmentation"] for o in without
    }
    assert [o["category_id"] for o in without] == [2, 0]


def test_masks_of_their_own_are_kept(record):
    assert has_objects_in_png(record)
    record["annotations"] = [{"segmentation": [[0, 0, 1, 0, 1, 1]], "category_id": 0}]
    assert not has_objects_in_png(record)
    assert not has_objects_in_png({"annotations": [{"segment_id": 7}]})
    assert not has_objects_in_png({**record, "annotations": []})


def test_labels_of_things_and_of_stuff(record):
    metadata = Metadata().set(stuff_classes=["things", "sky"])
    expected = [[255, 0, 0, 0], [255, 0, 0, 0], [1, 1, 0, 1]]
    assert semantic_truth(record, metadata, 255).tolist() == expected
    metadata = Metadata().set(stuff_classes=["dog", "sky", "cat"])  # one list of things and stuff
    expected = [[99, 0, 0, 2], [99, 0, 0, 2], [1, 1, 0, 1]]
    assert semantic_truth(record, metadata, 99).tolist() == expected


def test_errors_name_the_png(record):
    record["annotations"][0]["segment_id"] = 8
    with pytest.raises(InputError, match=r"a\.png: an object has segment_id 8"):
        objects_of_segments(record, Metadata())
    record |= {"height": 4, "width": 4}
    with pytest.raises(InputError, match=r"a\.png: 4 x 3 "):
        objects_of_segments(record, Metadata())
