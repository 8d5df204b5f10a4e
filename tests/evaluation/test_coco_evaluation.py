import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from panomask import distributed
from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import COCOEvaluator, encode_masks, evaluate_coco_json, instances_to_coco_json
from panomask.structures import Boxes, Instances

NAME = "test_coco_evaluation_set"
HEIGHT, WIDTH = 40, 60
BOXES = {11: [(2, 3, 12, 13), (20, 5, 50, 35)], 12: [(0, 0, 40, 39)], 13: []}
CLASSES = {11: [0, 1], 12: [1], 13: []}
DATASET_IDS = {5: 0, 90: 1}


def _polygon(box: tuple[int, ...]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def _content(with_masks: bool = True) -> dict:
    ids = list(DATASET_IDS)
    annotations = []
    for image_id, boxes in BOXES.items():
        for box, category in zip(boxes, CLASSES[image_id], strict=True):
            x0, y0, x1, y1 = box
            annotation = {
                "image_id": image_id,
                "category_id": ids[category],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            annotations.append({**annotation, **({"segmentation": [_polygon(box)]} if with_masks else {})})
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in BOXES],
        "categories": [{"id": 5, "name": "five"}, {"id": 90, "name": "ninety"}],
        "annotations": annotations,
    }


def _register(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
    MetadataCatalog.get(NAME).set(
        json_file=str(path), thing_classes=["five", "ninety"], thing_dataset_id_to_contiguous_id=DATASET_IDS
    )


@pytest.fixture
def truth(tmp_path) -> Iterator[Path]:
    _register(tmp_path / "truth.json", _content())
    yield tmp_path / "truth.json"
    MetadataCatalog.remove(NAME)


def _prediction(image_id: int, masks: bool = True, keep: slice = slice(None)) -> dict:
    """The truth of an image as a model would predict it."""
    boxes = torch.tensor(BOXES[image_id], dtype=torch.float32).reshape(-1, 4)[keep]
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.linspace(0.9, 0.5, len(boxes))
    instances.pred_classes = torch.tensor(CLASSES[image_id], dtype=torch.int64)[keep]
    if masks:
        instances.pred_masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(instances.pred_masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
    return {"instances": instances}


def _process(evaluator: COCOEvaluator, image_ids=tuple(BOXES), **kwargs) -> None:
    evaluator.reset()
    for image_id in image_ids:
        evaluator.process([{"image_id": image_id}], [_prediction(image_id, **kwargs)])


def test_the_truth_as_prediction_scores_100_and_is_saved(truth, tmp_path):
    evaluator = COCOEvaluator(NAME, output_dir=tmp_path / "out")
    _process(evaluator)
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    for scores in results.values():
        assert all(
            math.isnan(value) or value == pytest.approx(100)
            for name, value in scores.items()
            if name != "AR1"
        )
        assert [scores["AP-five"], scores["AP-ninety"]] == pytest.approx([100, 100])
    saved = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(saved) == 3
    assert {tuple(sorted(entry)) for entry in saved} == {
        ("bbox", "category_id", "image_id", "score", "segmentation")
    }
    assert [entry["category_id"] for entry in saved] == [5, 90, 90]
    assert saved[1]["bbox"] == [20, 5, 30, 30]
    assert evaluate_coco_json(truth, saved, "segm", use_mask_area=True) == pytest.approx(
        results["segm"], nan_ok=True
    )


def test_tasks_follow_the_predictions_unless_given(truth):
    evaluator = COCOEvaluator(NAME)
    _process(evaluator, masks=False)
    assert list(evaluator.evaluate()) == ["bbox"]
    evaluator = COCOEvaluator(NAME, tasks=("segm",))
    _process(evaluator)
    assert list(evaluator.evaluate()) == ["segm"]


def test_a_task_that_is_none_is_refused(truth):
    with pytest.raises(InputError, match=r"tasks \['sem_seg'\] cannot be scored; .*'keypoints'"):
        COCOEvaluator(NAME, tasks=("bbox", "sem_seg"))


def test_images_not_processed_count_as_missed_unless_left_out(truth):
    evaluator = COCOEvaluator(NAME)
    _process(evaluator, image_ids=[11])
    assert evaluator.evaluate()["bbox"]["AP-ninety"] < 60
    assert evaluator.evaluate(img_ids=[11])["bbox"]["AP-ninety"] == pytest.approx(100)


def test_an_image_that_comes_twice_counts_once(truth, caplog):
    evaluator = COCOEvaluator(NAME)
    _process(evaluator, image_ids=[11, 12, 13, 11])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    assert "1 images came more than once" in caplog.text


def test_a_dict_without_image_id_is_named(truth):
    evaluator = COCOEvaluator(NAME)
    evaluator.reset()
    with pytest.raises(InputError, match=r"x\.jpg: the dataset dict has no image_id"):
        evaluator.process([{"file_name": "x.jpg"}], [_prediction(11)])


def test_no_object_predicted_scores_zero_with_a_warning(truth, caplog):
    evaluator = COCOEvaluator(NAME)
    _process(evaluator, keep=slice(0))
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0
    assert "predicted no object at all" in caplog.text


def test_nothing_processed_gives_no_results(truth, caplog):
    assert COCOEvaluator(NAME).evaluate() == {}
    assert "no predictions were processed" in caplog.text


def test_annotations_without_masks_score_boxes_only(tmp_path, caplog):
    _register(tmp_path / "truth.json", _content(with_masks=False))
    evaluator = COCOEvaluator(NAME)
    _process(evaluator)
    assert list(evaluator.evaluate()) == ["bbox"]
    assert "no masks in its annotations" in caplog.text
    MetadataCatalog.remove(NAME)


def test_a_data_set_without_annotations_only_saves(tmp_path):
    content = _content()
    del content["annotations"]
    _register(tmp_path / "truth.json", content)
    evaluator = COCOEvaluator(NAME, output_dir=tmp_path)
    _process(evaluator)
    assert evaluator.evaluate() == {}
    assert len(json.loads((tmp_path / "coco_instances_results.json").read_text())) == 3
    MetadataCatalog.remove(NAME)


def test_a_class_that_the_data_set_does_not_have(truth):
    evaluator = COCOEvaluator(NAME)
    output = _prediction(11)
    output["instances"].pred_classes += 1
    evaluator.process([{"image_id": 11}], [output])
    with pytest.raises(InputError, match=r"predicted class 2, but .* has 2 classes"):
        evaluator.evaluate()


@pytest.mark.parametrize("with_output", [True, False])
def test_a_data_set_registered_in_python(tmp_path, with_output):
    name = f"{NAME}_python"
    box = {
        "bbox": list(BOXES[12][0]),
        "bbox_mode": 0,
        "category_id": 1,
        "segmentation": [_polygon(BOXES[12][0])],
    }
    record = {"file_name": "12.jpg", "image_id": 12, "height": HEIGHT, "width": WIDTH, "annotations": [box]}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(thing_classes=["five", "ninety"])
    evaluator = COCOEvaluator(name, output_dir=tmp_path if with_output else None)
    _process(evaluator, image_ids=[12])
    results = evaluator.evaluate()
    assert results["segm"]["AP-ninety"] == pytest.approx(100)
    assert math.isnan(results["segm"]["AP-five"])
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_an_earlier_conversion_is_kept_unless_a_panoptic_data_set_has_changed(tmp_path):
    name = f"{NAME}_panoptic"
    records = [{"file_name": "1.jpg", "image_id": 1, "height": HEIGHT, "width": WIDTH}]
    DatasetCatalog.register(name, lambda: records)
    (tmp_path / "panoptic.json").touch()
    MetadataCatalog.get(name).set(thing_classes=["x"], panoptic_json=str(tmp_path / "panoptic.json"))

    def images():
        return set(COCOEvaluator(name, output_dir=tmp_path)._coco_api.imgs)

    assert images() == {1}
    records.append({**records[0], "image_id": 2})
    assert images() == {1}
    later = (tmp_path / f"{name}_coco_format.json").stat().st_mtime + 1
    os.utime(tmp_path / "panoptic.json", (later, later))
    assert images() == {1, 2}
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_bad_annotations_that_the_reader_left_out_are_not_scored(tmp_path):
    """A box of no area can never be found; where the reader drops it, the truth is that of the reader."""
    content = _content()
    good = [
        {**box, "bbox_mode": 1, "category_id": DATASET_IDS[box["category_id"]]}
        for box in content["annotations"]
    ]
    content["annotations"].append({"image_id": 13, "category_id": 5, "bbox": [3, 3, 0, 0]})
    _register(tmp_path / "truth.json", content)
    records = [
        {
            **{"file_name": "", "image_id": i, "height": HEIGHT, "width": WIDTH},
            "annotations": [box for box in good if box["image_id"] == i],
        }
        for i in BOXES
    ]
    DatasetCatalog.register(NAME, lambda: records)
    evaluator = COCOEvaluator(NAME)
    _process(evaluator)
    assert evaluator.evaluate()["bbox"]["AP-five"] < 60
    MetadataCatalog.get(NAME).on_bad_annotation = "drop"
    evaluator = COCOEvaluator(NAME, output_dir=tmp_path)
    _process(evaluator)
    assert evaluator.evaluate()["segm"]["AP-five"] == pytest.approx(100)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_limits_on_detections(truth):
    evaluator = COCOEvaluator(NAME, max_dets_per_image=20)
    _process(evaluator)
    assert "AR20" in evaluator.evaluate()["bbox"]
    evaluator = COCOEvaluator(NAME, max_dets_per_image=[1, 5, 30])
    _process(evaluator)
    assert {"AR1", "AR5", "AR30"} < evaluator.evaluate()["bbox"].keys()


def test_more_objects_than_detections_are_warned_of(truth, caplog):
    evaluator = COCOEvaluator(NAME, max_dets_per_image=1)
    _process(evaluator)
    evaluator.evaluate()
    crowded = [boxes for boxes in BOXES.values() if len(boxes) > 1]
    assert f"{len(crowded)} images of {NAME} have more than 1 objects" in caplog.text


def test_instances_to_coco_json():
    first, second = instances_to_coco_json(_prediction(11)["instances"], img_id="x")
    assert (first["image_id"], first["category_id"], first["bbox"]) == ("x", 0, [2, 3, 10, 10])
    assert first["score"] == pytest.approx(0.9)
    assert isinstance(second["segmentation"]["counts"], str)
    assert mask_util.area(second["segmentation"]) == 900
    assert instances_to_coco_json(_prediction(13)["instances"], img_id="x") == []
    assert (
        "segmentation" not in instances_to_coco_json(_prediction(12, masks=False)["instances"], img_id="x")[0]
    )


def test_encode_masks_round_trip():
    masks = torch.rand(3, 17, 9) > 0.5
    decoded = [mask_util.decode(rle) for rle in encode_masks(masks)]
    np.testing.assert_array_equal(np.stack(decoded), masks.numpy())
    assert encode_masks(masks[:0]) == []


def _score_a_shard(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    _register(Path(folder) / f"truth{rank}.json", _content())
    evaluator = COCOEvaluator(NAME, output_dir=folder)
    _process(evaluator, image_ids=[[11, 12], [13]][rank])
    Path(folder, f"rank{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    distributed.destroy_process_group()


def test_two_processes_score_as_one(tmp_path):
    mp.spawn(_score_a_shard, args=(str(tmp_path),), nprocs=2)
    results = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert results[1] == {}
    assert [results[0][task]["AP"] for task in ("bbox", "segm")] == pytest.approx([100, 100])
    assert len(json.loads((tmp_path / "coco_instances_results.json").read_text())) == 3
