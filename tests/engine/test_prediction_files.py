import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from pycocotools.coco import COCO

from panomask.data.catalog import Metadata
from panomask.engine.prediction_files import PredictionFiles, list_inputs, plan_outputs
from panomask.engine.prediction_ids import CocoIds
from panomask.engine.segmentation_results import SemanticResults
from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids
from panomask.semantic_png import read_semantic_labels
from panomask.structures import Boxes, Instances

HEIGHT, WIDTH = 48, 64
METADATA = Metadata(thing_classes=["apple", "nut"])


def _predict(image: np.ndarray) -> dict[str, Instances]:
    """An apple with a mask at 0.9 and a nut at 0.3, wherever it is."""
    height, width = image.shape[:2]
    instances = Instances((height, width))
    instances.pred_boxes = Boxes(torch.tensor([[4.0, 6, 24, 36], [30, 10, 50, 20]]))
    instances.scores = torch.tensor([0.9, 0.3])
    instances.pred_classes = torch.tensor([0, 1])
    instances.pred_masks = torch.zeros(2, height, width, dtype=torch.bool)
    instances.pred_masks[0, 6:36, 4:24] = True
    instances.pred_masks[1, 10:20, 30:50] = True
    return {"instances": instances}


def _image(path: Path, value: int = 90) -> Path:
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), value, np.uint8))
    return path


def _run(folder: Path, threshold: float = 0.5, ids: CocoIds | None = None) -> PredictionFiles:
    folder.mkdir(exist_ok=True)
    return PredictionFiles(
        _predict, METADATA, folder, ids=ids or CocoIds(METADATA), confidence_threshold=threshold
    )


def test_inputs_are_files_folders_and_patterns_each_once(tmp_path):
    names = ["b.png", "a.jpg", "c.MP4", "notes.txt"]
    for name in names:
        (tmp_path / name).touch()
    found = list_inputs([str(tmp_path / "notes.txt"), str(tmp_path), str(tmp_path / "*.png")])
    assert [path.name for path in found] == ["notes.txt", "a.jpg", "b.png", "c.MP4"]


def test_inputs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="holds no image or video"):
        list_inputs([str(tmp_path)])
    for pattern in ("missing.jpg", "*.jpg"):
        with pytest.raises(InputError, match="no such file or folder"):
            list_inputs([str(tmp_path / pattern)])


def test_drawn_files_keep_names_and_never_share_one(tmp_path):
    inputs = [Path("x/a.jpg"), Path("y/a.jpg"), Path("x/b.tif"), Path("x/c.avi"), Path("x/d.mp4")]
    names = [path.name for path in plan_outputs(inputs, tmp_path).values()]
    assert names == ["a.jpg", "a_2.jpg", "b.tif.png", "c.avi.mp4", "d.mp4"]


def test_inputs_are_never_replaced(tmp_path):
    with pytest.raises(InputError, match="would replace an input"):
        plan_outputs([tmp_path / "a.jpg"], tmp_path)


@pytest.mark.parametrize("threshold, classes", [(0.5, [0]), (0.0, [0, 1]), (0.95, [])])
def test_images_are_drawn_and_written_above_the_threshold(tmp_path, threshold, classes):
    run = _run(tmp_path / "out", threshold)
    run.process(_image(tmp_path / "a.png"), tmp_path / "out" / "a.png")
    run.save()
    results = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [result["category_id"] for result in results] == classes
    is_changed = (cv2.imread(str(tmp_path / "out" / "a.png")) != 90).any(axis=2)
    assert is_changed[10:30, 8:20].any() == bool(classes)
    assert not is_changed[40:, 55:].any()


def test_results_load_with_pycocotools(tmp_path):
    run = _run(tmp_path)
    for name in ("a.png", "b.png"):
        run.process(_image(tmp_path / name), tmp_path / f"drawn_{name}")
    run.save()
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(tmp_path / "images.json").loadRes(str(tmp_path / "coco_instances_results.json"))
    assert [image["file_name"] for image in found.loadImgs([1, 2])] == [
        str(tmp_path / "a.png"),
        str(tmp_path / "b.png"),
    ]
    (apple,) = found.imgToAnns[2]
    assert found.cats[apple["category_id"]]["name"] == "apple"
    assert apple["bbox"] == [4, 6, 20, 30]
    assert mask_util.area(apple["segmentation"]) == 600


def test_every_frame_of_a_video_is_drawn_and_written(tmp_path):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with VideoWriter(source, 12.0) as video:
        for _ in range(3):
            video.write(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    run = _run(tmp_path)
    run.process(source, target)
    with VideoReader(target) as video:
        assert video.frames_per_second == 12.0
        frames = list(video)
    assert len(frames) == 3
    assert all(np.abs(frame[10:30, 8:20].astype(int) - 90).max() > 20 for frame in frames)
    assert [(image["id"], image["frame"]) for image in run.images] == [(1, 0), (2, 1), (3, 2)]
    assert [result["image_id"] for result in run.results] == [1, 2, 3]


def test_an_unreadable_file_leaves_the_run_usable(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    run = _run(tmp_path)
    with pytest.raises(InputError, match=r"bad\.jpg"):
        run.process(tmp_path / "bad.jpg", tmp_path / "drawn.jpg")
    run.process(_image(tmp_path / "a.png"), tmp_path / "drawn.png")
    assert [image["id"] for image in run.images] == [1]
    assert not (tmp_path / "drawn.jpg").exists()


def test_a_model_without_detections_is_refused(tmp_path):
    def propose(image: np.ndarray) -> dict[str, Instances]:
        return {"proposals": Instances(image.shape[:2])}

    run = PredictionFiles(propose, METADATA, tmp_path, ids=CocoIds(METADATA), confidence_threshold=0.5)
    with pytest.raises(InputError, match="the model gives proposals"):
        run.process(_image(tmp_path / "a.png"), tmp_path / "drawn.png")


PANOPTIC = Metadata(
    thing_classes=["apple", "nut"],
    stuff_classes=["things", "table"],
    thing_dataset_id_to_contiguous_id={4: 0, 9: 1},
    stuff_dataset_id_to_contiguous_id={0: 0, 6: 1},
    sem_seg_things_label=0,
)


def _predict_segments(image: np.ndarray) -> dict[str, object]:
    """A nut on a table, void to the right, and a segment of which nothing is visible."""
    ids = torch.zeros(image.shape[:2], dtype=torch.int32)
    ids[:, :40], ids[10:30, 4:24] = 3, 1
    infos = [
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 1, "instance_id": 0},
        {"id": 2, "isthing": True, "score": 0.8, "category_id": 0, "instance_id": 1},
        {"id": 3, "isthing": False, "category_id": 1, "area": 1520},
    ]
    return {**_predict(image), "panoptic_seg": (ids, infos), "sem_seg": torch.zeros(2, *image.shape[:2])}


def _run_on(predict: object, folder: Path, *sources: Path) -> PredictionFiles:
    folder.mkdir()
    run = PredictionFiles(predict, PANOPTIC, folder, ids=CocoIds(PANOPTIC), confidence_threshold=0.5)
    for source in sources:
        run.process(source, folder / source.name)
    run.save()
    return run


def test_panoptic_segments_are_drawn_and_written(tmp_path):
    out = tmp_path / "out"
    run = _run_on(_predict_segments, out, _image(tmp_path / "a.png"), _image(tmp_path / "a.jpg"))
    content = json.loads((out / "panoptic_predictions.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [entry["file_name"] for entry in content["annotations"]] == ["a.png", "a_2.png"]
    assert content["annotations"][1]["segments_info"] == [
        {"id": 1, "category_id": 9, "area": 400, "bbox": [4, 10, 20, 20], "iscrowd": 0, "score": 0.9},
        {"id": 3, "category_id": 6, "area": 1520, "bbox": [0, 0, 40, 48], "iscrowd": 0},
    ]
    assert [(entry["id"], entry["isthing"]) for entry in content["categories"]] == [(4, 1), (9, 1), (6, 0)]
    ids = read_segment_ids(out / "panoptic_predictions" / "a_2.png")
    assert [ids[20, 10], ids[2, 2], ids[20, 60]] == [1, 3, 0]
    drawn = cv2.imread(str(out / "a.png"))
    assert (drawn[40:, 55:] == 90).all()
    assert (drawn[20, 10] != drawn[40, 10]).any()
    assert len(json.loads((out / "coco_instances_results.json").read_text())) == 2
    assert not (out / "semantic_predictions").exists()
    assert run.summary() == "4 segments in 2 images and frames"


def test_semantic_labels_are_drawn_and_written(tmp_path):
    def predict(image: np.ndarray) -> dict[str, torch.Tensor]:
        logits = torch.zeros(2, *image.shape[:2])
        logits[1, :, :20] = 1
        return {"sem_seg": logits}

    out = tmp_path / "out"
    run = _run_on(predict, out, _image(tmp_path / "a.png"))
    labels = read_semantic_labels(out / "semantic_predictions" / "a.png")
    assert labels.tolist() == [[1] * 20 + [0] * 44] * 48
    content = json.loads((out / "semantic_predictions.json").read_text())
    assert content["categories"] == [{"id": 0, "name": "things"}, {"id": 1, "name": "table"}]
    assert content["annotations"] == [{"image_id": 1, "file_name": "a.png"}]
    drawn = cv2.imread(str(out / "a.png"))
    assert (drawn[2, 5] != drawn[2, 40]).any()
    assert not (out / "coco_instances_results.json").exists()
    assert run.summary() == "semantic labels in 1 images and frames"


def test_more_labels_than_a_byte_holds(tmp_path):
    results = SemanticResults(tmp_path, Metadata())
    results.add({"id": 1, "file_name": "clip.mp4", "frame": 7}, np.array([[0, 300]]))
    (path,) = (tmp_path / "semantic_predictions").iterdir()
    assert path.name == "clip_000007.png"
    assert read_semantic_labels(path).tolist() == [[0, 300]]


def test_frames_with_segments(tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 12.0) as video:
        for _ in range(2):
            video.write(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    out = tmp_path / "out"
    _run_on(_predict_segments, out, tmp_path / "in.mp4")
    content = json.loads((out / "panoptic_predictions.json").read_text())
    assert [entry["file_name"] for entry in content["annotations"]] == ["in_000000.png", "in_000001.png"]
    with VideoReader(out / "in.mp4") as video:
        frames = list(video)
    assert len(frames) == 2
    assert all(np.abs(frame[20, 10].astype(int) - frame[44, 60]).max() > 20 for frame in frames)


def test_objects_on_semantic_labels_when_nothing_merges_them(tmp_path):
    def predict(image: np.ndarray) -> dict[str, object]:
        logits = torch.zeros(2, *image.shape[:2])
        logits[1] = 1
        return {**_predict(image), "sem_seg": logits}

    out = tmp_path / "out"
    _run_on(predict, out, _image(tmp_path / "a.png"))
    drawn = cv2.imread(str(out / "a.png"))
    assert (drawn[44, 60] != 90).any()
    assert (drawn[20, 14] != drawn[44, 60]).any()
    assert {path.name for path in out.iterdir()} == {
        *("a.png", "images.json", "coco_instances_results.json"),
        *("semantic_predictions", "semantic_predictions.json"),
    }
