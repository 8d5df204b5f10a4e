import itertools

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from panomask.data.catalog import MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import COCOEvaluator, load_ground_truth
from panomask.evaluation.coco_api import COCOeval_opt, _evaluate_predictions_on_coco
from panomask.json_file import write_json
from panomask.structures import Boxes, Instances

NAME = "test_coco_api_set"
TRUTH = {
    "images": [{"id": 1, "file_name": "1.jpg", "height": 40, "width": 60}],
    "categories": [{"id": 7, "name": "seven"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [20, 20, 10, 10], "area": 100, "iscrowd": 0},
    ],
}
FOUND = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "score": 0.9}
HALF_FOUND = 51 / 101
"""AP where precision is 1 up to half the recall: 51 of COCO's 101 recall points."""


def test_stats_are_pycocotools():
    truth = load_ground_truth(TRUTH)
    scored = _evaluate_predictions_on_coco(truth, [FOUND], "bbox", cocoeval_fn=COCOeval_opt)
    assert scored.stats[:3] == pytest.approx([HALF_FOUND] * 3)
    ours = scored.stats
    scored.summarize()
    np.testing.assert_allclose(ours, scored.stats)
    assert -1 in ours  # there are no large objects


def test_limits_and_images():
    truth = load_ground_truth(TRUTH)
    second = {**FOUND, "bbox": [20, 20, 10, 10], "score": 0.5}
    both = _evaluate_predictions_on_coco(truth, [FOUND, second], "bbox")
    one = _evaluate_predictions_on_coco(truth, [FOUND, second], "bbox", max_dets_per_image=[1, 1, 1])
    assert both.stats[0] == pytest.approx(1)
    assert one.stats[0] == pytest.approx(HALF_FOUND)
    none = _evaluate_predictions_on_coco(truth, [FOUND], "bbox", img_ids=[], use_fast_impl=False)
    assert none.stats[0] == -1


@pytest.mark.parametrize("choice", [{"use_fast_impl": False}, {"cocoeval_fn": COCOeval}])
def test_either_choice_demands_pycocotools_itself(choice):
    truth = load_ground_truth(TRUTH)
    slow = _evaluate_predictions_on_coco(truth, [FOUND], "bbox", **choice)
    fast = _evaluate_predictions_on_coco(truth, [FOUND], "bbox")
    assert type(slow) is COCOeval
    assert type(fast) is COCOeval_opt
    np.testing.assert_array_equal(slow.stats, fast.stats)
    np.testing.assert_array_equal(slow.eval["precision"], fast.eval["precision"])


def test_another_implementation_is_refused():
    class Other(COCOeval):
        pass

    with pytest.raises(InputError, match="cocoeval_fn"):
        _evaluate_predictions_on_coco(load_ground_truth(TRUTH), [FOUND], "bbox", cocoeval_fn=Other)


class ResearchEvaluator(COCOEvaluator):
    """Overrides what evaluators of published code override, by the members that they use."""

    def process(self, inputs, outputs):
        for record, output in zip(inputs, outputs, strict=True):
            found = output["instances"].to(self._cpu_device)
            box = found.pred_boxes.tensor[0].tolist()
            entry = {"image_id": record["image_id"], "category_id": 0, "bbox": box, "score": 0.9}
            self._predictions.append({"image_id": record["image_id"], "instances": [entry]})

    def _eval_predictions(self, predictions, img_ids=None):
        self._logger.info("Scoring")
        results = list(itertools.chain(*[x["instances"] for x in predictions]))
        to_dataset_id = {v: k for k, v in self._metadata.thing_dataset_id_to_contiguous_id.items()}
        for result in results:
            result["category_id"] = to_dataset_id[result["category_id"]]
        if not self._do_evaluation:
            return
        for task in self._tasks or self._tasks_from_predictions(results):
            scored = _evaluate_predictions_on_coco(
                self._coco_api,
                results,
                task,
                kpt_oks_sigmas=self._kpt_oks_sigmas,
                use_fast_impl=self._use_fast_impl,
                img_ids=img_ids,
                max_dets_per_image=self._max_dets_per_image,
            )
            names = self._metadata.get("thing_classes")
            self._results[f"my_{task}"] = self._derive_coco_results(scored, task, class_names=names)


@pytest.fixture
def data(tmp_path):
    write_json(tmp_path / "truth.json", TRUTH)
    metadata = MetadataCatalog.get(NAME)
    metadata.set(json_file=str(tmp_path / "truth.json"), thing_classes=["seven"])
    metadata.set(thing_dataset_id_to_contiguous_id={7: 0})
    yield NAME
    MetadataCatalog.remove(NAME)


def _detection() -> Instances:
    return Instances((40, 60), pred_boxes=Boxes(torch.tensor([[0.0, 0, 10, 10]])))


def test_an_evaluator_of_research_code(data: str):
    evaluator = ResearchEvaluator(data, ("bbox",), False)
    for _ in range(2):
        evaluator.reset()
        evaluator.process([{"image_id": 1}], [{"instances": _detection()}])
        results = evaluator.evaluate()
        assert list(results) == ["my_bbox"]
        assert results["my_bbox"]["AP"] == pytest.approx(100 * HALF_FOUND)
        assert results["my_bbox"]["AP-seven"] == pytest.approx(100 * HALF_FOUND)


def test_tasks_come_from_the_results_where_process_is_overridden(data: str):
    class OnlyProcess(COCOEvaluator):
        process = ResearchEvaluator.process

    evaluator = OnlyProcess(data, distributed=False)
    evaluator.process([{"image_id": 1}], [{"instances": _detection()}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP50"] == pytest.approx(100 * HALF_FOUND)
    assert evaluator.evaluate() is not results  # what was returned stays as it is
    assert evaluator._tasks_from_predictions([{"segmentation": {}}, {"keypoints": []}]) == [
        *("bbox", "segm", "keypoints")
    ]
    assert np.isnan(evaluator._derive_coco_results(None, "bbox")["AP"])
