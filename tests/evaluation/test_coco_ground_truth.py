import copy
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest

from panomask.errors import InputError
from panomask.evaluation import load_ground_truth, load_results
from panomask.evaluation.coco_ground_truth import has_masks, with_masks_only

SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4
IMAGE = {"id": "a", "file_name": "a.jpg", "height": 10, "width": 12}
CATEGORIES = [{"id": 5, "name": "five"}]


def _file(*annotations: dict) -> dict:
    entries = [{"image_id": "a", "category_id": 5, **annotation} for annotation in annotations]
    return {"images": [IMAGE], "categories": CATEGORIES, "annotations": entries}


def _square_mask() -> np.ndarray:
    mask = np.zeros((10, 12), np.uint8)
    mask[3:7, 2:8] = 1
    return mask


def _uncompressed(mask: np.ndarray) -> dict:
    """Run lengths down the columns, zeros first, by definition of COCO's RLE."""
    counts, value, run = [], 0, 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


@pytest.mark.parametrize("kind", ["polygon", "uncompressed", "compressed", "compressed text"])
def test_missing_keys_are_filled_in_from_every_kind_of_mask(kind):
    rle = mask_util.encode(np.asfortranarray(_square_mask()))
    segmentation = {
        "polygon": [SQUARE],
        "uncompressed": _uncompressed(_square_mask()),
        "compressed": rle,
        "compressed text": {**rle, "counts": rle["counts"].decode()},
    }[kind]
    (annotation,) = load_ground_truth(_file({"segmentation": segmentation})).anns.values()
    assert annotation["area"] == 24
    assert annotation["bbox"] == [2, 3, 6, 4]
    assert annotation["iscrowd"] == 0
    assert annotation["id"] == 1
    np.testing.assert_array_equal(mask_util.decode(annotation["segmentation"]), _square_mask())


def test_what_the_file_states_is_kept():
    given = {"id": 7, "segmentation": [SQUARE], "area": 1.5, "bbox": [0, 0, 2, 2], "iscrowd": 1}
    (annotation,) = load_ground_truth(_file(given)).anns.values()
    assert {key: annotation[key] for key in ("id", "area", "bbox", "iscrowd")} == {
        "id": 7,
        "area": 1.5,
        "bbox": [0, 0, 2, 2],
        "iscrowd": 1,
    }


def test_area_is_the_boxs_where_there_is_no_mask():
    truth = load_ground_truth(_file({"bbox": [1, 1, 3, 4]}, {"bbox": [1, 1, 3, 4], "segmentation": []}))
    assert [annotation["area"] for annotation in truth.anns.values()] == [12, 12]
    assert not has_masks(truth)


@pytest.mark.parametrize("ids", [[0, 1], [3, 3], [None, 4], [[], 4]])
def test_annotations_are_numbered_anew_where_ids_would_mislead(ids):
    """pycocotools reads a match with annotation 0 as no match and drops all but the last of equal ids."""
    truth = load_ground_truth(_file(*({"id": i, "bbox": [0, 0, 1, 1]} for i in ids)))
    assert list(truth.anns) == [1, 2]


def test_the_callers_content_is_not_changed_and_nothing_is_printed(tmp_path, capsys):
    content = _file({"id": 0, "segmentation": [SQUARE]})
    before = copy.deepcopy(content)
    load_ground_truth(content)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = load_ground_truth(path)
    load_results(truth, [{"image_id": "a", "category_id": 5, "bbox": [0, 0, 1, 1], "score": 1}], "bbox")
    assert content == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "broken JSON"),
        ("[]", "'images' and 'categories'"),
        (json.dumps({"images": []}), "'images' and 'categories'"),
        (json.dumps({"images": [{}], "categories": []}), "lacks 'id'"),
        (json.dumps(_file({"bbox": [0, 0, 1, 1], "category_id": 5}, {})), "neither 'bbox' nor a mask"),
        (json.dumps({**_file(), "annotations": [{"image_id": "a"}]}), "lacks 'category_id'"),
        ('{"images": [], "categories": [{"id": NaN}]}', "'id' is nan; a number or a text is needed"),
        (json.dumps({"images": 5, "categories": []}), "'images' is 5; a list is needed"),
        (json.dumps({"images": [], "categories": {"1": "a"}}), "'categories' is .*; a list is needed"),
        (json.dumps({**_file(), "annotations": None}), "'annotations' is None; a list is needed"),
        (
            json.dumps({"images": [{"id": [1]}], "categories": []}),
            "'id' is .1.; a number or a text is needed",
        ),
        (
            json.dumps({"images": [{"id": 1}, {"id": "1"}], "categories": []}),
            "ids of some of its image entries",
        ),
        (json.dumps(_file({"id": 9, "bbox": [1, 2]})), "annotation 9: 'bbox' is .1, 2.; four numbers"),
        (
            json.dumps(_file({"id": 9, "segmentation": {"size": [10, 12], "counts": "h"}})),
            "annotation 9: the text of its RLE",
        ),
        (
            json.dumps(_file({"id": 9, "segmentation": {"size": [3, 3]}})),
            "annotation 9: segmentation must be",
        ),
    ],
)
def test_bad_files_are_named_on_one_line(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_ground_truth(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file():
    with pytest.raises(InputError, match=r"nowhere\.json: file does not exist"):
        load_ground_truth("nowhere.json")


def test_annotations_without_mask_are_left_out_of_mask_scores(caplog):
    truth = load_ground_truth(_file({"id": 1, "bbox": [0, 0, 1, 1]}, {"id": 2, "segmentation": [SQUARE]}))
    assert has_masks(truth)
    assert list(with_masks_only(truth).anns) == [2]
    assert "1 annotations have no mask" in caplog.text


def test_boxes_may_be_arrays_in_memory():
    truth = load_ground_truth(_file({"bbox": np.array([1, 1, 3, 4])}, {"bbox": [], "segmentation": [SQUARE]}))
    assert [annotation["area"] for annotation in truth.anns.values()] == [12, 24]
    entries = [_result(bbox=np.array([0.0, 0, 2, 3])), _result(bbox=np.zeros(0), segmentation=[SQUARE])]
    for iou_type in ("bbox", "keypoints"):
        found = load_results(truth, entries, iou_type).anns
        assert [found[i]["area"] for i in (1, 2)] == [6, 24]
    entries[0]["segmentation"] = [SQUARE]
    assert load_results(truth, entries, "segm").anns[1]["area"] == 6


def _result(**entry) -> dict:
    return {"image_id": "a", "category_id": 5, "score": 0.5, **entry}


def test_results_measure_area_by_box_or_mask():
    truth = load_ground_truth(_file())
    with_both = [_result(bbox=[0, 0, 10, 10], segmentation=[SQUARE])]
    by_mask = [_result(segmentation=[SQUARE])]

    def area(source: list, iou_type: str, **kwargs) -> float:
        return load_results(truth, source, iou_type, **kwargs).anns[1]["area"]

    assert area(with_both, "bbox") == 100
    assert area(with_both, "segm") == 100  # as pycocotools
    assert area(with_both, "segm", use_mask_area=True) == 24  # as Detectron2
    assert area(by_mask, "segm") == 24
    assert load_results(truth, by_mask, "bbox").anns[1]["bbox"] == [2, 3, 6, 4]


@pytest.mark.parametrize(
    "entries, iou_type, message",
    [
        ({"not": "a list"}, "bbox", "a list of detections"),
        ([_result(bbox=[0, 0, 1, 1], image_id="b")], "bbox", "entry 1 is of image 'b'"),
        ([{"image_id": "a", "category_id": 5, "bbox": [0, 0, 1, 1]}], "bbox", "lacks 'score'"),
        ([_result(bbox=[0, 0, 1, 1], score="1")], "bbox", "entry 1: 'score' is 1; a number is needed"),
        ([_result(bbox=[0, 0, 1, 1], score=None)], "bbox", "entry 1: 'score' is None; a number is needed"),
        ([_result(bbox=[0, 0, 1, 1])], "segm", "entry 1 lacks 'segmentation'"),
        ([_result()], "bbox", "entry 1 lacks 'bbox'"),
        ([_result(bbox=[1, 2])], "bbox", "entry 1: 'bbox' is .1, 2.; four numbers"),
        ([_result(bbox=[0, 0, 1, 1], image_id=["a"])], "bbox", "'image_id' is .'a'.; a number or a text"),
        ([_result(segmentation={"size": [10, 12], "counts": "h"})], "segm", "entry 1: the text of its RLE"),
        ([_result(segmentation={"size": [10], "counts": "h"})], "segm", "entry 1: the size .10. of a mask"),
    ],
)
def test_bad_results_are_named(tmp_path, entries, iou_type, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=message):
        load_results(load_ground_truth(_file()), path, iou_type)
