"""`COCOPanopticEvaluator` from a model's output to numbers and files; the same from files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import COCOPanopticEvaluator, evaluate_panoptic_json, panoptic_evaluation
from panomask.panoptic_png import read_segment_ids, write_segment_ids

NAME = "two_panoptic_images"
CAT, SKY, SEA = 17, 40, 5
"""Categories: one thing; stuff classes 1 (sea) and 2 (sky), 0 being the label of things."""


@pytest.fixture
def folder(tmp_path):
    """Truth of two images of 4 x 6: sky above a cat and void; sea alone."""
    (tmp_path / "png").mkdir()
    first = np.zeros((4, 6), dtype=np.int32)
    first[:2], first[2:, :4] = 70000, 300
    write_segment_ids(tmp_path / "png/a.png", first)
    write_segment_ids(tmp_path / "png/b.png", np.full((4, 6), 9))
    names = {CAT: ("cat", 1), SEA: ("sea", 0), SKY: ("sky", 0)}
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 4, "width": 6} for n in (1, 2)],
        "categories": [{"id": id_, "name": name, "isthing": t} for id_, (name, t) in names.items()],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "a.png",
                "segments_info": [{"id": 70000, "category_id": SKY}, {"id": 300, "category_id": CAT}],
            },
            {"image_id": 2, "file_name": "b.png", "segments_info": [{"id": 9, "category_id": SEA}]},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    MetadataCatalog.get(NAME).set(
        panoptic_json=str(tmp_path / "truth.json"),
        panoptic_root=str(tmp_path / "png"),
        thing_classes=["cat"],
        stuff_classes=["things", "sea", "sky"],
        thing_dataset_id_to_contiguous_id={CAT: 0},
        stuff_dataset_id_to_contiguous_id={SEA: 1, SKY: 2, 0: 0},
    )
    yield tmp_path
    MetadataCatalog.remove(NAME)


def predict(evaluator, image_id, found, ids=None):
    """`found`: (class, isthing) of the segments 1, 2, ...; ids: (4, 6), that of the truth by default."""
    if ids is None:
        ids = [[1] * 6] * 2 + [[2] * 4 + [0] * 2] * 2 if image_id == 1 else [[1] * 6] * 4
    info = [
        {"id": number, "category_id": class_, **({} if isthing is None else {"isthing": isthing})}
        for number, (class_, isthing) in enumerate(found, start=1)
    ]
    record = {"image_id": image_id, "file_name": f"{image_id}.jpg"}
    evaluator.process([record], [{"panoptic_seg": (torch.tensor(ids, dtype=torch.int32), info)}])


def predict_truth(evaluator):
    predict(evaluator, 1, [(2, False), (0, True)])
    predict(evaluator, 2, [(1, False)])


def overall(metrics):
    return [metrics[name] for name in ("PQ", "PQ_th", "PQ_st", "PQ-cat", "PQ-sea", "PQ-sky")]


def test_truth_as_prediction(folder):
    evaluator = COCOPanopticEvaluator(NAME)
    predict_truth(evaluator)
    assert overall(evaluator.evaluate()["panoptic_seg"]) == [100] * 6
    evaluator.reset()
    assert evaluator.evaluate() == {}


def test_classes_are_named_as_the_metadata_name_them(folder):
    """COCO's file says tree-merged for what the metadata, and with them the semantic scores, call tree."""
    content = json.loads((folder / "truth.json").read_text())
    for category in content["categories"]:
        category["name"] += "-merged"
    (folder / "truth.json").write_text(json.dumps(content))
    evaluator = COCOPanopticEvaluator(NAME)
    predict_truth(evaluator)
    assert overall(evaluator.evaluate()["panoptic_seg"]) == [100] * 6
    MetadataCatalog.get(NAME).thing_dataset_id_to_contiguous_id.clear()  # no longer names every category
    evaluator = COCOPanopticEvaluator(NAME)
    predict(evaluator, 1, [(SKY, None), (CAT, None)])
    assert evaluator.evaluate()["panoptic_seg"]["PQ-cat-merged"] == 100


def test_a_model_with_the_data_sets_own_ids(folder):
    """Without isthing, category_id is the data set's, as in Detectron2."""
    evaluator = COCOPanopticEvaluator(NAME)
    predict(evaluator, 1, [(SKY, None), (CAT, None)])
    predict(evaluator, 2, [(SKY, None)])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert metrics["PQ-sky"] == pytest.approx(100 / 1.5)
    assert metrics["PQ-sea"] == 0


def test_labels_with_a_divisor(folder):
    """class * label_divisor + number, -1 for void, where things and stuff share their numbers."""
    metadata = SimpleNamespace(**MetadataCatalog.get(NAME).as_dict())
    MetadataCatalog.remove(NAME)
    metadata.thing_dataset_id_to_contiguous_id = {CAT: 2}
    metadata.stuff_dataset_id_to_contiguous_id = {SEA: 0, SKY: 1}
    MetadataCatalog.get(NAME).set(**{**vars(metadata), "label_divisor": 1000})
    labels = torch.tensor([[1000] * 6] * 2 + [[2003] * 4 + [-1] * 2] * 2)
    evaluator = COCOPanopticEvaluator(NAME)
    evaluator.process([{"image_id": 1}], [{"panoptic_seg": (labels, None)}])
    evaluator.process([{"image_id": 2}], [{"panoptic_seg": (torch.zeros(4, 6, dtype=torch.int64), None)}])
    assert overall(evaluator.evaluate()["panoptic_seg"]) == [100] * 6
    assert int(labels.min()) == -1, "the model's output is not touched"


def test_what_was_not_processed_is_missed_and_reported(folder, caplog):
    evaluator = COCOPanopticEvaluator(NAME)
    predict(evaluator, 1, [(2, False), (0, True)])
    evaluator.process([{"image_id": 2}], [{"sem_seg": None}])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert metrics["PQ-sea"] == 0
    assert "1 of 2 images of two_panoptic_images were not processed (the first: 2)" in caplog.text


def test_processes_sum_up_and_count_an_image_once(folder, monkeypatch, caplog):
    """Two processes; a sampler that pads gave image 1 to both, with another prediction."""
    monkeypatch.setattr(panoptic_evaluation, "get_world_size", lambda: 2)
    shards = []
    monkeypatch.setattr(panoptic_evaluation, "gather", lambda data, dst: [*shards, data])
    first, second = COCOPanopticEvaluator(NAME), COCOPanopticEvaluator(NAME)
    predict(first, 1, [(2, False), (0, True)])
    predict(second, 2, [(1, False)])
    predict(second, 1, [(1, False)], [[1] * 6] * 4)
    predict(second, 1, [(1, False)], [[1] * 6] * 4)
    monkeypatch.setattr(panoptic_evaluation, "is_main_process", lambda: False)
    monkeypatch.setattr(panoptic_evaluation, "gather", lambda data, dst: shards.append(data) or [])
    assert first.evaluate() == {}
    monkeypatch.undo()
    monkeypatch.setattr(panoptic_evaluation, "gather", lambda data, dst: [*shards, data])
    assert overall(second.evaluate()["panoptic_seg"]) == [100] * 6
    assert "2 images came more than once" in caplog.text


def test_saved_predictions_are_scored_later(folder):
    evaluator = COCOPanopticEvaluator(NAME, folder / "out", save_predictions=True)
    predict(evaluator, 1, [(2, False), (0, True)], [[1] * 6] * 2 + [[2] * 3 + [0] * 3] * 2)
    predict(evaluator, 2, [(1, False)])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert metrics["PQ-cat"] == 75
    saved = folder / "out/panoptic_predictions.json"
    again = evaluate_panoptic_json(
        folder / "truth.json", folder / "png", saved, folder / "out/panoptic_predictions"
    )
    assert again == metrics
    entry = json.loads(saved.read_text())["annotations"][0]
    assert entry["segments_info"] == [{"id": 1, "category_id": SKY}, {"id": 2, "category_id": CAT}]
    assert read_segment_ids(folder / "out/panoptic_predictions" / entry["file_name"])[3, 2] == 2


def test_truth_from_dataset_dicts(folder):
    """As where bad segments were dropped: sky is not listed, so its pixels are void."""
    MetadataCatalog.get(NAME).set(on_bad_annotation="drop")
    cat = {"id": 300, "category_id": 0, "isthing": True, "iscrowd": 0}
    sea = {"id": 9, "category_id": 1, "isthing": False, "iscrowd": 0}
    records = [
        {"image_id": number, "pan_seg_file_name": str(folder / "png" / name), "segments_info": [segment]}
        for number, name, segment in ((1, "a.png", cat), (2, "b.png", sea))
    ]
    DatasetCatalog.register(NAME, lambda: records)
    try:
        evaluator = COCOPanopticEvaluator(NAME)
        predict_truth(evaluator)
        metrics = evaluator.evaluate()["panoptic_seg"]
    finally:
        DatasetCatalog.remove(NAME)
    assert (metrics["PQ"], metrics["PQ-cat"], metrics["PQ-sea"]) == (100, 100, 100)
    assert np.isnan(metrics["PQ-sky"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: predict(e, 3, []), r"3\.jpg: .*truth\.json has no annotation of image 3"),
        (lambda e: predict(e, 2, [(3, False)]), r"prediction of 2\.jpg: stuff class 3 is not among the 3"),
        (lambda e: predict(e, 2, [(0, False)]), "category_id 0 is no category of the data set; it has 5, 17"),
        (lambda e: predict(e, 2, []), r"prediction of 2\.jpg: its pixels have segment id 1, which"),
        (lambda e: predict(e, 2, [(0, True), (0, True)]), "segments_info lists segment id 2, but no pixel"),
        (
            lambda e: predict(e, 2, [(0, True)], [[1] * 3] * 4),
            r"3 x 4 pixels, but .*b\.png \(listed in .* 6 x 4",
        ),
        (lambda e: predict(e, 2, [], [[-3] * 6] * 4), "ids from -3 to -3; 0 .void. to 16777215 are allowed"),
        (
            lambda e: e.process([{"image_id": 2}], [{"panoptic_seg": (torch.zeros(4, 6), [])}]),
            "float32 of shape .*a map .height, width. of whole numbers",
        ),
        (
            lambda e: e.process([{"image_id": 2}], [{"panoptic_seg": (torch.zeros(4, 6).int(), None)}]),
            "came without segments_info, and the set's metadata lack label_divisor",
        ),
    ],
)
def test_bad_predictions_are_named(folder, change, message):
    with pytest.raises(InputError, match=message):
        change(COCOPanopticEvaluator(NAME))


def edit(folder, change):
    content = json.loads((folder / "truth.json").read_text())
    change(content)
    (folder / "truth.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: write_segment_ids(folder / "png/b.png", np.full((4, 6), 8)),
            r"b\.png \(listed in .*truth\.json\): its pixels have segment id 8, which segments_info does not",
        ),
        (
            lambda folder: edit(
                folder, lambda c: c["annotations"][1]["segments_info"].append({"id": 11, "category_id": SKY})
            ),
            r"b\.png \(listed in .*: segments_info lists segment id 11, but no pixel has this id",
        ),
        (
            lambda folder: write_segment_ids(folder / "png/b.png", np.full((5, 6), 9)),
            r"b\.png: 6 x 5 \(width x height\), but its image is 6 x 4",
        ),
        (lambda folder: (folder / "png/b.png").unlink(), r"b\.png: image file does not exist"),
    ],
)
def test_bad_truth_is_named(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        predict_truth(COCOPanopticEvaluator(NAME))


def test_saving_needs_a_folder(folder):
    with pytest.raises(InputError, match="save_predictions needs output_dir"):
        COCOPanopticEvaluator(NAME, save_predictions=True)


def test_files_without_a_prediction_of_an_image(folder):
    (folder / "empty.json").write_text('{"annotations": []}')
    with pytest.raises(InputError, match=r"empty\.json: no prediction of image 1; every image"):
        evaluate_panoptic_json(folder / "truth.json", folder / "png", folder / "empty.json", folder)


def test_categories_converted_as_a_subclass_says(folder):
    """As research code derives from Detectron2's evaluator: here its model predicts names."""

    class Named(COCOPanopticEvaluator):
        def _convert_category_id(self, segment_info):
            segment_info["category_id"] = {"cat": CAT, "sea": SEA, "sky": SKY}[segment_info["category_id"]]
            return segment_info

    evaluator = Named(NAME)
    predict(evaluator, 1, [("sky", None), ("cat", None)])
    predict(evaluator, 2, [("sea", None)])
    assert overall(evaluator.evaluate()["panoptic_seg"]) == [100] * 6


def test_category_ids_of_detectron2(folder):
    evaluator = COCOPanopticEvaluator(NAME, folder)
    assert evaluator._thing_contiguous_id_to_dataset_id == {0: CAT}
    assert evaluator._stuff_contiguous_id_to_dataset_id == {0: 0, 1: SEA, 2: SKY}
    assert evaluator._output_dir == folder
    thing = {"id": 4, "category_id": 0, "isthing": True}
    assert evaluator._convert_category_id(thing) is thing
    assert thing == {"id": 4, "category_id": CAT}
    assert evaluator._convert_category_id({"id": 4, "category_id": SKY}) == {"id": 4, "category_id": SKY}
    evaluator._thing_contiguous_id_to_dataset_id = {7: CAT}
    assert evaluator._convert_category_id({"category_id": 7, "isthing": True}) == {"category_id": CAT}


def test_a_process_of_its_own_encodes_pngs(folder):
    class Encoding(COCOPanopticEvaluator):
        def process(self, inputs, outputs):
            for record, output in zip(inputs, outputs, strict=True):
                ids, infos = output["panoptic_seg"]
                write_segment_ids(folder / "p.png", ids.numpy())
                segments = [self._convert_category_id(info) for info in infos]
                png = (folder / "p.png").read_bytes()
                entry = {"image_id": record["image_id"], "file_name": "p.png", "png_string": png}
                self._predictions.append({**entry, "segments_info": segments})

    evaluator = Encoding(NAME)
    predict(evaluator, 1, [(2, False), (0, True)])
    predict(evaluator, 2, [(2, False)])  # sea taken for sky
    found = evaluator.evaluate()["panoptic_seg"]
    assert [found["PQ-cat"], found["PQ-sea"]] == [100, 0]
    assert found["PQ-sky"] == pytest.approx(100 / 1.5)
