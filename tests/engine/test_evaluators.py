"""The evaluator of a data set is that of its `evaluator_type`."""

import pytest

from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.engine import evaluators
from panomask.engine.evaluators import build_evaluator, check_data_sets
from panomask.errors import InputError
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("coco_2017_val", COCOEvaluator),
        ("keypoints_coco_2017_val", COCOEvaluator),
        ("lvis_v1_val", LVISEvaluator),
        ("lvis_v0.5_val_cocofied", LVISEvaluator),
        ("voc_2007_test", PascalVOCDetectionEvaluator),
        ("cityscapes_fine_instance_seg_val", CityscapesInstanceEvaluator),
    ],
)
def test_built_in_sets(name, kind):
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    assert type(build_evaluator(cfg, name)) is kind


def test_an_evaluation_that_can_only_fail_is_refused_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    cfg = get_cfg()
    cfg.DATASETS.TEST = ("voc_2007_test",)
    with pytest.raises(InputError, match=r"voc_2007_test: .*JPEGImages not found"):
        check_data_sets(cfg)
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "cityscapes" / folder / "val").mkdir(parents=True)
    cfg.DATASETS.TEST = ("cityscapes_fine_instance_seg_val",)
    with pytest.raises(InputError, match=r"scores masks; set MODEL\.MASK_ON True"):
        check_data_sets(cfg)
    cfg.MODEL.MASK_ON = True
    check_data_sets(cfg)
    cfg.DATASETS.TEST = ("cityscapes_fine_sem_seg_val",)
    with pytest.raises(InputError, match="evaluator_type 'cityscapes_sem_seg'"):
        check_data_sets(cfg)
    cfg.DATASETS.TEST = ("a_set_of_ones_own",)
    check_data_sets(cfg)
    MetadataCatalog.remove("a_set_of_ones_own")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("voc_2007_trainval",), ()
    check_data_sets(cfg, eval_only=True)
    with pytest.raises(InputError, match=r"voc_2007_trainval: .* not found"):
        check_data_sets(cfg)


@pytest.mark.parametrize(("detections", "limit"), [(-1, 100), (50, 100), (300, 300)])
def test_coco_s_limit_is_only_raised_and_its_sigmas_are_passed_on(monkeypatch, detections, limit):
    monkeypatch.setattr(evaluators, "COCOEvaluator", lambda name, **arguments: arguments)
    cfg = get_cfg()
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1, 0.2]
    cfg.TEST.DETECTIONS_PER_IMAGE = detections
    arguments = build_evaluator(cfg, "coco_2017_val")
    assert (arguments["max_dets_per_image"], arguments["kpt_oks_sigmas"]) == (limit, [0.1, 0.2])


def test_an_unknown_type_names_the_known_ones():
    MetadataCatalog.get("odd").set(evaluator_type="pascal_vok")
    with pytest.raises(
        InputError, match=r"'odd' has evaluator_type 'pascal_vok'; .*mean 'pascal_voc'\?"
    ) as e:
        build_evaluator(get_cfg(), "odd")
    MetadataCatalog.remove("odd")
    assert "'lvis'" in str(e.value)
