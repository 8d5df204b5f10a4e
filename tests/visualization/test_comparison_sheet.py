"""The sheet has a truth and a prediction for every image, and is written whole or not at all."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from panomask.data.catalog import Metadata
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import Boxes, BoxMode, Instances, PolygonMasks
from panomask.visualization import comparison_sheet

METADATA = Metadata().set(thing_classes=["cat"], thing_colors=[[255, 0, 0]])
POLYGON = np.array([10.0, 10, 40, 10, 40, 40, 10, 40])
IMAGE = np.zeros((60, 80, 3), dtype=np.uint8)


def _prediction(score: float) -> Instances:
    masks = torch.zeros(1, 60, 80, dtype=torch.bool)
    masks[0, 10:40, 10:40] = True
    boxes = Boxes(torch.tensor([[10.0, 10, 40, 40]]))
    return Instances(
        (60, 80),
        pred_boxes=boxes,
        pred_masks=masks,
        scores=torch.tensor([score]),
        pred_classes=torch.tensor([0]),
    )


TRUTH_DICT = {
    "annotations": [
        {
            "bbox": [10, 10, 30, 30],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "segmentation": [POLYGON.tolist()],
        }
    ]
}
TRUTH_INSTANCES = Instances(
    (60, 80),
    gt_boxes=Boxes(torch.tensor([[10.0, 10, 40, 40]])),
    gt_classes=torch.tensor([0]),
    gt_masks=PolygonMasks([[POLYGON]]),
)


def _red_halves(path: Path, columns: int = 1) -> list[int]:
    """Pixels of a strong red in the left and right half of a sheet with one pair a row."""
    sheet = cv2.imread(str(path))[..., ::-1].astype(int)
    is_red = (sheet[..., 0] > 90) & (sheet[..., 1:].max(axis=2) < 60)
    middle = sheet.shape[1] // 2
    return [int(is_red[:, :middle].sum()), int(is_red[:, middle:].sum())]


@pytest.mark.parametrize("truth", [TRUTH_DICT, TRUTH_INSTANCES], ids=["dict", "instances"])
def test_truth_is_left_and_prediction_right(truth: object, tmp_path: Path) -> None:
    comparison_sheet([(IMAGE, truth, _prediction(0.9))], METADATA, tmp_path / "sheet.png")  # type: ignore[list-item]
    left, right = _red_halves(tmp_path / "sheet.png")
    assert left == pytest.approx(right, rel=0.1)
    assert left > 900
    comparison_sheet([(IMAGE, truth, _prediction(0.3))], METADATA, tmp_path / "low.png")  # type: ignore[list-item]
    left, right = _red_halves(tmp_path / "low.png")
    assert left > 900
    assert right == 0


@pytest.mark.parametrize("truth", [TRUTH_DICT, TRUTH_INSTANCES], ids=["dict", "instances"])
def test_truth_has_no_masks_where_the_model_has_none(truth: object, tmp_path: Path) -> None:
    prediction = _prediction(0.9)
    comparison_sheet([(IMAGE, truth, prediction)], METADATA, tmp_path / "masks.png")  # type: ignore[list-item]
    prediction.remove("pred_masks")
    comparison_sheet([(IMAGE, truth, prediction)], METADATA, tmp_path / "boxes.png")  # type: ignore[list-item]
    with_mask, _ = _red_halves(tmp_path / "masks.png")
    left, right = _red_halves(tmp_path / "boxes.png")
    assert left == pytest.approx(right, rel=0.2)  # the label is longer
    assert left < with_mask / 2


def test_size_and_format(tmp_path: Path) -> None:
    rows = [(IMAGE, TRUTH_DICT, _prediction(0.9))] * 3 + [
        (np.zeros((90, 30, 3), np.uint8), {"annotations": []}, _prediction(0.9)[:0])
    ]
    comparison_sheet(rows, METADATA, tmp_path / "a" / "sheet.jpg", tile_size=(100, 120))
    comparison_sheet(rows, METADATA, tmp_path / "one.png", columns=1, tile_size=(100, 120))
    wide, tall = cv2.imread(str(tmp_path / "a" / "sheet.jpg")), cv2.imread(str(tmp_path / "one.png"))
    assert wide.shape[1] > 4 * 120
    assert wide.shape[0] > 2 * 100
    assert tall.shape[0] > 4 * 100
    assert 2 * 120 < tall.shape[1] < 3 * 120
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["one.png", "sheet.jpg"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        comparison_sheet([], METADATA, tmp_path / "sheet.png")
    with pytest.raises(InputError, match=r"sheet\.txt"):
        comparison_sheet([(IMAGE, TRUTH_DICT, _prediction(0.9))], METADATA, tmp_path / "sheet.txt")
    assert list(tmp_path.iterdir()) == []


PANOPTIC_METADATA = Metadata().set(
    thing_classes=["cat"],
    thing_colors=[[255, 0, 0]],
    stuff_classes=["things", "floor"],
    stuff_colors=[[255, 0, 0], [0, 0, 255]],
    sem_seg_things_label=0,
)


@pytest.fixture
def segmented(tmp_path: Path) -> dict[str, Any]:
    """A cat of 30 x 30 pixels on nothing, as a panoptic dataset dict."""
    ids = np.zeros((60, 80), dtype=np.int32)
    ids[10:40, 10:40] = 4
    write_segment_ids(tmp_path / "a.png", ids)
    return {
        "height": 60,
        "width": 80,
        "pan_seg_file_name": str(tmp_path / "a.png"),
        "segments_info": [{"id": 4, "category_id": 0, "isthing": True, "iscrowd": 0}],
        "annotations": [{"segment_id": 4, "category_id": 0, "iscrowd": 0}],
    }


def _map(value: int) -> torch.Tensor:
    ids = torch.zeros(60, 80, dtype=torch.int32)
    ids[10:40, 10:40] = value
    return ids


OUTPUTS = {
    "panoptic": {"panoptic_seg": (_map(1), [{"id": 1, "category_id": 0, "isthing": True, "score": 0.9}])},
    "semantic": {"sem_seg": torch.stack([_map(2) - 1, torch.zeros(60, 80) - 2])},
    "objects": {"instances": _prediction(0.9), "sem_seg": torch.zeros(2, 60, 80)},
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_panoptic_truth_beside_every_kind_of_output(
    segmented: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    comparison_sheet([(IMAGE, segmented, OUTPUTS[kind])], PANOPTIC_METADATA, tmp_path / "sheet.png")
    left, right = _red_halves(tmp_path / "sheet.png")
    assert left > 900
    assert right > 900
    if kind != "semantic":  # there every pixel of the prediction has a class
        assert left == pytest.approx(right, rel=0.15)
