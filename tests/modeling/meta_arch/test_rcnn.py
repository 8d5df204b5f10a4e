"""Two-stage detectors as a whole: builds, gradients, contract."""

import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.modeling import GeneralizedRCNN, ProposalNetwork, build_model
from panomask.structures import Boxes, Instances

AGNOSTIC = "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True"
GROUP_NORM = "MODEL.RESNETS.NORM GN MODEL.FPN.NORM GN MODEL.ROI_MASK_HEAD.NORM GN MODEL.ROI_BOX_HEAD.NORM GN"
WIDER = """MODEL.RESNETS.STEM_OUT_CHANNELS 32  MODEL.RESNETS.RES2_OUT_CHANNELS 32  MODEL.FPN.OUT_CHANNELS 32
    MODEL.ROI_MASK_HEAD.CONV_DIM 32"""
C4 = """MODEL.BACKBONE.NAME build_resnet_backbone  MODEL.RESNETS.OUT_FEATURES ["res4"]
    MODEL.RESNETS.DEPTH 50  MODEL.RESNETS.WIDTH_PER_GROUP 8  MODEL.RPN.IN_FEATURES ["res4"]
    MODEL.ANCHOR_GENERATOR.SIZES [[8,16,32,64]]  MODEL.ROI_HEADS.NAME Res5ROIHeads
    MODEL.ROI_HEADS.IN_FEATURES ["res4"]"""
ARCHITECTURES = {
    "frozen_bn": "",
    "bn": "MODEL.RESNETS.NORM BN MODEL.FPN.NORM BN",
    "gn": f"{GROUP_NORM} {WIDER} MODEL.ROI_BOX_HEAD.NUM_CONV 1 MODEL.ROI_BOX_HEAD.CONV_DIM 32",
    "bottleneck": """MODEL.RESNETS.DEPTH 50  MODEL.RESNETS.WIDTH_PER_GROUP 8
        MODEL.RESNETS.STRIDE_IN_1X1 False""",
    "agnostic_giou": f"""{AGNOSTIC}  MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE giou
        MODEL.RPN.BBOX_REG_LOSS_TYPE giou""",
    "frozen_at_2": "MODEL.BACKBONE.FREEZE_AT 2  MODEL.FPN.FUSE_TYPE avg  MODEL.RPN.CONV_DIMS [-1,8]",
    "c4": f"""{C4}  MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE diou""",
    "cascade": """MODEL.ROI_HEADS.NAME CascadeROIHeads  MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True
        MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE ciou  MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIPool""",
    "sigmoid_on_pred_boxes": """MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True
        MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES True  MODEL.RPN.BOUNDARY_THRESH 16""",
    "no_masks": "MODEL.MASK_ON False",
    "keypoints": "MODEL.KEYPOINT_ON True  MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS [8,8]",
    "proposals": "MODEL.META_ARCHITECTURE ProposalNetwork",
}
"""What is tried -> overrides of the tiny Mask R-CNN."""


@pytest.fixture(params=list(ARCHITECTURES))
def model(request, tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg(*ARCHITECTURES[request.param].split()))


def test_training_reaches_every_parameter(model, make_input):
    losses = model([make_input(64, 64, seed=1), make_input(48, 64, seed=2)])
    expected = {"loss_rpn_cls", "loss_rpn_loc"}
    if isinstance(model, GeneralizedRCNN):
        stages = [f"_stage{idx}" for idx in range(getattr(model.roi_heads, "num_cascade_stages", 0))] or [""]
        expected |= {f"{name}{stage}" for name in ("loss_cls", "loss_box_reg") for stage in stages}
        expected |= {"loss_mask"} if model.roi_heads.mask_on else set()
        expected |= {"loss_keypoint"} if model.roi_heads.keypoint_on else set()
    assert set(losses) == expected
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A heatmap's softmax is the same whatever number is added to all of its cells.
            assert parameter.grad.any() or name.endswith("score_lowres.bias"), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_training_without_objects(model, make_input, counts):
    batch = [make_input(64, 64, count, seed=seed) for seed, count in enumerate(counts)]
    losses = model(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_inference_contract(model, make_input):
    """Outputs of the asked size, on the first batch of fresh weights; inputs are left as they are."""
    batch = [{**make_input(64, 64), "height": 100, "width": 50}, make_input(48, 64)]
    before = batch[0]["image"].clone()
    outputs = model.eval()(batch)
    key = "proposals" if isinstance(model, ProposalNetwork) else "instances"
    sizes = [output[key].image_size for output in outputs]
    assert sizes == [(100, 50), (48, 64)]
    assert torch.equal(batch[0]["image"], before)
    if key == "instances" and model.roi_heads.mask_on:
        instances = outputs[0]["instances"]
        assert instances.pred_masks.shape == (len(instances), 100, 50)
    if key == "instances" and model.roi_heads.keypoint_on:
        assert outputs[0]["instances"].pred_keypoints.shape == (len(outputs[0]["instances"]), 17, 3)


@pytest.fixture
def mask_rcnn(tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)).eval()


@torch.no_grad()
def test_inference_variants(mask_rcnn, make_input):
    batch = [make_input(64, 64)]
    (raw,) = mask_rcnn.inference(batch, do_postprocess=False)
    assert raw.pred_masks.shape[1:] == (1, 28, 28)
    assert len(raw) == 100
    given = raw[:3]
    given.remove("pred_masks")
    (again,) = mask_rcnn.inference(batch, detected_instances=[given], do_postprocess=False)
    torch.testing.assert_close(again.pred_masks, raw[:3].pred_masks)
    mask_rcnn.proposal_generator = None
    proposals = Instances(
        (64, 64), proposal_boxes=Boxes([[0.0, 0, 20, 20]]), objectness_logits=torch.zeros(1)
    )
    (output,) = mask_rcnn([{**batch[0], "proposals": proposals}])
    assert set(output["instances"].pred_classes.tolist()) == {0, 1, 2}


@torch.no_grad()
def test_nothing_detected(mask_rcnn, make_input):
    mask_rcnn.roi_heads.box_predictor.test_score_thresh = 1.0
    (output,) = mask_rcnn([make_input(64, 64)])
    assert len(output["instances"]) == 0
    assert output["instances"].pred_masks.shape == (0, 64, 64)


@torch.no_grad()
def test_batch_and_single_agree(mask_rcnn, make_input):
    """An image's result does not depend on the (equally sized) images beside it."""
    images = [make_input(64, 64, seed=1), make_input(64, 64, seed=2)]
    together = mask_rcnn(images)
    for image, expected in zip(images, together, strict=True):
        (alone,) = mask_rcnn([image])
        torch.testing.assert_close(alone["instances"].scores, expected["instances"].scores)


def test_models_without_a_proposal_generator(tiny_cfg, make_input):
    opts = ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    with pytest.raises(InputError, match="an input has no 'proposals'"):
        build_model(tiny_cfg(*opts)).eval()([make_input(64, 64)])
    with pytest.raises(InputError, match=r"PROPOSAL_GENERATOR\.NAME is PrecomputedProposals; set it to RPN"):
        build_model(tiny_cfg(*opts, "MODEL.META_ARCHITECTURE", "ProposalNetwork"))


def test_diverged_training_stops(mask_rcnn, make_input):
    mask_rcnn.train()
    torch.nn.init.constant_(mask_rcnn.proposal_generator.rpn_head.anchor_deltas.bias, float("nan"))
    with pytest.raises(FloatingPointError):
        mask_rcnn([make_input(64, 64)])


def test_visualized_training(mask_rcnn, make_input):
    mask_rcnn.train()
    mask_rcnn.vis_period = 1
    with EventStorage() as storage:
        mask_rcnn([make_input(64, 64)])
        name, image, _ = storage._images[-1]
    assert name.startswith("Left: GT bounding boxes")
    assert image.shape == (3, 64, 128)
