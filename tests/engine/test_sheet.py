"""Which images of a data set get onto the sheet."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.engine.sheet import comparable_output, draw_predictions
from panomask.structures import Boxes, BoxMode, Instances


class _Model(torch.nn.Module):
    """Finds nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []

    def forward(self, batch):
        self.shown += [int(Path(sample["file_name"]).stem) for sample in batch]
        nothing = Instances(
            (20, 30), pred_boxes=Boxes([]), scores=torch.zeros(0), pred_classes=torch.zeros(0, dtype=int)
        )
        return [{"instances": nothing}]


@pytest.fixture
def dataset(tmp_path):
    """dataset(numbers): a data set of ten images, of which those numbered so have an object."""

    def register(numbers):
        records = []
        for i in range(10):
            path = tmp_path / f"{i}.png"
            cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
            objects = [{"bbox": [1, 1, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}]
            records.append({"file_name": str(path), "annotations": objects if i in numbers else []})
        DatasetCatalog.register("sheet", lambda: records)
        return SimpleNamespace(dataset=records)

    yield register
    DatasetCatalog.remove("sheet")
    MetadataCatalog.pop("sheet", None)


@pytest.mark.parametrize(
    ("with_objects", "expected"),
    [(range(10), [2, 7]), ([4, 8, 9], [4, 8]), ([0, 1], [2, 7]), ([3], [3, 7])],
)
def test_images_with_objects_come_first(dataset, tmp_path, with_objects, expected):
    loader, model = dataset(with_objects), _Model()
    draw_predictions(model, "sheet", loader, 2, str(tmp_path / "sheet.png"))
    assert model.shown == expected
    assert model.training
    assert (tmp_path / "sheet.png").is_file()


def test_no_more_images_than_there_are(dataset, tmp_path):
    loader, model = dataset([]), _Model()
    draw_predictions(model, "sheet", loader, 99, str(tmp_path / "sheet.png"))
    assert model.shown == list(range(10))
    draw_predictions(model, "sheet", loader, 0, str(tmp_path / "none.png"))
    assert not (tmp_path / "none.png").exists()


IDS, INFOS = torch.ones(20, 30, dtype=torch.int32), [{"id": 1, "category_id": 1, "isthing": False}]
OBJECTS = Instances((20, 30), pred_boxes=Boxes([]), scores=torch.zeros(0), pred_classes=torch.zeros(0))
PANOPTIC = {"panoptic_seg": (IDS, INFOS), "instances": OBJECTS, "sem_seg": torch.zeros(2, 20, 30)}


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ({"segments_info": [], "pan_seg_file_name": "a.png", "annotations": []}, "panoptic_seg"),
        ({"sem_seg_file_name": "a.png", "annotations": []}, "panoptic_seg"),
        ({"annotations": []}, "instances"),
        ({"sem_seg_file_name": "a.png"}, "sem_seg"),
        ({}, None),
    ],
)
def test_what_the_truth_has_too_is_compared(truth, expected):
    found = comparable_output(PANOPTIC, truth)
    assert found is None if expected is None else list(found or ()) == [expected]
    assert comparable_output({"proposals": OBJECTS}, truth) is None


def test_a_sheet_of_segments(dataset, tmp_path):
    loader = dataset(range(10))
    for record in loader.dataset:
        record |= {"segments_info": INFOS, "pan_seg": IDS.numpy()}

    class Panoptic(torch.nn.Module):
        def forward(self, batch):
            return [PANOPTIC] * len(batch)

    draw_predictions(Panoptic(), "sheet", loader, 2, str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize("outputs", [{"depth": 3}, torch.zeros(1, 2), [{"depth": 3}], [torch.zeros(2)], []])
def test_outputs_of_research_models_are_left_alone(dataset, tmp_path, outputs):
    class Own(torch.nn.Module):
        def forward(self, batch):
            return outputs

    loader = dataset(range(10))
    draw_predictions(Own(), "sheet", loader, 2, str(tmp_path / "sheet.png"))
    own_samples = SimpleNamespace(dataset=[{"image": record["file_name"]} for record in loader.dataset])
    draw_predictions(_Model(), "sheet", own_samples, 2, str(tmp_path / "sheet.png"))
    assert not (tmp_path / "sheet.png").exists()


def test_arrays_are_as_good_as_tensors():
    truth = {"segments_info": [], "pan_seg_file_name": "a.png"}
    ids, infos = comparable_output({"panoptic_seg": (np.zeros((2, 3), np.int32), [])}, truth)["panoptic_seg"]
    assert isinstance(ids, torch.Tensor)
    assert infos == []
    labels = comparable_output({"sem_seg": np.zeros((4, 2, 3), np.float32)}, truth)["sem_seg"]
    assert isinstance(labels, torch.Tensor)
    assert comparable_output({"sem_seg": np.zeros((2, 3), np.int64)}, truth) is None
