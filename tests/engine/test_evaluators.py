"""The evaluator of a data set is that of its `evaluator_type`, and of what the model predicts."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from panomask import distributed
from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.engine import DefaultTrainer, default_setup, evaluators
from panomask.engine.evaluators import build_evaluator, check_data_sets
from panomask.errors import InputError
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from panomask.panoptic_png import write_segment_ids


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
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    with pytest.raises(InputError, match=rf"{name}.* scores objects, which a SemanticSegmentor"):
        build_evaluator(cfg, name)


ALL = [COCOPanopticEvaluator, COCOEvaluator, SemSegEvaluator]


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("PanopticFPN", ALL),
        ("SemanticSegmentor", [SemSegEvaluator]),
        ("GeneralizedRCNN", [COCOEvaluator]),
        ("RetinaNet", [COCOEvaluator]),
        ("FCOS", [COCOEvaluator]),
        ("ModelOfAProject", ALL),
    ],
)
def test_a_panoptic_set_is_scored_by_what_the_model_predicts(panoptic_set, model, kinds):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = model
    cfg.TEST.BOUNDARY_IOU = True
    evaluator = build_evaluator(cfg, panoptic_set)
    built = evaluator._evaluators if isinstance(evaluator, DatasetEvaluators) else [evaluator]
    assert [type(each) for each in built] == kinds
    if SemSegEvaluator in kinds:
        assert built[-1]._compute_boundary_iou
    cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED = False
    if model == "PanopticFPN":
        assert [type(each) for each in build_evaluator(cfg, panoptic_set)._evaluators] == ALL[1:]


def test_panoptic_cityscapes_is_scored_by_its_own_rules(panoptic_set):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MASK_ON = "PanopticFPN", True
    MetadataCatalog.get("test_cityscapes").set(
        evaluator_type="cityscapes_panoptic_seg", gt_dir="x", thing_dataset_id_to_contiguous_id={24: 11}
    )
    evaluator = build_evaluator(cfg, "test_cityscapes")
    assert [type(each) for each in evaluator._evaluators] == [
        COCOPanopticEvaluator,
        CityscapesInstanceEvaluator,
        CityscapesSemSegEvaluator,
    ]
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    assert type(build_evaluator(cfg, "test_cityscapes")) is CityscapesSemSegEvaluator
    MetadataCatalog.remove("test_cityscapes")


def test_a_semantic_set_needs_a_model_of_semantic_labels(panoptic_set):
    MetadataCatalog.get("test_semantic").set(evaluator_type="sem_seg", stuff_classes=["sky"])
    cfg = get_cfg()
    with pytest.raises(InputError, match="scores semantic labels, which a GeneralizedRCNN"):
        build_evaluator(cfg, "test_semantic")
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    assert type(build_evaluator(cfg, "test_semantic")) is SemSegEvaluator
    MetadataCatalog.remove("test_semantic")


@pytest.fixture
def panoptic_run(tiny_run, tmp_path):
    """What makes of the tiny run one of Panoptic FPN: two objects, sky above, grass below, void between."""
    (tmp_path / "segments").mkdir()
    document = json.loads((tmp_path / "tiny.json").read_text())
    annotations = []
    for image in document["images"]:
        ids = np.zeros((image["height"], image["width"]), dtype=np.int32)
        ids[:30], ids[34:] = 3, 400
        segments = [{"id": 3, "category_id": 9}, {"id": 400, "category_id": 8}]
        for found in (a for a in document["annotations"] if a["image_id"] == image["id"]):
            x, y, width, height = found["bbox"]
            ids[y : y + height, x : x + width] = found["id"] * 1000
            segments.append({"id": found["id"] * 1000, "category_id": found["category_id"]})
        write_segment_ids(tmp_path / "segments" / f"{image['id']}.png", ids)
        for segment in segments:
            segment |= {"iscrowd": 0, "area": int((ids == segment["id"]).sum())}
        listed = {"image_id": image["id"], "file_name": f"{image['id']}.png", "segments_info": segments}
        annotations.append(listed)
    names = {1: "a", 2: "b", 8: "grass", 9: "sky"}
    categories = [{"id": i, "name": name, "isthing": int(i < 8)} for i, name in names.items()]
    content = {"images": document["images"], "annotations": annotations, "categories": categories}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    opts = ["DATASETS.REGISTER.tiny.ANNOTATIONS", str(tmp_path / "panoptic.json")]
    opts += ["DATASETS.REGISTER.tiny.PANOPTIC_ROOT", str(tmp_path / "segments")]
    opts += ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0", "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "0"]
    opts += ["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", "0"]
    return tiny_run, [*opts, "TEST.BOUNDARY_IOU", "True", "TEST.SAVE_PANOPTIC", "True"]


def _evaluate(config, opts):
    """Results of a model of random weights, the same ones each time."""
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.merge_from_list(opts)
    default_setup(cfg, argparse.Namespace(eval_only=True))
    torch.manual_seed(0)
    return DefaultTrainer.test(cfg, DefaultTrainer.build_model(cfg))


def _evaluate_in_two(rank, folder, config, opts):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    Path(folder, f"rank{rank}.json").write_text(json.dumps(_evaluate(config, opts)))
    distributed.destroy_process_group()


def test_panoptic_fpn_is_scored_by_everything_in_two_processes_as_in_one(panoptic_run, tmp_path):
    config, opts = panoptic_run
    results = _evaluate(config, [*opts, "OUTPUT_DIR", str(tmp_path / "one")])
    assert list(results) == ["panoptic_seg", "bbox", "segm", "sem_seg"]
    assert {"PQ", "PQ-a", "PQ_st"} <= results["panoptic_seg"].keys()
    assert {"mIoU", "mBoundaryIoU", "IoU-things", "IoU-sky"} <= results["sem_seg"].keys()
    assert 0 < results["sem_seg"]["pACC"] < 100
    assert (tmp_path / "one/inference/tiny/panoptic_predictions.json").is_file()
    arguments = (str(tmp_path), config, [*opts, "OUTPUT_DIR", str(tmp_path / "two")])
    mp.spawn(_evaluate_in_two, args=arguments, nprocs=2)
    of_both, of_second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert of_second == {}
    assert json.dumps(of_both) == json.dumps(results)


@pytest.fixture
def panoptic_set():
    name = "test_panoptic"
    MetadataCatalog.get(name).set(
        evaluator_type="coco_panoptic_seg", thing_classes=["x"], stuff_classes=["things", "sky"]
    )
    yield name
    MetadataCatalog.remove(name)


def test_an_evaluation_that_can_only_fail_is_refused_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setenv("PANOMASK_DATASETS", str(tmp_path))
    cfg = get_cfg()
    cfg.DATASETS.TEST = ("voc_2007_test",)
    with pytest.raises(InputError, match=r"voc_2007_test: .*JPEGImages not found"):
        check_data_sets(cfg)
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "cityscapes" / folder / "val").mkdir(parents=True)
    cfg.DATASETS.TEST = ("cityscapes_fine_instance_seg_val",)
    for model in ("FCOS", "RetinaNet", "GeneralizedRCNN"):
        cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MASK_ON = model, False
        with pytest.raises(InputError, match=r"scores masks; set MODEL\.MASK_ON True"):
            check_data_sets(cfg)
        cfg.MODEL.MASK_ON = True
        check_data_sets(cfg)
    cfg.DATASETS.TEST = ("cityscapes_fine_sem_seg_val",)
    with pytest.raises(
        InputError, match=r"'cityscapes_sem_seg'\) scores semantic labels, which a Generalized"
    ):
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
