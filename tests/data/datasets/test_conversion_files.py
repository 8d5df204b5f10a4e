"""Outputs of converters, and their processes."""

import json
from functools import partial
from pathlib import Path

import pytest

from panomask.data.datasets.conversion_files import (
    claim_file,
    claim_folder,
    convert_all,
    png_names,
    write_coco_json,
)
from panomask.errors import InputError


def _add(number: int, *, to: int) -> int:
    if number < 0:
        raise InputError(f"image {number} is bad")
    return number + to


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_order_and_errors_reach_the_caller(num_workers: int):
    results = convert_all(partial(_add, to=1), [*range(20), *[-1] * 20], num_workers=num_workers)
    assert [next(results) for _ in range(16)] == list(range(1, 17))  # 16 make a chunk
    with pytest.raises(InputError, match="image -1 is bad"):
        list(results)
    assert list(convert_all(partial(_add, to=1), [], num_workers=0)) == []


def test_negative_workers_are_refused():
    with pytest.raises(InputError, match="num-workers is -1"):
        list(convert_all(partial(_add, to=1), [1], num_workers=-1))


def test_a_file_is_whole_or_not_there(tmp_path: Path):
    path = tmp_path / "a.json"
    with pytest.raises(TypeError), write_coco_json(path, [], []) as add:
        add({"id": object()})  # no JSON
    assert list(tmp_path.iterdir()) == []
    with write_coco_json(path, [{"id": 7}], [{"id": 1, "name": "ü"}]) as add:
        add({"id": 1})
        add({"id": 2})
    expected = {"images": [{"id": 7}], "annotations": [{"id": 1}, {"id": 2}]}
    assert json.loads(path.read_text()) == {**expected, "categories": [{"id": 1, "name": "ü"}]}


def test_a_file_without_annotations(tmp_path: Path):
    with write_coco_json(tmp_path / "a.json", [], []):
        pass
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "images": [],
        "annotations": [],
        "categories": [],
    }


def test_nothing_is_replaced_silently(tmp_path: Path):
    file, folder = tmp_path / "a.json", tmp_path / "pngs"
    claim = partial(claim_file, file, inputs=())
    assert claim(overwrite=False) == file
    file.write_text("{}")
    with pytest.raises(InputError, match=r"a\.json: exists already"):
        claim(overwrite=False)
    assert claim(overwrite=True) == file

    assert claim_folder(folder, inputs=(), overwrite=False) == folder
    assert claim_folder(folder, inputs=(), overwrite=False) == folder  # empty still
    (folder / "1.png").touch()
    with pytest.raises(InputError, match="not empty"):
        claim_folder(folder, inputs=(), overwrite=False)
    assert claim_folder(folder, inputs=(), overwrite=True) == folder


def test_outputs_are_no_inputs_and_of_their_kind(tmp_path: Path):
    file = tmp_path / "a.json"
    file.touch()
    with pytest.raises(InputError, match="is read by this conversion"):
        claim_file(tmp_path / "b" / ".." / "a.json", inputs=(file,), overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        claim_file(tmp_path, inputs=(), overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        claim_folder(file, inputs=(), overwrite=True)
    with pytest.raises(InputError, match="cannot be made"):
        claim_folder(file / "pngs", inputs=(), overwrite=True)


def test_names_of_png_files():
    assert png_names(["1.jpg", "a/2.tar.jpeg", "/x/3.png", "../y/4"], "s.json") == [
        "1.png",
        "a/2.tar.png",
        "3.png",
        "4.png",
    ]
    with pytest.raises(InputError, match=r"images '1\.jpg' and '1\.bmp' would share the file '1\.png'"):
        png_names(["1.jpg", "1.bmp"], "s.json")
