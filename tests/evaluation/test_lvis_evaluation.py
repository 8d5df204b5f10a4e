"""`LVISEvaluator` from predictions to numbers."""

import json

import pytest
import torch

from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.datasets import register_lvis_instances
from panomask.errors import InputError
from panomask.evaluation import LVISEvaluator
from panomask.structures import Boxes, Instances

BOX = [10.0, 10.0, 40.0, 40.0]


@pytest.fixture
def lvis(tmp_path):
    """A data set of one image with one object, of the second of two categories (ids 3 and 8)."""
    image = {"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}
    image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    annotation = {"id": 1, "image_id": 1, "category_id": 8, "bbox": [10, 10, 30, 30], "area": 900}
    annotation["segmentation"] = [[10, 10, 40, 10, 40, 40, 10, 40]]
    categories = [{"id": i, "name": n, "frequency": f} for i, n, f in ((8, "b", "r"), (3, "a", "f"))]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": categories}))
    register_lvis_instances("tiny_lvis", {}, path, tmp_path)
    DatasetCatalog.get("tiny_lvis")
    yield "tiny_lvis"
    DatasetCatalog.remove("tiny_lvis")
    MetadataCatalog.remove("tiny_lvis")


def predictions(classes, scores):
    instances = Instances((60, 80))
    instances.pred_boxes = Boxes(torch.tensor([BOX] * len(classes)))
    instances.scores = torch.tensor(scores)
    instances.pred_classes = torch.tensor(classes)
    instances.pred_masks = torch.zeros(len(classes), 60, 80, dtype=torch.bool)
    instances.pred_masks[:, 10:40, 10:40] = True
    return instances


def test_boxes_and_masks(lvis, tmp_path):
    evaluator = LVISEvaluator(lvis, output_dir=tmp_path / "out")
    evaluator.process([{"image_id": 1}], [{"instances": predictions([1, 0], [0.9, 0.8])}])
    results = evaluator.evaluate()
    assert set(results) == {"bbox", "segm"}
    for metrics in results.values():
        assert [metrics[key] for key in ("AP", "AP50", "APs", "APr")] == pytest.approx([100] * 4)
    written = json.loads((tmp_path / "out" / "lvis_instances_results.json").read_text())
    assert [entry["category_id"] for entry in written] == [8, 3]


def test_limit_and_tasks(lvis):
    evaluator = LVISEvaluator(lvis, ("bbox",), max_dets_per_image=1)
    evaluator.process([{"image_id": 1}], [{"instances": predictions([1, 0], [0.7, 0.8])}])
    results = evaluator.evaluate()
    assert set(results) == {"bbox"}
    assert results["bbox"]["AP"] == 0
    with pytest.raises(InputError, match="img_ids"):
        evaluator.evaluate(img_ids=[1])


def test_what_it_cannot_score_is_refused_at_once(lvis):
    with pytest.raises(InputError, match=r"tasks \['keypoints'\]"):
        LVISEvaluator(lvis, ("keypoints",))
    with pytest.raises(InputError, match="'of_python' names no annotation file"):
        LVISEvaluator("of_python")
    MetadataCatalog.remove("of_python")
