from pathlib import Path

import numpy as np
import pytest
import torch

from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode, get_cfg
from panomask.data.catalog import MetadataCatalog
from panomask.engine.predictor import DefaultPredictor
from panomask.engine.test_time_augmentation import GeneralizedRCNNWithTTA
from panomask.errors import InputError
from panomask.modeling import build_model

NAMES = ["apple", "nut", "date"]


def _tiny_cfg() -> CfgNode:
    """A Mask R-CNN that predicts something at random weights within a fraction of a second."""
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.MASK_ON", True),
            *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.FPN.OUT_CHANNELS", 16),
            *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32], [64], [128], [256]]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"], "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
            *(
                "MODEL.ROI_HEADS.NAME",
                "StandardROIHeads",
                "MODEL.ROI_HEADS.IN_FEATURES",
                ["p2", "p3", "p4", "p5"],
            ),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
            *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead", "MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
            *("MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
            *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96, "DATASETS.TEST", ()),
        ]
    )
    return cfg


def _save_weights(folder: Path, num_classes: int = 3, **entries) -> str:
    cfg = _tiny_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    torch.manual_seed(0)
    DetectionCheckpointer(build_model(cfg), str(folder)).save("weights", **entries)
    return str(folder / "weights.pth")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return _save_weights(tmp_path_factory.mktemp("weights"), thing_classes=NAMES)


def _image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def _predictor(weights: str, **changes) -> DefaultPredictor:
    cfg = _tiny_cfg()
    cfg.merge_from_list(["MODEL.WEIGHTS", weights, *(item for pair in changes.items() for item in pair)])
    cfg.freeze()
    return DefaultPredictor(cfg)


def test_output_is_in_pixels_of_the_image(weights):
    predictor = _predictor(weights)
    instances = predictor(_image())["instances"]
    assert len(instances) > 0
    assert instances.image_size == (40, 60)
    assert instances.pred_masks.shape[1:] == (40, 60)
    assert instances.pred_boxes.tensor.max() <= 60
    assert not instances.scores.requires_grad
    assert not predictor.model.training


def test_the_model_sees_the_resized_image_in_its_own_channel_order(weights):
    seen = {}
    for order in ("BGR", "RGB"):
        predictor = _predictor(weights, **{"INPUT.FORMAT": order})
        predictor.model.register_forward_pre_hook(
            lambda _, args, order=order: seen.update({order: args[0][0]})
        )
        predictor(_image())
    assert seen["BGR"]["image"].shape == (3, 64, 96)
    assert (seen["BGR"]["height"], seen["BGR"]["width"]) == (40, 60)
    assert torch.equal(seen["BGR"]["image"].flip(0), seen["RGB"]["image"])
    assert not torch.equal(seen["BGR"]["image"], seen["RGB"]["image"])


def test_test_time_augmentation(weights):
    sizes = {"TEST.AUG.MIN_SIZES": [64], "TEST.AUG.MAX_SIZE": 96}
    plain = _predictor(weights)(_image())["instances"]
    same = _predictor(weights, **sizes, **{"TEST.AUG.ENABLED": True, "TEST.AUG.FLIP": False})
    assert isinstance(same.model, GeneralizedRCNNWithTTA)
    torch.testing.assert_close(same(_image())["instances"].scores, plain.scores)
    augmented = _predictor(weights, **sizes, **{"TEST.AUG.ENABLED": True})(_image())["instances"]
    assert augmented.image_size == (40, 60)
    assert not torch.equal(augmented.scores, plain.scores)


def test_a_model_that_needs_proposals_from_a_file_is_refused(weights):
    with pytest.raises(InputError, match=r"MODEL\.LOAD_PROPOSALS"):
        _predictor(weights, **{"MODEL.LOAD_PROPOSALS": True})


def test_classes_come_from_the_checkpoint(weights):
    predictor = _predictor(weights)
    assert predictor.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert predictor.metadata.thing_classes == NAMES


@pytest.mark.parametrize(
    "entry",
    [{"thing_classes": 3}, {"keypoints": 17}, {"keypoints": {"keypoint_names": "a"}}, {"stuff": ["sky"]}],
)
def test_entries_of_another_meaning_are_refused_on_one_line(tmp_path, entry):
    with pytest.raises(InputError, match=rf"its entry '{next(iter(entry))}' does not hold a list of names"):
        _predictor(_save_weights(tmp_path, **entry))


def test_stuff_comes_from_the_checkpoint(tmp_path):
    cfg = _tiny_cfg()
    opts = {"MODEL.META_ARCHITECTURE": "PanopticFPN", "MODEL.MASK_ON": True}
    opts |= {"MODEL.SEM_SEG_HEAD.CONVS_DIM": 8, "MODEL.SEM_SEG_HEAD.NORM": ""}
    opts |= {"MODEL.SEM_SEG_HEAD.IN_FEATURES": list(cfg.MODEL.ROI_HEADS.IN_FEATURES)}
    cfg.merge_from_list([item for pair in opts.items() for item in pair])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1, 3
    stuff = {"stuff_classes": ["things", "sky", "sea"], "stuff_colors": [], "sem_seg_things_label": 0}
    entries = {"thing_classes": ["boat"], "stuff": stuff}
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("weights", **entries)
    predictor = _predictor(str(tmp_path / "weights.pth"), **opts)
    assert predictor.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert predictor.metadata.stuff_classes == ["things", "sky", "sea"]
    assert predictor.metadata.thing_classes == ["boat"]
    assert predictor(_image())["sem_seg"].shape[0] == 3


def test_keypoints_come_from_the_checkpoint(tmp_path):
    opts = {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [8]}
    cfg = _tiny_cfg()
    cfg.merge_from_list([item for pair in opts.items() for item in pair])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 1, 2
    keypoints = {"keypoint_names": ["tip", "root"], "keypoint_flip_map": []}
    keypoints["keypoint_connection_rules"] = [("tip", "root", (255, 0, 0))]
    entries = {"thing_classes": ["leaf"], "keypoints": keypoints}
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("weights", **entries)
    predictor = _predictor(str(tmp_path / "weights.pth"), **opts)
    assert predictor.cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 2
    assert predictor.metadata.keypoint_names == ["tip", "root"]
    instances = predictor(_image())["instances"]
    assert instances.pred_keypoints.shape == (len(instances), 2, 3)


def test_classes_of_a_one_stage_detector_and_its_roi_heads_come_from_the_checkpoint(tmp_path):
    cfg = _tiny_cfg()
    opts = ["MODEL.META_ARCHITECTURE", "FCOS", "MODEL.BACKBONE.NAME", "build_fcos_resnet_fpn_backbone"]
    opts += ["MODEL.FPN.OUT_CHANNELS", 64, "MODEL.FCOS.NUM_CLS_CONVS", 1, "MODEL.FCOS.NUM_BOX_CONVS", 1]
    opts += ["MODEL.ROI_HEADS.NAME", "GivenBoxROIHeads", "MODEL.FCOS.INFERENCE_TH_TEST", 0.0]
    cfg.merge_from_list(opts)
    trained = cfg.clone()
    trained.MODEL.FCOS.NUM_CLASSES = trained.MODEL.ROI_HEADS.NUM_CLASSES = 3
    DetectionCheckpointer(build_model(trained), str(tmp_path)).save("weights", thing_classes=NAMES)
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    predictor = DefaultPredictor(cfg)
    assert predictor.model.num_classes == predictor.model.roi_heads.num_classes == 3
    assert predictor(_image())["instances"].pred_masks.shape[1:] == (40, 60)


def test_a_registered_data_set_of_the_same_classes_gives_its_metadata(weights, caplog):
    name = "test_predictor_set"
    metadata = MetadataCatalog.get(name).set(thing_classes=NAMES)
    assert _predictor(weights, **{"DATASETS.TEST": (name,)}).metadata is metadata
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(thing_classes=["other"])
    assert _predictor(weights, **{"DATASETS.TEST": (name,)}).metadata.thing_classes == NAMES
    assert "other classes than those of test_predictor_set" in caplog.text
    MetadataCatalog.remove(name)


def test_weights_without_class_names_leave_the_classes_to_the_config(tmp_path):
    weights = _save_weights(tmp_path, num_classes=5)
    predictor = _predictor(weights, **{"MODEL.ROI_HEADS.NUM_CLASSES": 5})
    assert predictor.metadata.get("thing_classes") is None


@pytest.mark.parametrize(
    "changes",
    [{"MODEL.ROI_HEADS.NUM_CLASSES": 4}, {"MODEL.FPN.OUT_CHANNELS": 24}, {"INPUT.FORMAT": "L"}],
)
def test_what_does_not_fit_the_weights_is_refused_on_one_line(weights, changes):
    with pytest.raises(InputError) as error:
        _predictor(weights, **changes)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_there_are_named():
    with pytest.raises(InputError, match=r"missing\.pth"):
        _predictor("missing.pth")


def test_an_image_must_have_three_channels(weights):
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        _predictor(weights)(np.zeros((5, 5), np.uint8))


def test_reduced_precision(weights):
    """Features are in bfloat16; what comes out is about the same, and masks are masks."""
    plain = _predictor(weights)(_image())["instances"]
    predictor = _predictor(weights, **{"TEST.PRECISION": "bfloat16"})
    seen = []
    predictor.model.backbone.register_forward_hook(lambda _, __, maps: seen.append(maps["p2"].dtype))
    reduced = predictor(_image())["instances"]
    assert seen == [torch.bfloat16]
    best = (found.scores.float().sort(descending=True).values[:5] for found in (reduced, plain))
    torch.testing.assert_close(*best, atol=0.1, rtol=0)
    assert reduced.pred_masks.dtype == torch.bool
