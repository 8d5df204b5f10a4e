import itertools
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from panomask import distributed
from panomask.config import get_cfg
from panomask.data import DatasetCatalog, MetadataCatalog, ToIterableDataset, build
from panomask.data import transforms as T
from panomask.data.build import (
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
    print_stuff_class_histogram,
    trivial_batch_collator,
    worker_init_reset_seed,
)
from panomask.data.dataset_mapper import DatasetMapper
from panomask.data.samplers import TrainingSampler
from panomask.errors import InputError
from panomask.structures import BoxMode

NAME = "build_test_boxes"


def _anno(category=0, **fields):
    box = {"bbox": [2, 2, 10, 10], "bbox_mode": BoxMode.XYXY_ABS}
    return {**box, "category_id": category, "iscrowd": 0, **fields}


def _dicts(folder, count=6):
    items = []
    for i in range(count):
        height, width = (24, 16) if i % 3 == 0 else (16, 24)
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = folder / f"{i}.png"
        Image.fromarray(pixels).save(file)
        items.append(
            {
                "file_name": str(file),
                "image_id": i,
                "height": height,
                "width": width,
                "annotations": [_anno(i % 2)],
            }
        )
    return items


@pytest.fixture
def dicts(tmp_path):
    items = _dicts(tmp_path)
    DatasetCatalog.register(NAME, lambda: items)
    MetadataCatalog.get(NAME).set(thing_classes=["disc", "square"])
    yield items
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = (NAME,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.MIN_SIZE_TRAIN = (16, 20, 32)
    cfg.INPUT.MIN_SIZE_TEST = 16
    cfg.SEED = 7
    return cfg


def _mapper(is_train=True):
    augmentations = [T.RandomFlip(), T.RandomBrightness(0.5, 1.5)]
    return DatasetMapper(is_train, augmentations=augmentations, image_format="BGR")


def _summary(loader, count):
    batches = itertools.islice(iter(loader), count)
    return [
        [(sample["image_id"], tuple(sample["image"].shape), int(sample["image"].sum())) for sample in batch]
        for batch in batches
    ]


def test_crowd_filter():
    only_crowd = {"annotations": [_anno(iscrowd=1)]}
    mixed = {"annotations": [_anno(iscrowd=1), _anno()]}
    assert filter_images_with_only_crowd_annotations([only_crowd, mixed, {"annotations": []}]) == [mixed]


def test_keypoint_filter():
    two = {"annotations": [_anno(keypoints=[1, 1, 2, 5, 5, 0]), _anno(keypoints=[1, 1, 1, 0, 0, 0]), _anno()]}
    none = {"annotations": [_anno(keypoints=[1, 1, 0])]}
    assert filter_images_with_few_keypoints([two, none], 1) == [two]
    assert filter_images_with_few_keypoints([two, none], 2) == [two]
    assert filter_images_with_few_keypoints([two, none], 3) == []


def test_class_histogram(caplog):
    items = [{"annotations": [_anno(0), _anno(0), _anno(3), _anno(1, iscrowd=1)]}]
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram(items, ["disc", "square", "star", "cross"])
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in caplog.text.splitlines() if "|" in line
    ]
    assert rows[0] == ["class", "objects"] * 3
    assert rows[2:4] == [["disc", "2", "square", "0", "star", "0"], ["cross", "1", "", "", "", ""]]
    assert rows[4] == ["total", "3", "", "", "", ""]
    with pytest.raises(InputError, match=r"category_id 4 to 4.* 4 classes"):
        print_instances_class_histogram([{"file_name": "a", "annotations": [_anno(4)]}], ["a", "b", "c", "d"])


def test_class_histogram_of_very_many_classes_is_one_line(caplog):
    items = [{"annotations": [_anno(0)] * 12 + [_anno(3)]}]
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram(items, [f"class {i}" for i in range(1203)])
    assert "13 objects in 1 images; of the 1203 classes 1201 have none, 1 fewer than 10" in caplog.text
    assert "|" not in caplog.text


def test_stuff_histogram(caplog):
    items = [
        {
            "segments_info": [
                {"category_id": 0, "isthing": True},
                {"category_id": 2, "isthing": False},
                {"category_id": 2, "isthing": False},
            ]
        },
        {"segments_info": []},
        {},
    ]
    with caplog.at_level(logging.INFO):
        print_stuff_class_histogram(items, ["things", "sky", "sea"])
        print_stuff_class_histogram([{}], ["things", "lake"])
    lines = [line.split("|")[1:-1] for line in caplog.text.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0] == ["class", "segments"] * 2
    assert cells[2:] == [["sky", "0", "sea", "2"], ["total", "2", "", ""]]
    assert "in 2 images" in caplog.text
    with pytest.raises(InputError, match="category_id 2 to 2, but the data set has 2 stuff_classes"):
        print_stuff_class_histogram(items, ["things", "sky"])


def test_a_semantic_model_keeps_images_without_objects(dicts):
    for item in dicts[1:]:
        item["annotations"] = []
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = (NAME,), 0, 2
    sizes = {}
    for model in ("GeneralizedRCNN", "PanopticFPN", "SemanticSegmentor"):
        cfg.MODEL.META_ARCHITECTURE = model
        sizes[model] = len(build_detection_train_loader(cfg).dataset.dataset)
    assert sizes == {"GeneralizedRCNN": 1, "PanopticFPN": 1, "SemanticSegmentor": 6}
    cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = "PanopticFPN", False
    assert len(build_detection_train_loader(cfg).dataset.dataset) == 6


def test_dataset_dicts(dicts):
    assert get_detection_dataset_dicts(NAME) == dicts
    dicts[0]["annotations"] = []
    assert len(get_detection_dataset_dicts([NAME])) == 5
    assert len(get_detection_dataset_dicts([NAME], filter_empty=False)) == 6
    assert len(get_detection_dataset_dicts([NAME, NAME])) == 10


def test_dataset_dicts_errors(dicts):
    with pytest.raises(InputError, match=r"DATASETS\.TRAIN"):
        get_detection_dataset_dicts(())
    with pytest.raises(InputError, match="not registered"):
        get_detection_dataset_dicts("build_test_box")
    for item in dicts:
        item["annotations"][0]["iscrowd"] = 1
    MetadataCatalog.get(NAME).set(json_file="boxes.json")
    with pytest.raises(InputError, match=r"none of the 6 images.*boxes\.json.*FILTER_EMPTY_ANNOTATIONS"):
        get_detection_dataset_dicts(NAME)
    dicts.clear()
    with pytest.raises(InputError, match=f"{NAME}.*has no images"):
        get_detection_dataset_dicts(NAME)


@pytest.mark.parametrize("grouping", [True, False])
def test_train_loader_from_config(dicts, cfg, grouping):
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    loader = build_detection_train_loader(cfg)
    first = _summary(loader, 8)
    assert all(len(batch) == 2 for batch in first)
    assert first == _summary(build_detection_train_loader(cfg), 8)
    if grouping:
        assert all((a[1] > a[2]) == (b[1] > b[2]) for (_, a, _), (_, b, _) in first)
    resumed = build_detection_train_loader(cfg)
    resumed.load_state_dict(loader.state_dict(3))
    assert _summary(resumed, 5) == first[3:]
    cfg.SEED = 8
    assert _summary(build_detection_train_loader(cfg), 8) != first


def test_train_loader_with_real_workers_gives_the_same_pixels(dicts):
    def build(num_workers):
        sampler = TrainingSampler(len(dicts), seed=5)
        return build_detection_train_loader(
            dicts, mapper=_mapper(), sampler=sampler, total_batch_size=2, num_workers=num_workers
        )

    expected = _summary(build(0), 6)
    assert _summary(build(1), 6) == expected
    assert _summary(build(3), 6) == expected


def test_random_seed_is_drawn_and_can_be_restored(dicts, cfg):
    cfg.SEED = -1
    loader, other = build_detection_train_loader(cfg), build_detection_train_loader(cfg)
    assert loader.seed != other.seed
    other.load_state_dict(loader.state_dict(0))
    assert _summary(other, 6) == _summary(loader, 6)


def test_minimum_of_keypoints_from_config(cfg, monkeypatch):
    asked = []
    monkeypatch.setattr(build, "get_detection_dataset_dicts", lambda *_, **kwargs: asked.append(kwargs))
    cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 3
    for is_on in (False, True):
        cfg.MODEL.KEYPOINT_ON = is_on
        build._train_loader_from_config(cfg, mapper=_mapper(), sampler=object())
    assert [kwargs["min_keypoints"] for kwargs in asked] == [0, 3]


def test_repeat_factor_sampler_from_config(dicts, cfg):
    for item in dicts[1:]:
        item["annotations"] = [_anno(0)]
    dicts[0]["annotations"] = [_anno(1)]  # in one of six images: repeated sqrt(1 / (1 / 6)) = 2.4 times
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 1.0
    sampler = build_detection_train_loader(cfg).batch_sampler.sampler
    drawn = list(itertools.islice(sampler, 3000))
    assert drawn.count(0) / drawn.count(1) == pytest.approx(6**0.5 / (6 / 5) ** 0.5, rel=0.1)


def test_train_loader_errors(dicts, cfg, monkeypatch):
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainSampler"
    with pytest.raises(InputError, match=r"SAMPLER_TRAIN.*TrainSampler.*did you mean TrainingSampler"):
        build_detection_train_loader(cfg)
    with pytest.raises(InputError, match="no image is left"):
        build_detection_train_loader([], mapper=_mapper(), total_batch_size=2)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    with pytest.raises(InputError, match=r"6 \(SOLVER\.IMS_PER_BATCH\).*4"):
        build_detection_train_loader(
            dicts, mapper=_mapper(), sampler=TrainingSampler(6, seed=0), total_batch_size=6
        )


def test_missing_image_is_one_line_with_workers(dicts):
    dicts[2]["file_name"] += ".gone"
    loader = build_detection_train_loader(dicts, mapper=_mapper(), total_batch_size=2, num_workers=1)
    with pytest.raises(InputError) as error:
        _summary(loader, 6)
    assert str(error.value).startswith(dicts[2]["file_name"])
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("error:This DataLoader will create")
def test_many_workers_on_few_cores_are_no_news(dicts):
    loader = build_detection_train_loader(dicts, mapper=_mapper(), total_batch_size=2, num_workers=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
        assert len(next(iter(loader))) == 2
        build_detection_test_loader(dicts, mapper=_mapper(False), num_workers=3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_test_loader_gives_every_image_once(dicts, cfg, num_workers):
    cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = build_detection_test_loader(cfg, NAME)
    assert len(loader) == 6
    assert [sample["image_id"] for batch in loader for sample in batch] == list(range(6))
    batches = build_detection_test_loader(dicts, mapper=_mapper(False), batch_size=4)
    assert [len(batch) for batch in batches] == [4, 2]
    assert len(loader.dataset) == 6


def test_two_ranks_read_disjoint_shares(dicts, cfg, monkeypatch):
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(
            [sample for batch in _summary(build_detection_train_loader(cfg), 3) for sample in batch]
        )
    monkeypatch.undo()
    whole = [sample for batch in _summary(build_detection_train_loader(cfg), 3) for sample in batch]
    assert [sample for turn in zip(*shares, strict=True) for sample in turn] == whole


def test_batch_loader_by_rank_size(dicts):
    loader = build_batch_data_loader(
        torch.arange(10), TrainingSampler(10, shuffle=False), None, single_gpu_batch_size=3
    )
    assert next(iter(loader)) == [0, 1, 2]
    with pytest.raises(ValueError, match="not both"):
        build_batch_data_loader(dicts, TrainingSampler(6), 2, single_gpu_batch_size=3)


def test_worker_init_and_collator():
    torch.manual_seed(5)
    worker_init_reset_seed(0)
    expected = np.random.rand()
    torch.manual_seed(5)
    worker_init_reset_seed(1)
    assert np.random.rand() == expected
    batch = [1, 2]
    assert trivial_batch_collator(batch) is batch


def test_a_stream_made_of_dataset_and_sampler_is_taken_apart():
    items = [{"width": 4, "height": 3, "index": idx} for idx in range(6)]
    stream = ToIterableDataset(items, [4, 2, 0, 1])
    loader = build_batch_data_loader(stream, None, 2)
    assert [[x["index"] for x in batch] for batch in loader] == [[4, 2], [0, 1]]
    train = build_detection_train_loader(stream, mapper=dict, total_batch_size=2)
    assert [x["index"] for x in next(iter(train))] == [4, 2]
    test = build_detection_test_loader(stream, mapper=None)
    assert [batch[0]["index"] for batch in test] == [4, 2, 0, 1]
    with pytest.raises(InputError, match="which has a sampler"):
        build_batch_data_loader(stream, [0, 1], 2)


def test_other_streams_are_refused_in_one_line():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(InputError, match=r"stream \(Stream\), which cannot be resumed"):
        build_detection_train_loader(Stream(), mapper=None, total_batch_size=1)
