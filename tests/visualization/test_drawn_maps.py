"""Maps of model outputs and dataset dicts, from a hand-made panoptic PNG."""

from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_coding
import pytest
import torch
from PIL import Image

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BoxMode
from panomask.visualization.drawn_maps import (
    objects_alone,
    panoptic_segments,
    panoptic_truth,
    semantic_truth,
)

IDS = np.array([[300, 300, 0, 70000], [300, 300, 0, 70000], [5, 5, 5, 5]], dtype=np.int32)
SEPARATED = Metadata().set(stuff_classes=["things", "sky", "grass"], sem_seg_things_label=0, ignore_label=255)


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    write_segment_ids(tmp_path / "a.png", IDS)
    return {
        "file_name": "a.jpg",
        "height": 3,
        "width": 4,
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": [
            {"id": 70000, "category_id": 1, "isthing": True, "iscrowd": 0},
            {"id": 5, "category_id": 2, "isthing": False, "iscrowd": 0},
            {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 0},
        ],
        "annotations": [
            {"segment_id": 300, "category_id": 0, "bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYWH_ABS},
            {"segment_id": 70000, "category_id": 1},
        ],
    }


def test_ids_of_the_file_or_the_dict(record: dict[str, Any]) -> None:
    assert np.array_equal(panoptic_truth(record, SEPARATED), IDS)
    assert np.array_equal(panoptic_truth({**record, "pan_seg": torch.as_tensor(IDS)}, SEPARATED), IDS)


def test_a_file_that_disagrees_is_named(record: dict[str, Any]) -> None:
    without = {**record, "segments_info": record["segments_info"][1:]}
    with pytest.raises(InputError, match=r"a\.png: its pixels have segment id 70000"):
        panoptic_truth(without, SEPARATED)
    with pytest.raises(InputError, match=r"a\.png: 4 x 3 \(width x height\)"):
        panoptic_truth({**record, "height": 9}, SEPARATED)
    dropped = Metadata().set(on_bad_annotation="drop")
    assert np.array_equal(panoptic_truth(without, dropped), IDS)


def test_semantic_labels_follow_from_segments(record: dict[str, Any]) -> None:
    labels = semantic_truth(record, SEPARATED)
    assert labels is not None
    assert labels.tolist() == [[0, 0, 255, 0], [0, 0, 255, 0], [2, 2, 2, 2]]
    shared = semantic_truth(record, Metadata().set(stuff_classes=["cat", "dog", "grass"]))
    assert shared is not None
    assert shared.tolist() == [[0, 0, 255, 1], [0, 0, 255, 1], [2, 2, 2, 2]]


def test_a_reader_of_somebody_else_may_leave_segments_out(record: dict[str, Any]) -> None:
    """Detectron2 draws such dicts: what is not listed stays as it is."""
    without = {**record, "segments_info": record["segments_info"][1:]}
    metadata = Metadata().set(stuff_classes=["cat", "dog", "grass"])
    assert np.array_equal(panoptic_truth(without, metadata), IDS)
    labels = semantic_truth(without, metadata)
    assert labels is not None
    assert (labels[IDS == record["segments_info"][0]["id"]] == 255).all()


def test_semantic_labels_of_a_file_go_first(record: dict[str, Any], tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), 7, np.uint8)).save(tmp_path / "labels.png")
    labels = semantic_truth({**record, "sem_seg_file_name": tmp_path / "labels.png"}, SEPARATED)
    assert np.array_equal(labels, np.full((3, 4), 7))
    assert semantic_truth({"file_name": "a.jpg"}, SEPARATED) is None
    with pytest.raises(InputError, match=r"labels\.png: 4 x 3 \(width x height\)"):
        semantic_truth({**record, "sem_seg_file_name": tmp_path / "labels.png", "width": 5}, SEPARATED)


def test_objects_get_masks_and_boxes_of_their_segments(record: dict[str, Any]) -> None:
    alone = objects_alone(record, SEPARATED)
    assert alone.keys() == {"file_name", "height", "width", "annotations"}
    first, second = alone["annotations"]
    assert np.array_equal(mask_coding.decode(first["segmentation"]), IDS == 300)
    assert [first["bbox"], second["bbox"]] == [[0, 0, 2, 2], [3, 0, 1, 2]]
    with_ids = {**record, "pan_seg": IDS, "pan_seg_file_name": None}
    assert objects_alone(with_ids, SEPARATED) == alone
    polygons = {"annotations": [{"segmentation": [[0, 0, 1, 0, 1, 1]]}], "sem_seg_file_name": "x.png"}
    assert objects_alone(polygons, SEPARATED) == {"annotations": polygons["annotations"]}


def test_ids_with_a_divisor_say_their_class() -> None:
    metadata = Metadata(name="city").set(label_divisor=1000, thing_dataset_id_to_contiguous_id={24: 11})
    ids, infos = panoptic_segments(torch.tensor([[11001, 11002], [-1, 7000]]), None, metadata)
    assert ids.tolist() == [[11001, 11002], [-1, 7000]]
    assert [(info["id"], info["category_id"], info["isthing"]) for info in infos] == [
        (7000, 7, False),
        (11001, 11, True),
        (11002, 11, True),
    ]
    with pytest.raises(InputError, match="label_divisor"):
        panoptic_segments(torch.zeros(2, 2), None, Metadata())
