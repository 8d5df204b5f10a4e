"""torchvision's models with random weights, and ours with the same weights after translation."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.misc import FrozenBatchNorm2d

from panomask.checkpoint import DetectionCheckpointer
from panomask.checkpoint.foreign import translate
from panomask.config import get_cfg
from panomask.modeling import build_backbone, build_model

HEIGHT, WIDTH = 96, 160
ABSENT_IDS = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
SHARED = {
    "min_size": HEIGHT,
    "max_size": WIDTH,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_test": 50,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 20,
}

CONFIG = """
MODEL.META_ARCHITECTURE GeneralizedRCNN MODEL.DEVICE cpu INPUT.FORMAT RGB MODEL.LOAD_PROPOSALS False
MODEL.PIXEL_MEAN [123.675,116.28,103.53] MODEL.PIXEL_STD [58.395,57.12,57.375]
MODEL.BACKBONE.NAME build_resnet_fpn_backbone MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64
MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.RESNETS.OUT_FEATURES ["res2","res3","res4","res5"]
MODEL.FPN.IN_FEATURES ["res2","res3","res4","res5"] MODEL.ANCHOR_GENERATOR.SIZES [[32],[64],[128],[256],[512]]
MODEL.RPN.IN_FEATURES ["p2","p3","p4","p5","p6"]
MODEL.RPN.PRE_NMS_TOPK_TEST 100 MODEL.RPN.POST_NMS_TOPK_TEST 50
MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.ROI_HEADS.IN_FEATURES ["p2","p3","p4","p5"]
MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE 20
MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 7 MODEL.ROI_BOX_HEAD.FC_DIM 64
MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION 14
MODEL.ROI_MASK_HEAD.NUM_CONV 4
MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlign MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2
MODEL.ROI_MASK_HEAD.POOLER_TYPE ROIAlign MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO 2
MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE ROIAlign MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO 2
MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION 14
"""
MORE = {
    "faster": "MODEL.ROI_HEADS.NUM_CLASSES 4 MODEL.ROI_BOX_HEAD.NUM_FC 2",
    "mask": "MODEL.ROI_HEADS.NUM_CLASSES 80 MODEL.ROI_BOX_HEAD.NUM_FC 2 MODEL.MASK_ON True",
    "mask_v2": """MODEL.ROI_HEADS.NUM_CLASSES 80 MODEL.MASK_ON True MODEL.RESNETS.NORM BN MODEL.FPN.NORM BN
        MODEL.RPN.CONV_DIMS [-1,-1] MODEL.ROI_BOX_HEAD.NUM_CONV 4 MODEL.ROI_BOX_HEAD.NUM_FC 1
        MODEL.ROI_BOX_HEAD.NORM BN MODEL.ROI_MASK_HEAD.NORM BN""",
    "keypoint": """MODEL.ROI_HEADS.NUM_CLASSES 1 MODEL.ROI_BOX_HEAD.NUM_FC 2 MODEL.KEYPOINT_ON True
        MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS [64,64,64,64,64,64,64,64]""",
}


def theirs(kind: str) -> nn.Module:
    """A detector of torchvision, built as its published ones are but on a ResNet-18."""
    torch.manual_seed(3)  # left to chance, some weights bring proposals near the threshold of suppression
    norm = nn.BatchNorm2d if kind == "mask_v2" else FrozenBatchNorm2d
    resnet = torchvision.models.resnet18(weights=None, norm_layer=norm)
    backbone = _resnet_fpn_extractor(resnet, 5, norm_layer=norm if kind == "mask_v2" else None)
    if kind == "mask_v2":
        return MaskRCNN(
            backbone,
            rpn_head=RPNHead(256, 3, conv_depth=2),
            box_head=FastRCNNConvFCHead((256, 7, 7), [256] * 4, [64], norm_layer=norm),
            box_predictor=FastRCNNPredictor(64, 91),
            mask_head=MaskRCNNHeads(256, [256] * 4, 1, norm_layer=norm),
            mask_predictor=MaskRCNNPredictor(256, 256, 91),
            **SHARED,
        )
    box_head = TwoMLPHead(256 * 49, 64)
    if kind == "faster":
        return FasterRCNN(backbone, box_head=box_head, box_predictor=FastRCNNPredictor(64, 5), **SHARED)
    if kind == "mask":
        predictors = FastRCNNPredictor(64, 91), MaskRCNNPredictor(256, 256, 91)
        return MaskRCNN(
            backbone, box_head=box_head, box_predictor=predictors[0], mask_predictor=predictors[1], **SHARED
        )
    return KeypointRCNN(
        backbone,
        box_head=box_head,
        box_predictor=FastRCNNPredictor(64, 2),
        keypoint_head=KeypointRCNNHeads(256, [64] * 8),
        keypoint_predictor=KeypointRCNNPredictor(64, 17),
        **SHARED,
    )


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Random weights and statistics that give scores and boxes worth comparing."""
    torch.manual_seed(0)
    for name, value in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif "cls_score.weight" in name or "bbox_pred.weight" in name or "rpn.head.cls" in name:
            value.normal_(0, 0.05)
    scores = model.roi_heads.box_predictor.cls_score.bias
    if len(scores) == 91:
        scores[ABSENT_IDS] = -50  # what training makes of classes that never occur


def image() -> torch.Tensor:
    torch.manual_seed(1)
    blurred = F.avg_pool2d(torch.rand(1, 3, HEIGHT, WIDTH), 9, 1, 4)[0]
    return ((blurred - 0.5) * 1500 + 120).clamp(0, 255)


def ours(kind: str) -> nn.Module:
    cfg = get_cfg()
    cfg.merge_from_list((CONFIG + MORE[kind]).split())
    return build_model(cfg).eval()


def with_old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the files are that torchvision publishes: layer names of 0.12, variances for an epsilon of 0."""
    replaced = OrderedDict()
    for key, value in state.items():
        for part in ("inner_blocks.{}", "layer_blocks.{}", "rpn.head.conv"):
            for i in range(4):
                key = key.replace(part.format(i) + ".0.", part.format(i) + ".")
        for i in range(4):
            key = key.replace(f"roi_heads.mask_head.{i}.0.", f"roi_heads.mask_head.mask_fcn{i + 1}.")
        replaced[key] = value + 1e-5 if key.endswith("running_var") else value
    return replaced


@pytest.mark.parametrize("kind", ["faster", "mask", "mask_old_names", "mask_v2", "keypoint"])
def test_detectors_give_the_same_detections(tmp_path, kind, caplog):
    kind, _, is_old = kind.partition("_old")
    reference = theirs(kind).eval()
    fill(reference)
    state = with_old_names(reference.state_dict()) if is_old else reference.state_dict()
    assert ("rpn.head.conv.weight" in state) == bool(is_old)
    torch.save(state, tmp_path / "theirs.pth")
    model = ours(kind)
    DetectionCheckpointer(model).load(str(tmp_path / "theirs.pth"), match="parameters")
    assert not caplog.records  # no warning: every weight has found its place

    variance = reference.backbone.body.bn1.running_var
    torch.testing.assert_close(
        model.backbone.bottom_up.stem.conv1.norm.running_var, variance, rtol=1e-6, atol=0
    )

    # torchvision rounds its anchors: here, both take ours
    anchors = [cell.clone() for cell in model.proposal_generator.anchor_generator.cell_anchors]
    for own, rounded in zip(anchors, reference.rpn.anchor_generator.cell_anchors, strict=True):
        assert (own - rounded).abs().max() <= 0.5
    reference.rpn.anchor_generator.cell_anchors = anchors
    with torch.no_grad():
        images, _ = reference.transform([image() / 255])
        features = reference.backbone(images.tensors)
        proposals, _ = reference.rpn(images, features)
        (expected,), _ = reference.roi_heads(features, proposals, images.image_sizes)
        batch = [{"image": image(), "height": HEIGHT, "width": WIDTH}]
        (found,) = model.inference(batch, do_postprocess=False)

    assert len(found) == len(expected["boxes"]) == 20
    classes = torch.tensor([i for i in range(91) if i not in [0, *ABSENT_IDS]])
    labels = classes[found.pred_classes] if kind.startswith("mask") else found.pred_classes + 1
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pred_boxes.tensor, expected["boxes"], atol=0.01, rtol=0)
    assert labels.tolist() == expected["labels"].tolist()
    if kind.startswith("mask"):
        torch.testing.assert_close(found.pred_masks, expected["masks"], atol=1e-3, rtol=0)
    if kind == "keypoint":
        torch.testing.assert_close(
            found.pred_keypoints[:, :, :2], expected["keypoints"][:, :, :2], atol=0.05, rtol=0
        )


@pytest.mark.parametrize("num_classes, rows", [(None, 80), (80, 80), (3, 80), (90, 90)])
def test_rows_of_classes(num_classes, rows):
    """Row i of the file belongs to category id i; the background goes last."""
    ids = torch.arange(91.0)
    state = {
        "backbone.body.conv1.weight": torch.zeros(1),
        "rpn.head.cls_logits.weight": torch.zeros(1),
        "roi_heads.box_predictor.cls_score.weight": ids[:, None],
        "roi_heads.box_predictor.bbox_pred.bias": ids.repeat_interleave(4),
        "roi_heads.mask_predictor.mask_fcn_logits.bias": ids,
    }
    renamed, notes = translate(state, num_classes)
    scores = renamed["roi_heads.box_predictor.cls_score.weight"][:, 0].tolist()
    assert len(scores) == rows + 1
    assert scores[-1] == 0
    assert scores[11] == (13 if rows == 80 else 12)  # 12 is no category of COCO, 13 is the stop sign
    assert renamed["roi_heads.box_predictor.bbox_pred.bias"][::4].tolist() == scores[:-1]
    assert renamed["roi_heads.mask_head.predictor.bias"].tolist() == scores[:-1]
    assert any("91 rows" in note for note in notes) == (rows == 80)


@pytest.mark.parametrize(
    "build, depth, more",
    [
        (torchvision.models.resnet18, 18, "MODEL.RESNETS.RES2_OUT_CHANNELS 64"),
        (
            partial(torchvision.models.resnet.resnext50_32x4d),
            50,
            "MODEL.RESNETS.NUM_GROUPS 32 MODEL.RESNETS.WIDTH_PER_GROUP 4",
        ),
    ],
    ids=["resnet18", "resnext50"],
)
def test_imagenet_resnets_give_the_same_features(tmp_path, build, depth, more):
    torch.manual_seed(0)
    reference = build(weights=None).eval()
    for name, value in reference.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    torch.save(reference.state_dict(), tmp_path / "imagenet.pth")
    cfg = get_cfg()
    keys = f"""MODEL.DEVICE cpu MODEL.BACKBONE.NAME build_resnet_backbone MODEL.RESNETS.DEPTH {depth}
        MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.RESNETS.OUT_FEATURES ["res2","res5"] {more}"""
    cfg.merge_from_list(keys.split())
    model = nn.ModuleDict({"backbone": build_backbone(cfg)}).eval()
    DetectionCheckpointer(model).load(str(tmp_path / "imagenet.pth"))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = model["backbone"](pixels)
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(pixels))))
        expected = {"res2": reference.layer1(x)}
        expected["res5"] = reference.layer4(reference.layer3(reference.layer2(expected["res2"])))
    for name, feature in expected.items():
        torch.testing.assert_close(found[name], feature, rtol=1e-4, atol=1e-5)
