"""`SemSegEvaluator`: truth from label images or panoptic PNG files, sums over batches and processes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.errors import InputError
from panomask.evaluation import SemSegEvaluator, sem_seg_evaluation
from panomask.evaluation.sem_seg_evaluation import load_image_into_numpy_array
from panomask.panoptic_png import write_segment_ids

NAME = "test_sem_seg_evaluation"
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 2, 255]], dtype=np.uint8)
PREDICTION = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 2, 2]])
MIOU = 100 * (4 / 5 + 2 / 3 + 1) / 3


def one_hot(labels, num_classes=3):
    return torch.nn.functional.one_hot(torch.as_tensor(labels), num_classes).permute(2, 0, 1).float()


@pytest.fixture
def files(tmp_path):
    """Two images of one truth, as label images and as panoptic PNG files: things 0, stuff 1 and 2."""
    ids = np.array([[7, 7, 300, 300], [8, 8, 300, 0], [70000, 70000, 70000, 0]])
    for number in range(2):
        Image.fromarray(TRUTH).save(tmp_path / f"labels{number}.png")
        write_segment_ids(tmp_path / f"segments{number}.png", ids)
    return tmp_path


@pytest.fixture
def data_set(files):
    def register(kind, **metadata):
        dicts = [{"file_name": f"{number}.jpg", "height": 3, "width": 4} for number in range(2)]
        for number, record in enumerate(dicts):
            if kind == "labels":
                record["sem_seg_file_name"] = str(files / f"labels{number}.png")
                continue
            record["pan_seg_file_name"] = str(files / f"segments{number}.png")
            record["segments_info"] = [
                {"id": 7, "category_id": 1, "isthing": True, "iscrowd": 0},
                {"id": 8, "category_id": 0, "isthing": True, "iscrowd": 1},
                {"id": 300, "category_id": 1, "isthing": False, "iscrowd": 0},
                {"id": 70000, "category_id": 2, "isthing": False, "iscrowd": 0},
            ]
        DatasetCatalog.register(NAME, lambda: dicts)
        MetadataCatalog.get(NAME).set(stuff_classes=["things", "sky", "sea"], **metadata)
        return dicts

    yield register
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def inputs_of(dicts):
    """As a mapper leaves them, without `sem_seg_file_name`."""
    return [{k: v for k, v in record.items() if k != "sem_seg_file_name"} for record in dicts]


def test_void_segments_have_the_label_that_is_ignored(data_set):
    inputs = inputs_of(data_set("segments", ignore_label=99))
    evaluator = SemSegEvaluator(NAME)
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION)}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(MIOU)


@pytest.mark.parametrize("kind", ["labels", "segments"])
def test_both_kinds_of_truth_measure_the_same(data_set, kind):
    inputs = inputs_of(data_set(kind))
    evaluator = SemSegEvaluator(NAME)
    assert evaluator.evaluate() == {}
    evaluator.process(inputs, [{"sem_seg": one_hot(PREDICTION)}, {"sem_seg": one_hot(PREDICTION)}])
    scores = evaluator.evaluate()["sem_seg"]
    assert scores["mIoU"] == pytest.approx(MIOU)
    assert scores["pACC"] == pytest.approx(100 * 9 / 10)
    assert "BoundaryIoU-sky" not in scores
    evaluator.reset()
    assert evaluator.evaluate() == {}


def test_a_panoptic_registration_is_not_loaded_again(data_set, monkeypatch):
    inputs = inputs_of(data_set("segments", sem_seg_things_label=0))
    evaluator = SemSegEvaluator(NAME, boundary_iou=True)
    monkeypatch.setattr(DatasetCatalog, "get", None)
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION)}])
    scores = evaluator.evaluate()["sem_seg"]
    assert scores["mIoU"] == pytest.approx(MIOU)
    assert 0 < scores["BoundaryIoU-sky"] <= 100


def test_classes_of_things_and_stuff_in_one_list_keep_their_own_labels(data_set):
    """Without a label of all things, a thing has its category's: 7 is of class 1, 8 of class 0."""
    inputs = inputs_of(data_set("segments", sem_seg_things_label=None))
    evaluator = SemSegEvaluator(NAME)
    right = np.array([[1, 1, 1, 1], [0, 0, 1, 0], [2, 2, 2, 0]])
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(right)}])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == 100


def test_ids_of_things_in_one_list_with_stuff_are_written_too(data_set, tmp_path):
    """As the metadata of COCO's panoptic sets: each map of ids holds its own kind alone."""
    maps = {"thing_dataset_id_to_contiguous_id": {30: 0}, "stuff_dataset_id_to_contiguous_id": {40: 1, 50: 2}}
    inputs = inputs_of(data_set("segments", sem_seg_things_label=None, **maps))
    evaluator = SemSegEvaluator(NAME, output_dir=tmp_path)
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION)}])
    evaluator.evaluate()
    written = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in written] == [30, 40, 50]


def test_the_sums_of_two_processes_are_those_of_one(data_set, monkeypatch):
    inputs = inputs_of(data_set("labels"))
    outputs = [{"sem_seg": one_hot(PREDICTION)}, {"sem_seg": one_hot(np.zeros_like(PREDICTION))}]
    ranks = [SemSegEvaluator(NAME, boundary_iou=True) for _ in range(2)]
    for evaluator, record, output in zip(ranks, inputs, outputs, strict=True):
        evaluator.process([record], [output])
    shards = []
    monkeypatch.setattr(sem_seg_evaluation, "gather", lambda found, dst: shards.append(found) or shards)
    ranks[1].evaluate()
    of_both = ranks[0].evaluate()
    monkeypatch.undo()
    alone = SemSegEvaluator(NAME, boundary_iou=True)
    alone.process(inputs, outputs)
    assert of_both == alone.evaluate()


def test_predictions_are_written_where_a_folder_is_given(data_set, tmp_path):
    inputs = inputs_of(data_set("labels", stuff_dataset_id_to_contiguous_id={40: 1, 50: 2}))
    evaluator = SemSegEvaluator(NAME, output_dir=tmp_path)
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION)}])
    evaluator.evaluate()
    written = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in written] == [40, 50]  # "things" has no id
    assert written[1]["file_name"] == "0.jpg"
    # The 3 x 4 map down its columns: 2 pixels of others, then one of class 2 at the end of each column.
    runs = sem_seg_evaluation.segment_rles(np.where(PREDICTION == 2, 256, 0), 1)[0]
    assert written[1]["segmentation"] == {"size": [3, 4], "counts": runs["counts"]}


def test_errors_are_one_line(data_set, files):
    inputs = inputs_of(data_set("labels"))
    output = [{"sem_seg": one_hot(PREDICTION)}]
    with pytest.raises(InputError, match=r"has 3 semantic classes .* num_classes is 4"):
        SemSegEvaluator(NAME, num_classes=4)
    evaluator = SemSegEvaluator(NAME)
    with pytest.raises(InputError, match=r"predicts 5 semantic classes, but .* has 3"):
        evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION, 5)}])
    with pytest.raises(InputError, match=r"0.jpg: the predicted map is of \(2, 4\) pixels .* \(3, 4\)"):
        evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION[:2])}])
    with pytest.raises(InputError, match=r"x.jpg: data set .* has no semantic truth of it"):
        evaluator.process([{"file_name": "x.jpg"}], output)
    Image.fromarray(TRUTH + 3).save(files / "labels0.png")
    with pytest.raises(
        InputError, match=r"labels0.png: has label 5, but .* 3 classes \(0 to 2\) and ignores"
    ):
        evaluator.process(inputs[:1], output)
    MetadataCatalog.get("test_sem_seg_unnamed")
    with pytest.raises(InputError, match="no names of semantic classes"):
        SemSegEvaluator("test_sem_seg_unnamed")
    MetadataCatalog.remove("test_sem_seg_unnamed")


def test_a_segment_that_the_json_does_not_list_is_named(data_set):
    dicts = data_set("segments")
    del dicts[0]["segments_info"][3]
    with pytest.raises(InputError, match=r"segments0\.png: .*segment id 70000"):
        SemSegEvaluator(NAME).process(inputs_of(dicts[:1]), [{"sem_seg": one_hot(PREDICTION)}])
    MetadataCatalog.get(NAME).set(on_bad_annotation="drop")
    evaluator = SemSegEvaluator(NAME)
    evaluator.process(inputs_of(dicts[:1]), [{"sem_seg": one_hot(PREDICTION)}])
    assert np.isnan(evaluator.evaluate()["sem_seg"]["IoU-sea"])


def test_labels_of_an_image_file(files):
    labels = load_image_into_numpy_array(str(files / "labels0.png"), dtype=int)
    assert labels.dtype == np.int64
    assert (labels == TRUTH).all()


def test_a_process_of_its_own_counts_into_the_matrix(data_set, tmp_path):
    """As research code derives from Detectron2's evaluator."""

    class Own(SemSegEvaluator):
        def process(self, inputs, outputs):
            for record, output in zip(inputs, outputs, strict=True):
                predicted = output["sem_seg"].argmax(dim=0).to(self._cpu_device).numpy()
                truth = np.array(Image.open(self.input_file_to_gt_file[record["file_name"]]), dtype=int)
                truth[truth == self._ignore_label] = self._num_classes
                pairs = (self._num_classes + 1) * predicted.reshape(-1) + truth.reshape(-1)
                counts = np.bincount(pairs, minlength=self._conf_matrix.size)
                self._conf_matrix += counts.reshape(self._conf_matrix.shape)
                self._predictions.extend(self.encode_json_sem_seg(predicted, record["file_name"]))

    inputs = inputs_of(data_set("labels"))
    evaluator = Own(NAME, output_dir=tmp_path)
    evaluator.process(inputs[:1], [{"sem_seg": one_hot(PREDICTION)}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(MIOU)
    entries = json.loads((tmp_path / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in entries] == [0, 1, 2]
