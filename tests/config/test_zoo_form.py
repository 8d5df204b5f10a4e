"""Config files as Detectron2's users bring them: the zoo's own way of writing YAML, read as it stands.

The texts are written here by hand in that way: comments in every place, tuples, both kinds of quotes, blanks
before closing brackets, files on top of files on top of files, YAML's tuples and arithmetic.
"""

import pytest

from panomask import model_zoo
from panomask.config import CfgNode, check_supported, get_cfg
from panomask.config.node import flatten
from panomask.errors import InputError

BASE_FPN = """
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE:
    NAME: "build_resnet_fpn_backbone"
  RESNETS:
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN:
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]  # one size a map
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]  # for all maps
  RPN:
    IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]
    PRE_NMS_TOPK_TRAIN: 2000  # a map
    PRE_NMS_TOPK_TEST: 1000  # a map
    # 1000 were enough for
    # an image
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: "StandardROIHeads"
    IN_FEATURES: ["p2", "p3", "p4", "p5"]
  ROI_BOX_HEAD:
    NAME: "FastRCNNConvFCHead"
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NAME: "MaskRCNNConvUpsampleHead"
    NUM_CONV: 4
    POOLER_RESOLUTION: 14
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: (60000, 80000)
  MAX_ITER: 90000
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
VERSION: 2
"""

CASCADE = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
  MASK_ON: True
  RESNETS:
    DEPTH: 50
  ROI_HEADS:
    NAME: CascadeROIHeads
  ROI_BOX_HEAD:
    CLS_AGNOSTIC_BBOX_REG: True
  RPN:
    POST_NMS_TOPK_TRAIN: 2000
SOLVER:
  STEPS: (210000, 250000)
  MAX_ITER: 270000
"""

KEYPOINT_BASE = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  KEYPOINT_ON: True
  ROI_HEADS:
    NUM_CLASSES: 1
  ROI_BOX_HEAD:
    SMOOTH_L1_BETA: 0.5  # with 0.0 the boxes gain
                         # and the keypoints lose
  RPN:
    # Of one image, where others count
    # those of a batch.
    POST_NMS_TOPK_TRAIN: 1500
DATASETS:
  TRAIN: ("keypoints_coco_2017_train",)
  TEST: ("keypoints_coco_2017_val",)
"""

KEYPOINT = """
_BASE_: "Base-Keypoint-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
  PIXEL_STD: [57.375, 57.120, 58.395]
  RESNETS:
    STRIDE_IN_1X1: False  # these weights want it so
    NUM_GROUPS: 32
    WIDTH_PER_GROUP: 8
    DEPTH: 101
SOLVER:
  STEPS: (210000, 250000)
  MAX_ITER: 270000
"""

GN = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/FAIR/R-50-GN.pkl"
  MASK_ON: True
  RESNETS:
    DEPTH: 50
    NORM: "GN"
    STRIDE_IN_1X1: False
  FPN:
    NORM: "GN"
  ROI_BOX_HEAD:
    NAME: "FastRCNNConvFCHead"
    NUM_CONV: 4
    NUM_FC: 1
    NORM: "GN"
  ROI_MASK_HEAD:
    NORM: "GN"
SOLVER:
  # three times as long
  STEPS: (210000, 250000)
  MAX_ITER: 270000
"""

SCRATCH = """
_BASE_: "mask_rcnn_R_50_FPN_3x_gn.yaml"
MODEL:
  # Start from random weights.
  WEIGHTS: ""
  # Dividing by the deviation would make sense, and makes no difference:
  # PIXEL_STD: [57.375, 57.12, 58.395]
  MASK_ON: True
  BACKBONE:
    FREEZE_AT: 0
# The reason is in https://arxiv.org/abs/1811.08883
"""

VOC = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
  MASK_ON: False
  RESNETS:
    DEPTH: 50
  ROI_HEADS:
    NUM_CLASSES: 20
INPUT:
  MIN_SIZE_TRAIN: (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
  MIN_SIZE_TEST: 800
DATASETS:
  TRAIN: ('voc_2007_trainval', 'voc_2012_trainval')
  TEST: ('voc_2007_test',)
SOLVER:
  STEPS: (12000, 16000)
  MAX_ITER: 18000  # 17.4 epochs
  WARMUP_ITERS: 100
"""

PANOPTIC_BASE = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  META_ARCHITECTURE: "PanopticFPN"
  MASK_ON: True
  SEM_SEG_HEAD:
    LOSS_WEIGHT: 0.5
DATASETS:
  TRAIN: ("coco_2017_train_panoptic_separated",)
  TEST: ("coco_2017_val_panoptic_separated",)
DATALOADER:
  FILTER_EMPTY_ANNOTATIONS: False
"""

PANOPTIC = """
# Much in one model,
# to show what it can do.
_BASE_: "../COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml"
MODEL:
  WEIGHTS: "catalog://ImageNetPretrained/FAIR/R-101-GN"
  RESNETS:
    DEPTH: 101
    NORM: "GN"
    DEFORM_ON_PER_STAGE: [False, True, True, True]
    STRIDE_IN_1X1: False
  FPN:
    NORM: "GN"
  ROI_HEADS:
    NAME: CascadeROIHeads
  ROI_BOX_HEAD:
    CLS_AGNOSTIC_BBOX_REG: True
  ROI_MASK_HEAD:
    NORM: "GN"
  RPN:
    POST_NMS_TOPK_TRAIN: 2000
SOLVER:
  STEPS: (105000, 125000)
  MAX_ITER: 135000
  IMS_PER_BATCH: 32
  BASE_LR: 0.04
"""


@pytest.fixture
def load(tmp_path):
    """load({name: text}): the config of the last file, all of them written to a folder."""

    def load_files(files: dict[str, str]) -> CfgNode:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        cfg = get_cfg()
        cfg.merge_from_file(str(path))
        return cfg

    return load_files


@pytest.mark.parametrize(
    "files",
    [
        {"Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml": CASCADE},
        {
            "COCO-Keypoints/Base-Keypoint-RCNN-FPN.yaml": KEYPOINT_BASE,
            "COCO-Keypoints/keypoint_rcnn_X_101_32x8d_FPN_3x.yaml": KEYPOINT,
        },
        {
            "Misc/mask_rcnn_R_50_FPN_3x_gn.yaml": GN,
            "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml": SCRATCH,
        },
        {"PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml": VOC},
        {
            "COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml": PANOPTIC_BASE,
            "Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x.yaml": PANOPTIC,
        },
    ],
    ids=lambda files: list(files)[-1],
)
def test_zoo_text_means_what_our_file_means(load, files):
    cfg = load({"Base-RCNN-FPN.yaml": BASE_FPN, **files})
    check_supported(cfg)
    assert dict(flatten(cfg)) == dict(flatten(model_zoo.get_config(list(files)[-1])))


def test_values_in_all_their_spellings(load):
    """Tuples are no YAML, nor are numbers such as 1e-4: both come as strings and become what is wanted."""
    cfg = load(
        {
            "a.yaml": """
MODEL:
  MASK_ON: true
  # DEVICE: "cpu"
  FPN:
    # NORM: "GN"
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128]]"]
    ASPECT_RATIOS: !!python/tuple [[0.5, 1.0, 2.0]]
  ROI_BOX_HEAD:
    BBOX_REG_WEIGHTS: (10, 10, 5.0, 5.0)
  ROI_BOX_CASCADE_HEAD:
    IOUS: (0.5, 0.6, 0.7)
    BBOX_REG_WEIGHTS: ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
  RPN:
    SMOOTH_L1_BETA: .1111
    CONV_DIMS: (-1, -1)
SOLVER:
  STEPS: "(210000, 250000)"
  BASE_LR: 2e-2
  WEIGHT_DECAY: 1e-4
  GAMMA: 1
INPUT:
  MIN_SIZE_TRAIN: (800, )
  MIN_SIZE_TRAIN_SAMPLING: 'choice'
  CROP: {"ENABLED": True, SIZE: [0.9, 0.9]}
DATASETS:
  TRAIN: ("coco_2014_train",
          "coco_2014_valminusminival")
  TEST: ()
TEST:
  EXPECTED_RESULTS: [["bbox", "AP", 38.5, 0.2], ['segm', 'AP', 34.9,  0.2]]
  AUG:
    MIN_SIZES: (400, 500,
                600)
"""
        }
    )
    model = cfg.MODEL
    assert model.MASK_ON is True
    assert model.ANCHOR_GENERATOR.SIZES[0] == [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
    assert model.ANCHOR_GENERATOR.ASPECT_RATIOS == [[0.5, 1.0, 2.0]]
    assert model.ROI_BOX_HEAD.BBOX_REG_WEIGHTS == (10, 10, 5, 5)
    assert model.ROI_BOX_CASCADE_HEAD.IOUS == (0.5, 0.6, 0.7)
    assert model.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS[2] == (30.0, 30.0, 15.0, 15.0)
    assert (model.RPN.SMOOTH_L1_BETA, model.RPN.CONV_DIMS) == (0.1111, [-1, -1])
    assert cfg.SOLVER.STEPS == (210000, 250000)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.GAMMA) == (0.02, 0.0001, 1.0)
    assert isinstance(cfg.SOLVER.GAMMA, float)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (800,)
    assert cfg.INPUT.CROP.SIZE == [0.9, 0.9]
    assert cfg.DATASETS.TRAIN == ("coco_2014_train", "coco_2014_valminusminival")
    assert cfg.DATASETS.TEST == ()
    assert cfg.TEST.EXPECTED_RESULTS == [["bbox", "AP", 38.5, 0.2], ["segm", "AP", 34.9, 0.2]]
    assert cfg.TEST.AUG.MIN_SIZES == (400, 500, 600)


def test_base_beside_below_and_at_home(load, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {
        "Base-RCNN-FPN.yaml": BASE_FPN,
        "sub/b.yaml": '_BASE_: "~/Base-RCNN-FPN.yaml"\n',
        "sub/c.yaml": f"_BASE_: {tmp_path / 'sub' / 'b.yaml'}  # a whole path\n",
        "d.yaml": "_BASE_: './sub/../sub/c.yaml'\nMODEL:\n  MASK_ON: True\n",
    }
    cfg = load(files)
    assert cfg.MODEL.ROI_MASK_HEAD.NUM_CONV == 4
    assert cfg.MODEL.MASK_ON


def test_mistake_in_the_zoos_form_names_file_and_key(load, tmp_path):
    with pytest.raises(InputError, match=r"child\.yaml: unknown key MODEL\.ROI_BOX_HEAD\.NUM_FCS") as error:
        load(
            {
                "Base-RCNN-FPN.yaml": BASE_FPN,
                "x/child.yaml": CASCADE.replace("CLS_AGNOSTIC_BBOX_REG", "NUM_FCS"),
            }
        )
    assert str(tmp_path / "x" / "child.yaml") in str(error.value)
