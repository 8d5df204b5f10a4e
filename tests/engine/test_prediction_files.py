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
from panomask.engine.prediction_files import CocoIds, PredictionFiles, list_inputs, plan_outputs
from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.errors import InputError
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


def test_category_ids_of_the_data_set(tmp_path):
    metadata = Metadata(thing_classes=["x", "y"], thing_dataset_id_to_contiguous_id={90: 1, 7: 0})
    ids = CocoIds(metadata)
    assert ids.categories == [{"id": 7, "name": "x"}, {"id": 90, "name": "y"}]
    assert ids.category_id(1) == 90
    with pytest.raises(InputError, match="predicts class 2, but only 2"):
        ids.category_id(2)
    assert CocoIds(Metadata()).category_id(5) == 5


def _annotations(path: Path, names: list[str], categories: list[str]) -> str:
    content = {
        "images": [{"id": 100 + i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(categories, start=1)],
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_ids_of_an_annotation_file(tmp_path):
    names = ["a.png", "left/b.png", "right/b.png"]
    ids = CocoIds(METADATA, _annotations(tmp_path / "truth.json", names, ["nut", "pear", "apple"]))
    assert [ids.category_id(0), ids.category_id(1)] == [30, 10]
    assert ids.image_id(tmp_path / "a.png") == 100
    assert ids.image_id(tmp_path / "right" / "b.png") == 102
    with pytest.raises(InputError, match="2 images of this name"):
        ids.image_id(tmp_path / "b.png")
    with pytest.raises(InputError, match="no image of this name"):
        ids.image_id(tmp_path / "c.png")


def test_annotation_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError, match=r"truth\.json: lacks the model's classes \['nut'\]"):
        CocoIds(METADATA, _annotations(tmp_path / "truth.json", [], ["apple"]))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="no COCO annotations"):
        CocoIds(METADATA, str(tmp_path / "list.json"))
