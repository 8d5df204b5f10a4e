"""tools/evaluate_json.py scores prediction files against annotation files."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from panomask.engine import run_tool

GOLDEN = Path(__file__).parents[1] / "evaluation" / "golden_panoptic.zip"


@pytest.fixture
def run(tool, monkeypatch):
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["evaluate_json.py", *map(str, arguments)])
        run_tool(tool.main)

    return run


@pytest.fixture
def panoptic(tmp_path) -> Path:
    zipfile.ZipFile(GOLDEN).extractall(tmp_path)
    return tmp_path


@pytest.fixture
def instances(tmp_path) -> Path:
    """One image of two cats, and results that find the first."""
    cats = [{"id": n, "image_id": 1, "category_id": 3, "bbox": [20 * n, 0, 10, 10]} for n in (1, 2)]
    truth = {
        "images": [{"id": 1, "height": 50, "width": 90}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": cats,
    }
    found = [{"image_id": 1, "category_id": 3, "bbox": [20, 0, 10, 10], "score": 0.9}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path


def test_panoptic_files(run, panoptic, capsys):
    """The folders are those beside the JSON files."""
    run(panoptic / "gt.json", panoptic / "pred.json", "--output", panoptic / "out/pq.json")
    assert "| panoptic_seg | 56.39 | 79.92 | 70.78 |" in capsys.readouterr().out
    found = json.loads((panoptic / "out/pq.json").read_text())["panoptic_seg"]
    expected = json.loads((panoptic / "expected.json").read_text())
    assert found["PQ_st"] == pytest.approx(100 * expected["Stuff"]["pq"], abs=1e-9)


def test_folders_are_given(run, panoptic, capsys):
    for name in ("gt", "pred"):
        (panoptic / name).rename(panoptic / f"{name}_png")
    options = ("--truth-folder", panoptic / "gt_png", "--predictions-folder", panoptic / "pred_png")
    run(panoptic / "gt.json", panoptic / "pred.json", *options)
    assert "56.39" in capsys.readouterr().out


def test_results_of_instances(run, instances, capsys):
    run(instances / "truth.json", instances / "found.json", "--output", instances / "ap.json")
    assert "| bbox   | 50.50 |" in capsys.readouterr().out
    found = json.loads((instances / "ap.json").read_text())
    assert list(found) == ["bbox"], "there are no masks and no keypoints"
    assert found["bbox"]["APl"] is None, "no object is large"
    assert found["bbox"]["AP-cat"] == pytest.approx(100 * 51 / 101)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ("gt.json", "none.json"), "none.json: file does not exist"),
        (None, ("gt.json", "pred.json", "--truth-folder", "x"), "x: no such folder; name that of the PNG"),
        (None, ("gt.json", "pred.json", "--tasks", "bbox"), "--tasks: the files are of panoptic"),
        (None, ("gt.json", "pred.json", "--max-detections", "9"), "--max-detections: the files are of pan"),
        (None, ("gt.json", "pred.json", "--output", "gt"), "--output gt: cannot be written (Is a directory)"),
        (None, ("gt.json", "[].json"), "[].json holds instances, but gt.json is panoptic; give"),
        (
            lambda c: c["annotations"].pop(3),
            ("gt.json", "pred.json"),
            "pred.json: no prediction of image 4; every image of the truth needs an entry",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"].pop(),
            ("gt.json", "pred.json"),
            "000001.png (listed in pred.json): its pixels have segment id",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"].append({"id": 99, "category_id": 1}),
            ("gt.json", "pred.json"),
            "000001.png (listed in pred.json): segments_info lists segment id 99, but no pixel has this id",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(category_id=77),
            ("gt.json", "pred.json"),
            "pred.json: image 1: segment 1: category_id 77 is no category of the data set",
        ),
    ],
)
def test_bad_panoptic_files_in_one_line(run, panoptic, monkeypatch, capsys, change, arguments, message):
    monkeypatch.chdir(panoptic)
    Path("[].json").write_text("[]")
    if change:
        content = json.loads(Path("pred.json").read_text())
        change(content)
        Path("pred.json").write_text(json.dumps(content))
    _refused(run, capsys, arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("truth.json", "truth.json"), "truth.json: an object, but truth.json is a file of instances"),
        (("odd.json", "odd.json"), "odd.json: an object, but odd.json is a file of instances"),
        (("odd.json", "found.json"), "odd.json: image"),
        (("found.json", "found.json"), "found.json: not a COCO annotation file"),
        (("truth.json", "found.json", "--truth-folder", "x"), "--truth-folder: the files are of instances"),
        (("truth.json", "found.json", "--tasks", "segm"), "the ground truth has no masks"),
        (("truth.json", "found.json", "--max-detections", "3"), "--max-detections is 3; give 10 or more"),
    ],
)
def test_bad_files_of_instances_in_one_line(run, instances, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(instances)
    Path("odd.json").write_text('{"annotations": [], "categories": [3], "images": [4]}')
    _refused(run, capsys, arguments, message)


def _refused(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
