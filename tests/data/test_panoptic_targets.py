import copy

import numpy as np
import pytest
import torch
from PIL import Image

from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.data import transforms as T
from panomask.data.dataset_mapper import DatasetMapper
from panomask.data.panoptic_targets import PanopticInput, things_label_of
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids
from panomask.structures import BitMasks

IDS = np.array(
    [
        [7, 7, 0, 3000],
        [7, 7, 0, 3000],
        [9, 9, 9, 3000],
        [70000, 70000, 9, 9],
    ]
)
"""Two things (7, 3000), a crowd (70000), stuff (9), void (0)."""


@pytest.fixture
def record(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "a.png")
    write_segment_ids(tmp_path / "a_pan.png", IDS)
    segments = [
        {"id": 3000, "category_id": 1, "isthing": True, "iscrowd": 0},
        {"id": 9, "category_id": 2, "isthing": False, "iscrowd": 0},
        {"id": 7, "category_id": 0, "isthing": True, "iscrowd": 0},
        {"id": 70000, "category_id": 0, "isthing": True, "iscrowd": 1},
    ]
    annotations = [
        {"segment_id": s["id"], "category_id": s["category_id"], "iscrowd": s["iscrowd"]}
        for s in segments
        if s["isthing"]
    ]
    return {
        "file_name": str(tmp_path / "a.png"),
        "height": 4,
        "width": 4,
        "image_id": 1,
        "pan_seg_file_name": str(tmp_path / "a_pan.png"),
        "segments_info": segments,
        "annotations": annotations,
    }


def _mapper(*augmentations, is_train=True, **kwargs):
    options = {"image_format": "RGB", "use_instance_mask": True, "use_segments": True, **kwargs}
    return DatasetMapper(is_train, augmentations=list(augmentations), **options)


def test_everything_is_derived_from_the_png(record):
    before = copy.deepcopy(record)
    sample = _mapper()(record)
    assert record == before
    assert sample["sem_seg"].dtype == torch.int64
    assert sample["sem_seg"].tolist() == [[0, 0, 255, 0], [0, 0, 255, 0], [2, 2, 2, 0], [0, 0, 2, 2]]
    instances = sample["instances"]
    assert instances.image_size == (4, 4)
    assert instances.gt_classes.tolist() == [1, 0]  # in the order of the annotations, no crowd
    assert instances.gt_boxes.tensor.tolist() == [[3, 0, 4, 3], [0, 0, 2, 2]]
    assert isinstance(instances.gt_masks, BitMasks)
    np.testing.assert_array_equal(instances.gt_masks.tensor.numpy(), np.stack([IDS == 3000, IDS == 7]))
    assert "annotations" not in sample
    assert sample["pan_seg_file_name"] == record["pan_seg_file_name"]


def test_augmentations_move_masks_boxes_and_labels_together(record):
    # the lower right 3 x 3 pixels, mirrored: 7 keeps one pixel, the crowd is no object
    sample = _mapper(T.CropTransform(1, 1, 3, 3), T.HFlipTransform(3))(record)
    assert sample["sem_seg"].tolist() == [[0, 255, 0], [0, 2, 2], [2, 2, 0]]
    assert sample["instances"].gt_classes.tolist() == [1, 0]
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0, 0, 1, 2], [2, 0, 3, 1]]
    # the first two columns: nothing is left of 3000
    instances = _mapper(T.CropTransform(0, 0, 2, 4))(record)["instances"]
    assert instances.gt_classes.tolist() == [0]
    assert len(instances.gt_masks) == 1
    nothing = _mapper(T.CropTransform(2, 0, 1, 2))(record)
    assert len(nothing["instances"]) == 0
    assert nothing["instances"].gt_masks.tensor.shape == (0, 2, 1)
    assert nothing["instances"].gt_boxes.tensor.shape == (0, 4)
    assert nothing["sem_seg"].tolist() == [[255], [255]]


def test_what_a_crop_pads_is_ignored(record):
    sample = _mapper(T.FixedSizeCrop((5, 6)), sem_seg_ignore_label=99)(record)
    assert sample["sem_seg"].shape == (5, 6)
    assert (sample["sem_seg"][4] == 99).all()
    assert (sample["sem_seg"][:, 4:] == 99).all()
    assert sample["instances"].gt_masks.tensor[:, 4].sum() == 0


def test_resized_labels_and_masks_agree(record):
    sample = _mapper(T.ResizeTransform(4, 4, 9, 13))(record)
    masks, labels = sample["instances"].gt_masks.tensor, sample["sem_seg"]
    assert masks.shape == (2, 9, 13)
    assert (labels[masks.any(dim=0)] == 0).all()
    torch.testing.assert_close(
        sample["instances"].gt_boxes.tensor, sample["instances"].gt_masks.get_bounding_boxes().tensor
    )


def test_boxes_alone_and_no_labels_unless_asked_for(record):
    sample = _mapper(use_instance_mask=False, use_segments=False)(record)
    assert "sem_seg" not in sample
    assert not sample["instances"].has("gt_masks")
    assert sample["instances"].gt_boxes.tensor.tolist() == [[3, 0, 4, 3], [0, 0, 2, 2]]


def test_testing_opens_no_label_file(record):
    record["pan_seg_file_name"] = "nowhere.png"
    sample = _mapper(is_train=False)(record)
    assert not {"sem_seg", "instances", "annotations"} & sample.keys()
    assert sample["segments_info"] == record["segments_info"]


def test_label_file_beside_the_segments_goes_first(record, tmp_path):
    Image.fromarray(np.full((4, 4), 5, np.uint8)).save(tmp_path / "labels.png")
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    sample = _mapper(T.CropTransform(0, 0, 2, 3))(record)
    assert sample["sem_seg"].tolist() == [[5, 5]] * 3
    assert sample["instances"].gt_classes.tolist() == [0]
    assert "sem_seg_file_name" not in sample


def test_one_list_of_classes_keeps_each_category(record):
    sample = _mapper(sem_seg_things_label=None)(record)
    assert sample["sem_seg"][0].tolist() == [0, 0, 255, 1]


def test_augmentations_may_look_at_the_labels(record):
    seen = []

    class Look(T.Augmentation):
        def get_transform(self, image, sem_seg):
            seen.append(sem_seg.tolist())
            return T.NoOpTransform()

    _mapper(T.CropTransform(2, 2, 2, 2), Look())(record)
    assert seen == [[[2, 0], [2, 2]]]
    plain = PanopticInput(np.zeros((4, 4, 3), np.uint8), IDS)
    assert plain.sem_seg is None


def test_faults_name_the_file(record, tmp_path):
    def error_of(**changes):
        with pytest.raises(InputError) as error:
            _mapper(num_sem_seg_classes=3)({**record, **changes})
        assert "\n" not in str(error.value)
        return str(error.value)

    png = record["pan_seg_file_name"]
    assert error_of(segments_info=record["segments_info"][:3]).startswith(
        f"{png}: its pixels have segment id 70000"
    )
    more = [*record["segments_info"], {"id": 5, "category_id": 0, "isthing": True, "iscrowd": 0}]
    assert error_of(segments_info=more).startswith(f"{png}: segments_info lists segment id 5")
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "grey.png")
    assert "grey.png: an image of mode 'L'" in error_of(pan_seg_file_name=str(tmp_path / "grey.png"))
    write_segment_ids(tmp_path / "small.png", IDS[:2])
    assert "small.png: 4 x 2" in error_of(pan_seg_file_name=str(tmp_path / "small.png"))
    unknown = [{"segment_id": 8, "category_id": 0}]
    assert "object 0 has segment_id 8" in error_of(annotations=unknown)
    segments = copy.deepcopy(record["segments_info"])
    segments[1]["category_id"] = 4
    message = error_of(segments_info=segments)
    assert message.startswith(f"{png}: label 4, but there are 3 classes")


def test_bad_segments_are_void_where_they_are_dropped(record):
    record["on_bad_annotation"] = "drop"
    record["segments_info"] = record["segments_info"][:3]  # without the crowd
    record["annotations"] = record["annotations"][:2]
    assert _mapper()(record)["sem_seg"][3].tolist() == [255, 255, 2, 2]


@pytest.fixture
def data_set():
    yield MetadataCatalog.get("targets_a")
    MetadataCatalog.remove("targets_a")


def test_things_label_of_a_data_set(data_set):
    assert things_label_of("targets_a") == 0  # nothing is known
    data_set.stuff_classes = ["person", "sky"]
    assert things_label_of("targets_a") is None
    data_set.sem_seg_things_label = 0
    assert things_label_of("targets_a") == 0


def test_mapper_of_a_config(record, data_set):
    data_set.stuff_classes = ["things", "grass", "sky"]
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.TRAIN", "targets_a", "INPUT.MIN_SIZE_TRAIN", "4", "MODEL.MASK_ON", True])
    assert "sem_seg" not in DatasetMapper(cfg, True)(record)
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    sample = DatasetMapper(cfg, True)(record)
    assert sorted(sample["sem_seg"].unique().tolist()) == [0, 2, 255]
    assert len(sample["instances"]) == 2
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(InputError, match="label 2, but there are 2 classes"):
        DatasetMapper(cfg, True)(record)
