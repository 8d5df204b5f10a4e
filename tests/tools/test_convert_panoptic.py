"""tools/convert_panoptic.py: what the command line passes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panomask.engine import run_tool
from panomask.errors import InputError


@pytest.fixture
def instances(tmp_path) -> Path:
    entry: dict[str, Any] = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}
    entry["segmentation"] = [[0, 0, 2, 0, 2, 2, 0, 2]]
    image = {"id": 1, "file_name": "1.jpg", "height": 3, "width": 4}
    content = {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "a"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.full((3, 4), 7, dtype=np.uint8)).save(tmp_path / "labels" / "1.png")
    return path


def test_to_panoptic_and_back(run, instances, tmp_path):
    labels = ("--semantic-root", tmp_path / "labels", "--stuff", "7=sky")
    run("from-instances", instances, tmp_path / "p.json", tmp_path / "p", *labels)
    run("to-instances", tmp_path / "p.json", tmp_path / "p", tmp_path / "back.json")
    run("to-semantic", tmp_path / "p.json", tmp_path / "p", tmp_path / "s", "--layout", "all-classes")
    (entry,) = json.loads((tmp_path / "back.json").read_text())["annotations"]
    assert (entry["area"], entry["bbox"]) == (4, [0, 0, 2, 2])
    found = np.asarray(Image.open(tmp_path / "s" / "1.png"))
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]])


def test_stuff_from_a_file(run, instances, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"categories": [{"id": 7, "name": "sky"}]}))
    labels = ("--semantic-root", tmp_path / "labels", "--stuff", tmp_path / "classes.json")
    run("from-instances", instances, tmp_path / "p.json", tmp_path / "p", *labels)
    assert [c["name"] for c in json.loads((tmp_path / "p.json").read_text())["categories"]] == ["a", "sky"]


def test_errors_are_one_line(run, instances, tmp_path, capsys):
    panoptic = (tmp_path / "p.json", tmp_path / "p")
    (tmp_path / "classes.json").write_text('{"classes": []}')
    for arguments, words in (
        (("to-instances", instances, tmp_path, tmp_path / "b.json"), "a COCO file of instances"),
        (("from-instances", instances, *panoptic, "--stuff", "7:sky", "8=a"), "--stuff 7:sky: VALUE=NAME is"),
        (("from-instances", instances, *panoptic, "--stuff", tmp_path / "classes.json"), "no list of"),
        (("from-instances", instances, instances, tmp_path / "p"), "is read by this conversion"),
        (("from-cityscapes", tmp_path), "instanceIds.png is there"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(lambda arguments=arguments: run(*arguments))
        assert stopped.value.code == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error


def test_bad_segments_are_left_out_on_request(run, instances, tmp_path):
    files = (tmp_path / "p.json", tmp_path / "p")
    run("from-instances", instances, *files, "--semantic-root", tmp_path / "labels", "--stuff", "7=sky")
    document = json.loads(files[0].read_text())
    segments = document["annotations"][0]["segments_info"]
    assert [segment["category_id"] for segment in segments] == [1, 7]
    segments[1]["category_id"] = 99
    segments.append({"id": 50, "category_id": 1, "iscrowd": 0})  # without pixels
    files[0].write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"unknown category_id: 99; .*--drop-bad"):
        run("to-instances", *files, tmp_path / "back.json")
    run("to-instances", *files, tmp_path / "back.json", "--drop-bad")
    run("to-semantic", *files, tmp_path / "s", "--drop-bad", "--layout", "all-classes")
    kept = [entry["segment_id"] for entry in json.loads((tmp_path / "back.json").read_text())["annotations"]]
    assert kept == [segments[0]["id"]]
    assert np.unique(Image.open(tmp_path / "s" / "1.png")).tolist() == [0, 255], "sky is void now"
