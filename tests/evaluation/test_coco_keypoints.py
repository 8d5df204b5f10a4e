"""Keypoint AP derived by hand, and equality with plain pycocotools on random data."""

import contextlib
import copy
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from panomask.config import get_cfg
from panomask.data.catalog import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import COCOEvaluator, evaluate_coco_json, instances_to_coco_json
from panomask.structures import Boxes, BoxMode, Instances
from panomask.structures.keypoints import (
    COCO_PERSON_KEYPOINT_NAMES,
    COCO_PERSON_OKS_SIGMAS,
    default_oks_sigmas,
)

NAME = "test_coco_keypoints_set"
METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
SIGMAS = [0.1, 0.1]
BOX = [100.0, 100.0, 100.0, 100.0]
POINTS = [120.0, 130.0, 2, 180.0, 190.0, 1]


def _truth(*objects: dict, **category) -> dict:
    """One image with objects of 100 x 100 pixels and two keypoints each; the dicts say what differs."""
    common = {"image_id": 1, "category_id": 3, "bbox": BOX, "area": 1e4, "iscrowd": 0, "keypoints": POINTS}
    annotations = [{"id": i, **common, **each} for i, each in enumerate(objects, start=1)]
    return {
        "images": [{"id": 1, "height": 400, "width": 400}],
        "categories": [{"id": 3, "name": "bar", "keypoints": ["a", "b"], **category}],
        "annotations": annotations,
    }


def _found(*shifts_and_scores: tuple[float, float], **more) -> list[dict]:
    """The keypoints of `_truth`, shifted to the right."""
    results = []
    for shift, score in shifts_and_scores:
        points = [POINTS[0] + shift, POINTS[1], 0.9, POINTS[3] + shift, POINTS[4], 0.1]
        results.append({"image_id": 1, "category_id": 3, "score": score, "keypoints": points, **more})
    return results


def _shift_for(oks: float) -> float:
    """OKS is exp(-d^2 / (2 area (2 sigma)^2)), here exp(-d^2 / 800)."""
    return math.sqrt(-800 * math.log(oks))


def test_oks_of_0_72_is_right_at_five_of_ten_thresholds():
    scores = evaluate_coco_json(_truth({}), _found((_shift_for(0.72), 0.5)), "keypoints", oks_sigmas=SIGMAS)
    assert list(scores) == [*METRICS, "AP-bar"]
    assert [scores[name] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")] == pytest.approx(
        [50, 100, 0, 50, 100, 0]
    )
    assert scores["APl"] == pytest.approx(50)  # 100 x 100 is large
    assert math.isnan(scores["APm"])


def test_keypoints_that_are_not_labelled_do_not_count():
    truth = _truth({"keypoints": [*POINTS[:3], 0, 0, 0]})
    results = _found((0, 0.5))
    results[0]["keypoints"][3:5] = [-500, 900]
    assert evaluate_coco_json(truth, results, "keypoints", oks_sigmas=SIGMAS)["AP"] == pytest.approx(100)


def test_hidden_keypoints_are_labelled():
    """Visibility 1; the file need not count them."""
    truth = _truth({"keypoints": [*POINTS[:2], 1, *POINTS[3:]]})
    assert _ap(truth, _found((0, 0.5))) == pytest.approx(100)
    assert _ap(truth, _found((500, 0.5))) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"keypoints": [0] * 6, "num_keypoints": 0},
        {"keypoints": [0] * 6},
        {"keypoints": []},
        {"keypoints": [0] * 6, "num_keypoints": 0, "iscrowd": 1},
    ],
)
def test_objects_without_labelled_keypoints_need_not_be_found(fields):
    """Predictions around them are no errors; otherwise a wrong one before a right one halves precision."""
    unlabelled = {**fields, "bbox": [300.0, 300.0, 50.0, 50.0], "area": 2500.0}
    around = _found((200, 0.9))[0]
    around["keypoints"][1::3] = [320, 340]
    results = [around, *_found((0, 0.5))]
    assert _ap(_truth({}, unlabelled), results) == pytest.approx(100)
    assert _ap(_truth({}), results) == pytest.approx(50)


def test_an_annotation_of_a_category_without_keypoints_counts_for_nothing():
    truth = _truth({})
    truth["categories"].append({"id": 4, "name": "plain"})
    truth["annotations"].append({"id": 9, "image_id": 1, "category_id": 4, "bbox": BOX})
    scores = evaluate_coco_json(truth, _found((0, 0.5)), "keypoints", oks_sigmas=SIGMAS)
    assert scores["AP"] == scores["AP-bar"] == pytest.approx(100)
    assert math.isnan(scores["AP-plain"])


def test_twenty_predictions_an_image_count():
    wrong = [(500.0, 0.9)] * 19
    assert _ap(_truth({}), _found(*wrong, (0, 0.5))) == pytest.approx(100 / 20)
    assert _ap(_truth({}), _found(*wrong, (500, 0.8), (0, 0.5))) == 0


def test_area_is_that_of_the_box_beside_the_keypoints_or_of_the_box_around_them():
    """A wrong prediction of medium size does not spoil the AP of large objects; keypoints span 60 x 60."""
    results = _found((0, 0.5), (500, 0.9))
    score = evaluate_coco_json(_truth({}), results, "keypoints", oks_sigmas=SIGMAS)
    assert score["APl"] == pytest.approx(100)
    results[1]["bbox"] = [0.0, 0.0, 200.0, 200.0]
    score = evaluate_coco_json(_truth({}), results, "keypoints", oks_sigmas=SIGMAS)
    assert score["APl"] == pytest.approx(50)


def _ap(truth: dict, results: list[dict], **arguments) -> float:
    return evaluate_coco_json(truth, results, "keypoints", **({"oks_sigmas": SIGMAS} | arguments))["AP"]


def test_where_sigmas_come_from():
    results, stated = _found((_shift_for(0.72), 0.5)), _truth({}, sigmas=SIGMAS)
    assert _ap(stated, results, oks_sigmas=None) == pytest.approx(50)
    assert _ap(stated, results, oks_sigmas=[1.0, 1.0]) == pytest.approx(100)
    with pytest.raises(InputError, match=r"no OKS sigmas.*TEST\.KEYPOINT_OKS_SIGMAS"):
        _ap(_truth({}), results, oks_sigmas=None)
    with pytest.raises(InputError, match="OKS sigma 0"):
        _ap(_truth({}), results, oks_sigmas=[0.1, 0])
    different = _truth({}, sigmas=SIGMAS)
    different["categories"].append({"id": 4, "name": "b", "keypoints": ["c"], "sigmas": [0.2]})
    with pytest.raises(InputError, match="different keypoints or sigmas"):
        _ap(different, results, oks_sigmas=None)


def test_coco_sigmas_are_those_of_pycocotools_and_follow_the_names():
    plain = COCOeval(iouType="keypoints").params.kpt_oks_sigmas
    assert list(COCO_PERSON_OKS_SIGMAS) == pytest.approx(plain.tolist(), abs=1e-15)
    assert default_oks_sigmas(COCO_PERSON_KEYPOINT_NAMES[::-1]) == list(COCO_PERSON_OKS_SIGMAS[::-1])
    assert default_oks_sigmas(COCO_PERSON_KEYPOINT_NAMES[:16]) is None


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match=r"annotation 1 has 2 keypoints .* sigmas for 3"):
        _ap(_truth({}), _found((0, 1.0)), oks_sigmas=[0.1] * 3)
    results = _found((0, 1.0), (0, 0.5))
    results[1]["keypoints"] += [1, 2, 3]
    with pytest.raises(InputError, match="entry 2 has 3 keypoints"):
        _ap(_truth({}), results)
    del results[1]["keypoints"]
    with pytest.raises(InputError, match="entry 2 has no 'keypoints'"):
        _ap(_truth({}), results)
    with pytest.raises(InputError, match="no keypoints; score the boxes"):
        _ap(_truth({"keypoints": []}), _found((0, 1.0)))


def test_no_prediction_scores_zero():
    assert _ap(_truth({}), []) == 0


def _random_truth(num_keypoints: int) -> dict:
    """Two categories, crowds, objects without labelled keypoints, objects said to have none."""
    random = np.random.default_rng(0)
    annotations = []
    for number in range(1, 61):
        box = [*random.uniform(0, 300, 2), *random.uniform(30, 200, 2)]
        visible = random.choice([0, 1, 2], num_keypoints) * (random.random() < 0.85)
        xy = np.array(box[:2]) + random.random((num_keypoints, 2)) * box[2:]
        keypoints = np.column_stack([xy * (visible[:, None] > 0), visible]).ravel().tolist()
        annotation = {"id": number, "image_id": number % 5, "category_id": number % 2, "bbox": box}
        annotation |= {"area": box[2] * box[3] * 0.6, "iscrowd": int(random.random() < 0.1)}
        num_labelled = int((visible > 0).sum()) * (random.random() < 0.9)
        annotations.append(annotation | {"keypoints": keypoints, "num_keypoints": int(num_labelled)})
    return {
        "images": [{"id": i, "height": 500, "width": 500} for i in range(5)],
        "categories": [{"id": i, "name": str(i), "keypoints": ["k"] * num_keypoints} for i in range(2)],
        "annotations": annotations,
    }


@pytest.mark.parametrize("num_keypoints", [1, 4, 17])
@pytest.mark.parametrize("with_box", [True, False])
def test_equal_to_plain_pycocotools(num_keypoints, with_box, capsys):
    random = np.random.default_rng(1)
    truth, sigmas = _random_truth(num_keypoints), random.uniform(0.02, 0.15, num_keypoints).tolist()
    results = []
    for annotation in truth["annotations"]:
        for _ in range(3):
            points = np.array(annotation["keypoints"]).reshape(-1, 3) + random.normal(
                0, 8, (num_keypoints, 3)
            )
            result = {"image_id": annotation["image_id"], "category_id": annotation["category_id"]}
            result |= {"score": round(random.random(), 1), "keypoints": points.ravel().tolist()}
            results.append(result | ({"bbox": annotation["bbox"]} if with_box else {}))
    scores = evaluate_coco_json(truth, results, "keypoints", oks_sigmas=sigmas)
    assert capsys.readouterr().out == ""

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        plain = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        plain.params.kpt_oks_sigmas = np.array(sigmas)
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    assert 1 < scores["AP"] < 99
    assert [scores[name] for name in METRICS] == pytest.approx((100 * plain.stats).tolist(), abs=1e-10)


# ---- COCOEvaluator ----


def _prediction(keypoints: list[float]) -> dict:
    """One object whose keypoints are where `keypoints` (pixel indices of COCO) say."""
    instances = Instances((400, 400))
    instances.pred_boxes = Boxes(torch.tensor([[100.0, 100, 200, 200]]))
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    points = torch.tensor(keypoints).reshape(1, -1, 3)
    instances.pred_keypoints = points + torch.tensor([0.5, 0.5, 0])  # continuous coordinates
    return {"instances": instances}


@pytest.fixture
def registered(tmp_path) -> Iterator[Path]:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(_truth({})))
    MetadataCatalog.get(NAME).set(
        json_file=str(path), thing_classes=["bar"], thing_dataset_id_to_contiguous_id={3: 0}
    )
    yield path
    MetadataCatalog.remove(NAME)


def _evaluate(evaluator: COCOEvaluator, shift: float = 0.0) -> dict:
    evaluator.reset()
    points = [POINTS[0] + shift, POINTS[1], 0.9, POINTS[3] + shift, POINTS[4], 0.1]
    evaluator.process([{"image_id": 1}], [_prediction(points)])
    return evaluator.evaluate()


def test_the_truth_as_prediction_scores_100_and_is_saved_as_pixel_indices(registered, tmp_path):
    results = _evaluate(COCOEvaluator(NAME, output_dir=tmp_path, kpt_oks_sigmas=[1e-4, 1e-4]))
    assert list(results) == ["bbox", "keypoints"]
    assert results["keypoints"]["AP"] == pytest.approx(100)
    (saved,) = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert saved["keypoints"] == pytest.approx([120, 130, 0.9, 180, 190, 0.1])
    assert saved["bbox"] == [100, 100, 100, 100]
    assert list(_evaluate(COCOEvaluator(NAME, tasks=("keypoints",), kpt_oks_sigmas=SIGMAS))) == ["keypoints"]


def test_the_evaluator_s_sigmas(registered):
    shift = _shift_for(0.72)
    with pytest.raises(InputError, match="no OKS sigmas"):
        _evaluate(COCOEvaluator(NAME))
    MetadataCatalog.get(NAME).keypoint_oks_sigmas = SIGMAS
    assert _evaluate(COCOEvaluator(NAME), shift)["keypoints"]["AP"] == pytest.approx(50)
    wide = COCOEvaluator(NAME, kpt_oks_sigmas=[1.0, 1.0])
    assert _evaluate(wide, shift)["keypoints"]["AP"] == pytest.approx(100)
    cfg = get_cfg()
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [1.0, 1.0]
    assert _evaluate(COCOEvaluator(NAME, cfg), shift)["keypoints"]["AP"] == pytest.approx(100)


def test_a_truth_without_keypoints_scores_the_rest(registered, caplog):
    registered.write_text(json.dumps(_truth({"keypoints": []})))
    assert list(_evaluate(COCOEvaluator(NAME))) == ["bbox"]
    assert "no keypoints in its annotations" in caplog.text


def test_more_objects_than_coco_s_twenty_are_warned_of(registered, caplog):
    registered.write_text(json.dumps(_truth(*[{}] * 20, {"keypoints": [0] * 6})))
    _evaluate(COCOEvaluator(NAME, kpt_oks_sigmas=SIGMAS))
    assert "COCO's rules" not in caplog.text
    registered.write_text(json.dumps(_truth(*[{}] * 21)))
    _evaluate(COCOEvaluator(NAME, kpt_oks_sigmas=SIGMAS))
    assert f"1 images of {NAME} have keypoints of more than 20 objects" in caplog.text


def test_a_data_set_registered_in_python(tmp_path):
    """Truth in continuous coordinates, converted on the way; names and sigmas come from the metadata."""
    name = f"{NAME}_python"
    keypoints = [120.5, 130.5, 2, 180.5, 190.5, 1]
    annotation = {"bbox": BOX, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "keypoints": keypoints}
    record = {"file_name": "a.jpg", "image_id": 1, "height": 400, "width": 400, "annotations": [annotation]}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(
        thing_classes=["bar"],
        keypoint_names=["a", "b"],
        keypoint_connection_rules=[("b", "a", (0, 0, 0))],
        keypoint_oks_sigmas=[1e-4, 1e-4],
    )
    results = _evaluate(COCOEvaluator(name, output_dir=tmp_path))
    assert results["keypoints"]["AP"] == pytest.approx(100)
    (written,) = tmp_path.glob("*_coco_format.json")
    (category,) = json.loads(written.read_text())["categories"]
    assert category == {
        "id": 0,
        "name": "bar",
        "keypoints": ["a", "b"],
        "skeleton": [[2, 1]],
        "sigmas": [1e-4] * 2,
    }
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_instances_to_coco_json_leaves_the_prediction_as_it_is():
    instances = _prediction(POINTS)["instances"]
    before = instances.pred_keypoints.clone()
    (result,) = instances_to_coco_json(instances, img_id=7)
    assert result["keypoints"] == pytest.approx(POINTS)
    assert torch.equal(instances.pred_keypoints, before)
