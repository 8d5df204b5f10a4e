"""Proposals from a file: whose they are, which come first, and where the transforms move them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from panomask.addresses import cached_path
from panomask.config import get_cfg
from panomask.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from panomask.data import transforms as T
from panomask.data.build import build_detection_test_loader, load_proposals_into_dataset
from panomask.data.detection_utils import transform_proposals
from panomask.errors import InputError
from panomask.structures import BoxMode

BOXES = [np.array([[0, 0, 10, 10], [5, 5, 25, 15]], np.float32), np.array([[1, 2, 3, 4]], np.float32)]
LOGITS = [np.array([0.5, 2.0], np.float32), np.array([-1.0], np.float32)]
CONTENT = {"ids": [7, "b"], "boxes": BOXES, "objectness_logits": LOGITS, "bbox_mode": 0}


@pytest.fixture
def write(tmp_path):
    """write(content): the path of a pickle with it."""

    def dump(content, protocol: int = 4) -> str:
        path = tmp_path / "proposals.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        return str(path)

    return dump


def _dicts() -> list[dict]:
    """Ids as a file may have them: text for a number."""
    return [{"image_id": "b", "file_name": "b.png"}, {"image_id": "7", "file_name": "7.png"}]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_image_gets_its_own_best_first(write, protocol):
    dicts = _dicts()
    assert load_proposals_into_dataset(dicts, write(CONTENT, protocol)) is dicts
    assert dicts[0]["proposal_boxes"].tolist() == [[1, 2, 3, 4]]
    assert dicts[1]["proposal_boxes"].tolist() == [[5, 5, 25, 15], [0, 0, 10, 10]]
    assert dicts[1]["proposal_objectness_logits"].tolist() == [2, 0.5]
    assert dicts[1]["proposal_bbox_mode"] is BoxMode.XYXY_ABS


def test_names_of_detectron1_and_boxes_with_sizes(write):
    content = {"indexes": [7, "b"], "boxes": BOXES, "scores": LOGITS, "bbox_mode": BoxMode.XYWH_ABS.value}
    dicts = load_proposals_into_dataset(_dicts(), write(content))
    transform_proposals(dicts[1], (40, 40), T.NoOpTransform(), proposal_topk=5)
    assert dicts[1]["proposals"].proposal_boxes.tensor.tolist() == [[5, 5, 30, 20], [0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [7, "c"]}, r"1 of 2 images, first 'b' \(b\.png\)"),
        ({"ids": [7]}, "different lengths"),
        ({"ids": 7}, "'ids' is no list"),
        ({"bbox_mode": 4}, r"bbox_mode is 4; allowed are 0 \(XYXY_ABS\), 1"),
        ({"bbox_mode": "a"}, "bbox_mode is another str; allowed"),
        ({"bbox_mode": []}, "bbox_mode is another list; allowed"),
        ({"ids": np.array(7)}, "'ids' is no list"),
        ({"ids": [7, [[], []]]}, "'ids' holds a list; image ids are whole numbers or text"),
        ({"ids": [7, 1 << 20000]}, "'ids' holds a int; image ids"),
        ({"boxes": [BOXES[0], BOXES[1][0]]}, r"image 'b': .* are \(4,\) and \(1,\)"),
        ({"boxes": [BOXES[0], [[1, 2, 3, 4]]]}, r"image 'b': .* are list and \(1,\)"),
        ({"objectness_logits": [LOGITS[0], LOGITS[0]]}, r"image 'b': .* are \(1, 4\) and \(2,\)"),
        ({"boxes": [BOXES[0], BOXES[1] * np.nan]}, "image 'b': a box or a score is infinite or NaN"),
    ],
)
def test_files_that_do_not_fit_are_refused_on_one_line(write, change, message):
    path = write(CONTENT | change)
    with pytest.raises(InputError, match=message) as error:
        load_proposals_into_dataset(_dicts(), path)
    assert str(error.value).startswith(path)
    assert "\n" not in str(error.value)


def test_addresses_lead_to_the_cache(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path / "cache"))
    address = "https://example.org/zoo/box_proposals.pkl"
    cached_path(address).parent.mkdir(parents=True)
    Path(write(CONTENT)).rename(cached_path(address))
    assert len(load_proposals_into_dataset(_dicts(), address)[1]["proposal_boxes"]) == 2


class _Attack:
    def __reduce__(self):
        return (print, ("code has run",))


def test_other_files_are_refused(write, tmp_path, capsys):
    for content, message in (([1], "holds a list"), ({"ids": []}, "lacks 'boxes', 'objectness_logits'")):
        with pytest.raises(InputError, match=message):
            load_proposals_into_dataset(_dicts(), write(content))
    with pytest.raises(InputError, match=r"print.*could run code"):
        load_proposals_into_dataset(_dicts(), write({"ids": _Attack()}))
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match=r"none\.pkl: no such file"):
        load_proposals_into_dataset(_dicts(), tmp_path / "none.pkl")


def _record(boxes, logits) -> dict:
    return {
        "proposal_boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "proposal_objectness_logits": np.array(logits, np.float32),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }


def test_transforms_by_hand():
    """An image of 20 x 40 (height x width) is doubled and mirrored: x becomes 80 - 2x."""
    record = _record([[10, 5, 30, 15], [50, 0, 60, 10], [30, 10, 50, 30], [0, 0, 1, 1]], [4, 3, 2, 1])
    transforms = T.TransformList([T.ResizeTransform(20, 40, 40, 80), T.HFlipTransform(80)])
    transform_proposals(record, (40, 80), transforms, proposal_topk=2)
    assert list(record) == ["proposals"]
    proposals = record["proposals"]
    assert proposals.image_size == (40, 80)
    # the second lies outside; the third is clipped; the fourth is one too many
    assert proposals.proposal_boxes.tensor.tolist() == [[20, 10, 60, 30], [0, 20, 20, 40]]
    assert proposals.objectness_logits.tolist() == [4, 2]


def test_small_boxes_whole_numbers_and_no_boxes_at_all():
    record = _record([[0, 0, 5, 20], [0, 0, 3, 6], [0, 0, 6, 6]], [3, 2, 1])  # the second: 6.75 wide
    record["proposal_boxes"] = record["proposal_boxes"].astype(np.int32)
    transform_proposals(record, (9, 9), T.ResizeTransform(4, 4, 9, 9), proposal_topk=9, min_box_size=8.9)
    assert record["proposals"].proposal_boxes.tensor.tolist() == [[0, 0, 9, 9], [0, 0, 9, 9]]
    record = _record([], [])
    transform_proposals(record, (10, 10), T.HFlipTransform(10), proposal_topk=9)
    assert len(record["proposals"]) == 0
    record = {"image_id": 1}
    transform_proposals(record, (10, 10), T.NoOpTransform(), proposal_topk=9)
    assert record == {"image_id": 1}


@pytest.fixture
def registered():
    name = "test_proposals_set"
    DatasetCatalog.register(name, _dicts)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)


def test_data_sets_and_files_go_together(registered, write):
    path = write(CONTENT)
    dicts = get_detection_dataset_dicts(registered, filter_empty=False, proposal_files=[path])
    assert [len(item["proposal_boxes"]) for item in dicts] == [1, 2]
    with pytest.raises(InputError, match=r"0 files of proposals .* for 1 data sets"):
        get_detection_dataset_dicts(registered, proposal_files=[])


def test_test_loader_takes_the_file_of_its_data_set(registered, write):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.LOAD_PROPOSALS", True, "DATALOADER.NUM_WORKERS", 0])
    cfg.DATASETS.TEST, cfg.DATASETS.PROPOSAL_FILES_TEST = ("other", registered), ("none.pkl", write(CONTENT))
    samples = list(build_detection_test_loader(cfg, registered, mapper=lambda item: item))
    assert [len(batch[0]["proposal_boxes"]) for batch in samples] == [1, 2]
    cfg.DATASETS.PROPOSAL_FILES_TEST = ("none.pkl",)
    with pytest.raises(InputError, match=f"{registered}.* has no file in DATASETS.PROPOSAL_FILES_TEST"):
        build_detection_test_loader(cfg, registered)


def test_a_torch_dataset_brings_its_own(write):
    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 1

    DatasetCatalog.register("test_proposals_torch", Numbers)
    try:
        with pytest.raises(InputError, match="must bring its proposals itself"):
            get_detection_dataset_dicts("test_proposals_torch", proposal_files=[write(CONTENT)])
    finally:
        DatasetCatalog.remove("test_proposals_torch")
