"""From instances and label images to panoptic files, on pictures of 4 x 6 pixels drawn by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panomask.data.datasets.panoptic_creation import instances_to_panoptic
from panomask.errors import InputError
from panomask.panoptic_png import read_segment_ids

THINGS = [{"id": 1, "name": "car"}, {"id": 5, "name": "dog", "color": [1, 2, 3]}]


def _mask(rows: slice, columns: slice) -> dict[str, Any]:
    """RLE of a rectangle in a picture of 4 x 6 pixels."""
    mask = np.zeros((4, 6), dtype=bool)
    mask[rows, columns] = True
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": [4, 6], "counts": np.diff([0, *edges, 24]).tolist()}


def _object(id_: int, category_id: int, rows: slice, columns: slice, **more: Any) -> dict[str, Any]:
    box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
    entry = {"id": id_, "image_id": 9, "category_id": category_id, "bbox": box}
    return {**entry, "segmentation": _mask(rows, columns), **more}


LARGE = _object(1, 1, slice(0, 3), slice(0, 4))
SMALL = _object(2, 5, slice(0, 2), slice(0, 2))
CROWD = _object(3, 1, slice(0, 4), slice(3, 5), iscrowd=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path, [LARGE, SMALL, CROWD])
    labels = np.full((4, 6), 255, dtype=np.uint8)
    labels[:, :3], labels[3, 4:] = 2, 1
    (tmp_path / "labels").mkdir()
    Image.fromarray(labels).save(tmp_path / "labels" / "p.png")
    return tmp_path


def _write(folder: Path, annotations: list[dict[str, Any]]) -> None:
    image = {"id": 9, "file_name": "p.jpg", "height": 4, "width": 6, "license": 3}
    content = {"images": [image], "annotations": annotations, "categories": THINGS}
    (folder / "instances.json").write_text(json.dumps(content))


def _convert(folder: Path, **how: Any) -> tuple[dict[str, Any], np.ndarray]:
    instances_to_panoptic(folder / "instances.json", folder / "out.json", folder / "out", **how)
    document = json.loads((folder / "out.json").read_text())
    assert [entry["file_name"] for entry in document["annotations"]] == ["p.png"]
    return document, read_segment_ids(folder / "out" / "p.png", (4, 6))


def test_objects_lie_on_stuff_and_crowds_behind_objects(folder: Path):
    stuff = [{"id": 2, "name": "road"}, {"id": 7, "name": "sky"}]
    document, ids = _convert(folder, semantic_root=folder / "labels", stuff=stuff, ignored=(1, 255))
    np.testing.assert_array_equal(
        ids, [[2, 2, 1, 1, 3, 0], [2, 2, 1, 1, 3, 0], [1, 1, 1, 1, 3, 0], [4, 4, 4, 3, 3, 0]]
    )
    (annotation,) = document["annotations"]
    assert annotation["segments_info"] == [
        {"id": 1, "category_id": 1, "iscrowd": 0, "area": 8, "bbox": [0, 0, 4, 3]},
        {"id": 2, "category_id": 5, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2]},
        {"id": 3, "category_id": 1, "iscrowd": 1, "area": 5, "bbox": [3, 0, 2, 4]},
        {"id": 4, "category_id": 2, "iscrowd": 0, "area": 3, "bbox": [0, 3, 3, 1]},
    ]
    assert document["images"][0]["license"] == 3
    named = [(c["id"], c["name"], c["isthing"]) for c in document["categories"]]
    assert named == [(1, "car", 1), (5, "dog", 1), (2, "road", 0), (7, "sky", 0)]
    assert document["categories"][1]["color"] == [1, 2, 3]


def test_a_background_takes_all_pixels_without_an_object(folder: Path, caplog):
    caplog.set_level("INFO")
    document, ids = _convert(folder, background="ground")
    assert (ids == 4).sum() == 24 - 17
    assert document["categories"][2]["name"] == "ground"
    assert document["categories"][2]["id"] == 6  # behind the last thing
    assert "0.00 % of the pixels are void" in caplog.text
    assert "29.17 % of the pixels are claimed by more than one object" in caplog.text  # 4 + 3 of 24


@pytest.mark.parametrize("overlap, shown", [("smaller", [8, 4]), ("later", [8, 4]), ("earlier", [12])])
def test_overlap_rules(folder: Path, caplog, overlap: str, shown: list[int]):
    _write(folder, [LARGE, SMALL])
    document, _ = _convert(folder, overlap=overlap)
    assert [segment["area"] for segment in document["annotations"][0]["segments_info"]] == shown
    assert ("1 objects have no pixel of their own" in caplog.text) == (len(shown) == 1)


def test_smaller_goes_by_pixels_and_not_by_order(folder: Path):
    _write(folder, [SMALL, LARGE])
    document, _ = _convert(folder)
    assert [segment["area"] for segment in document["annotations"][0]["segments_info"]] == [4, 8]


def test_more_objects_than_fit_a_byte(folder: Path):
    """pycocotools' area() of a list of 256 and more RLEs fails with numpy 2."""
    many = [_object(i, 1, slice(i % 4, i % 4 + 1), slice(i % 6, i % 6 + 1)) for i in range(300)]
    _write(folder, many)
    document, ids = _convert(folder, overlap="smaller")
    assert len(document["annotations"][0]["segments_info"]) == 12 == (ids > 0).sum()


def test_an_image_without_objects_is_void(folder: Path):
    _write(folder, [])
    document, ids = _convert(folder)
    assert not ids.any()
    assert document["annotations"][0]["segments_info"] == []


def test_ids_that_things_have_move_all_stuff(folder: Path):
    stuff = [{"id": 1, "name": "road"}, {"id": 2, "name": "sky"}, {"id": 4, "name": "bus", "isthing": 1}]
    document, _ = _convert(folder, semantic_root=folder / "labels", stuff=stuff)
    assert [(c["id"], c["name"]) for c in document["categories"][2:]] == [(6, "road"), (7, "sky")]


def test_bad_input_is_named(folder: Path):
    road = {"semantic_root": folder / "labels", "stuff": [{"id": 2, "name": "road"}]}
    for how, words in (
        (road, r"labels/p\.png: 1 pixels outside of all objects have the value 1; stuff has 2, and 0, 255"),
        ({"stuff": road["stuff"]}, "one of the two is missing"),
        ({"semantic_root": folder / "labels"}, "one of the two is missing"),
        ({**road, "background": "ground"}, "give one of the two"),
        ({**road, "semantic_root": folder / "none"}, "none: the folder of label images does not exist"),
        ({**road, "stuff": [{"id": 2, "name": "car"}]}, "'car' is a thing there, and given as stuff"),
        ({"overlap": "best"}, "overlap is 'best'; allowed are smaller, later, earlier"),
    ):
        with pytest.raises(InputError, match=words):
            _convert(folder, overwrite=True, **how)
        assert not (folder / "out.json").exists()

    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(folder / "labels" / "p.png")
    with pytest.raises(InputError, match=r"labels/p\.png: 5 x 4 \(width x height\), but its image is 6 x 4"):
        _convert(folder, **road)


def test_an_object_needs_a_mask(folder: Path):
    _write(folder, [{key: value for key, value in LARGE.items() if key != "segmentation"}])
    with pytest.raises(InputError, match='annotation 1 of image 9 has no "segmentation"'):
        _convert(folder)
