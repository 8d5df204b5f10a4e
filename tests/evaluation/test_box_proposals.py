"""Recall of proposals by hand, and the file in which they are handed on."""

import math

import pytest
import torch

from panomask.data import MetadataCatalog
from panomask.data.proposals import load_proposals_into_dataset
from panomask.evaluation import COCOEvaluator, load_ground_truth
from panomask.evaluation.box_proposals import box_proposal_recalls, write_box_proposals
from panomask.structures import Boxes, Instances

NAMES = [f"AR{area}@{limit}" for limit in (100, 1000) for area in ("", "s", "m", "l")]


def _truth(*objects: tuple, images: int = 2) -> dict:
    """Objects are (image, x, y, width, height, iscrowd)."""
    annotations = [
        {"id": i, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for i, (image, *box, crowd) in enumerate(objects, start=1)
    ]
    return {
        "images": [{"id": i, "height": 200, "width": 200} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": annotations,
    }


def _proposals(*boxes: tuple, logits=None) -> Instances:
    logits = torch.arange(len(boxes), 0, -1).float() if logits is None else torch.tensor(logits)
    return Instances((200, 200), proposal_boxes=Boxes([*map(list, boxes)]), objectness_logits=logits)


def test_recalls_by_hand():
    """Small: IoU 1, found at all ten thresholds. Large, 100 x 100: IoU 0.72, found at .50 to .70, five."""
    truth = load_ground_truth(_truth((1, 0, 0, 10, 10, 0), (2, 50, 50, 100, 100, 0), (2, 0, 0, 40, 40, 1)))
    proposals = {1: _proposals((0, 0, 10, 10)), 2: _proposals((50, 50, 122, 150), (0, 0, 40, 40))}
    expected = {"": 75.0, "s": 100.0, "m": float("nan"), "l": 50.0}
    expected = {f"AR{area}@{limit}": value for limit in (100, 1000) for area, value in expected.items()}
    assert list(expected) == NAMES
    assert box_proposal_recalls(proposals, truth) == pytest.approx(expected, nan_ok=True)


def test_pairs_are_one_to_one_and_the_closest_first():
    """The first proposal is the best of both objects, IoU 1 and 8 / 12; it goes to the first one.

    The other covers 6 of the second object's 10 columns and half a column beside it: IoU 6 / 10.5, enough for
    the thresholds .50 and .55.
    """
    truth = load_ground_truth(_truth((1, 0, 0, 10, 10, 0), (1, 2, 0, 10, 10, 0)))
    proposals = {1: _proposals((0, 0, 10, 10), (6, 0, 12.5, 10))}
    assert box_proposal_recalls(proposals, truth)["AR@100"] == pytest.approx((100 + 20) / 2)


def test_only_the_best_are_looked_at():
    truth = load_ground_truth(_truth((1, 0, 0, 10, 10, 0)))
    boxes = [(80, 80, 90, 90), (70, 70, 80, 80), (0, 0, 10, 10), (50, 50, 60, 60)]
    proposals = {1: _proposals(*boxes, logits=[0.2, 0.1, 0.3, 0.4])}  # the one that fits is second
    assert box_proposal_recalls(proposals, truth, limits=(1, 2)) == pytest.approx(
        {"AR@1": 0, "ARs@1": 0, "ARm@1": math.nan, "ARl@1": math.nan}
        | {"AR@2": 100, "ARs@2": 100, "ARm@2": math.nan, "ARl@2": math.nan},
        nan_ok=True,
    )


def test_without_proposals_objects_are_missed_and_without_objects_there_is_nothing_to_find():
    truth = load_ground_truth(_truth((1, 0, 0, 10, 10, 0)))
    assert box_proposal_recalls({1: _proposals()}, truth)["AR@100"] == 0
    nothing = box_proposal_recalls({2: _proposals((0, 0, 1, 1))}, truth)
    assert list(nothing) == NAMES
    assert all(map(math.isnan, nothing.values()))
    assert all(map(math.isnan, box_proposal_recalls({}, truth).values()))


def test_what_is_written_is_what_is_read(tmp_path):
    proposals = {3: _proposals((0, 0, 10, 10), (1, 2, 3, 4), logits=[0.5, 1.5]), "x": _proposals()}
    path = tmp_path / "new" / "proposals.pkl"
    write_box_proposals(path, proposals)
    first, second = load_proposals_into_dataset([{"image_id": 3}, {"image_id": "x"}], path)
    assert first["proposal_boxes"].tolist() == [[1, 2, 3, 4], [0, 0, 10, 10]]
    assert first["proposal_objectness_logits"].tolist() == [1.5, 0.5]
    assert second["proposal_boxes"].shape == (0, 4)


@pytest.fixture
def evaluator(tmp_path):
    """Over two images with an object each; the third of the file has none."""
    name = "test_box_proposals_set"
    truth = _truth((1, 0, 0, 10, 10, 0), (2, 50, 50, 100, 100, 0), images=3)
    path = tmp_path / "truth.json"
    path.write_text(str(truth).replace("'", '"'))
    ids = {"thing_dataset_id_to_contiguous_id": {1: 0}}
    MetadataCatalog.get(name).set(json_file=str(path), thing_classes=["thing"], **ids)
    yield COCOEvaluator(name, output_dir=tmp_path / "out")
    MetadataCatalog.remove(name)


def test_evaluator_writes_and_scores_proposals(evaluator, tmp_path):
    evaluator.process([{"image_id": 1}], [{"proposals": _proposals((0, 0, 10, 10))}])
    evaluator.process([{"image_id": 2}, {"image_id": 3}], [{"proposals": _proposals()}] * 2)
    assert list(evaluator.evaluate()) == ["box_proposals"]
    assert evaluator.evaluate()["box_proposals"]["AR@1000"] == 50
    assert evaluator.evaluate(img_ids=[1])["box_proposals"]["AR@1000"] == 100
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["box_proposals.pkl"]
    dicts = load_proposals_into_dataset([{"image_id": 1}], tmp_path / "out" / "box_proposals.pkl")
    assert dicts[0]["proposal_boxes"].tolist() == [[0, 0, 10, 10]]


def test_evaluator_scores_proposals_and_instances_together(evaluator):
    instances = Instances(
        (200, 200),
        pred_boxes=Boxes([[0, 0, 10, 10]]),
        scores=torch.ones(1),
        pred_classes=torch.zeros(1).long(),
    )
    output = {"proposals": _proposals((0, 0, 10, 10)), "instances": instances}
    evaluator.process([{"image_id": 1}], [output])
    results = evaluator.evaluate(img_ids=[1])
    assert (results["box_proposals"]["AR@100"], results["bbox"]["AP"]) == (100, pytest.approx(100))
