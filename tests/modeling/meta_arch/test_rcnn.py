"""Two-stage detectors as a whole: builds, gradients, contract, and numbers recorded from Detectron2."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.overrides import TorchFunctionMode

from panomask.event_storage import EventStorage
from panomask.modeling import GeneralizedRCNN, ProposalNetwork, build_model
from panomask.solver import build_optimizer
from panomask.structures import Boxes, Instances

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
AGNOSTIC = "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True"
GROUP_NORM = "MODEL.RESNETS.NORM GN MODEL.FPN.NORM GN MODEL.ROI_MASK_HEAD.NORM GN MODEL.ROI_BOX_HEAD.NORM GN"
WIDER = """MODEL.RESNETS.STEM_OUT_CHANNELS 32  MODEL.RESNETS.RES2_OUT_CHANNELS 32  MODEL.FPN.OUT_CHANNELS 32
    MODEL.ROI_MASK_HEAD.CONV_DIM 32"""
ARCHITECTURES = {
    "frozen_bn": "",
    "bn": "MODEL.RESNETS.NORM BN MODEL.FPN.NORM BN",
    "gn": f"{GROUP_NORM} {WIDER} MODEL.ROI_BOX_HEAD.NUM_CONV 1 MODEL.ROI_BOX_HEAD.CONV_DIM 32",
    "bottleneck": """MODEL.RESNETS.DEPTH 50  MODEL.RESNETS.WIDTH_PER_GROUP 8
        MODEL.RESNETS.STRIDE_IN_1X1 False""",
    "agnostic_giou": f"""{AGNOSTIC}  MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE giou
        MODEL.RPN.BBOX_REG_LOSS_TYPE giou""",
    "frozen_at_2": "MODEL.BACKBONE.FREEZE_AT 2  MODEL.FPN.FUSE_TYPE avg  MODEL.RPN.CONV_DIMS [-1,8]",
    "no_masks": "MODEL.MASK_ON False",
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
        expected |= {"loss_cls", "loss_box_reg"} | ({"loss_mask"} if model.roi_heads.mask_on else set())
    assert set(losses) == expected
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
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


def _named_shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


ZOO = {
    "r50": "",
    "cls_agnostic": AGNOSTIC,
    "x101": "MODEL.RESNETS.DEPTH 101  MODEL.RESNETS.NUM_GROUPS 32  MODEL.RESNETS.WIDTH_PER_GROUP 8",
    "gn": f"""{GROUP_NORM}  MODEL.ROI_BOX_HEAD.NUM_CONV 4  MODEL.ROI_BOX_HEAD.NUM_FC 1
        MODEL.BACKBONE.FREEZE_AT 0""",
}


@pytest.mark.parametrize("name", list(ZOO))
def test_golden_state_dicts(golden, zoo_cfg, name):
    """Keys in Detectron2's order, shapes, and counts of parameters."""
    recorded = golden("state_dicts")[name]
    with torch.device("meta"):
        model = GeneralizedRCNN(zoo_cfg(MASK_RCNN, *ZOO[name].split()))
    assert list(_named_shapes(model).items()) == list(recorded["state_dict"].items())
    assert sum(p.numel() for p in model.parameters()) == recorded["parameters"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recorded["trainable"]


class _NoRandomWeights(TorchFunctionMode):
    """Leave new tensors as they are: drawing a ResNet-50's weights takes longer than running it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_"}:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def build_filled(golden_recipe):
    """build_filled(cfg, seed): a model with the golden weights, which are drawn once a seed."""
    weights = {}

    def build(cfg, seed):
        with _NoRandomWeights():
            model = build_model(cfg)
        if seed not in weights:
            filled = golden_recipe.fill(model, seed).state_dict()
            weights[seed] = {name: value.clone() for name, value in filled.items()}
        model.load_state_dict(weights[seed])
        return model

    return build


@torch.no_grad()
@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign", "ROIPool"])
def test_golden_inference(golden, golden_recipe, build_filled, zoo_cfg, pooler_type):
    recorded = golden("mask_rcnn_inference")[pooler_type]
    seed = recorded["seed"]
    model = build_filled(zoo_cfg(MASK_RCNN, *recorded["opts"]), seed).eval()
    batch = []
    for idx, (height, width) in enumerate([(192, 256), (160, 224)]):
        image = torch.from_numpy(golden_recipe.image(height, width, 10 * seed + idx)).permute(2, 0, 1)
        batch.append({"image": image, "height": height * 5 // 4, "width": width * 5 // 4})
    images = model.preprocess_image(batch)
    assert list(images.tensor.shape) == recorded["padded"]
    if "features" in recorded:
        _check_features(model.backbone(images.tensor), recorded["features"])
    for output, expected in zip(model(batch), recorded["outputs"], strict=True):
        _check_detections(output["instances"], expected["instances"])


def _check_features(features: dict[str, torch.Tensor], recorded: dict) -> None:
    assert list(features) == list(recorded)
    for name, expected in recorded.items():
        feature = features[name].double()
        assert list(feature.shape) == expected["shape"]
        tolerance = 1e-4 * expected["std"]
        assert abs(feature.mean().item() - expected["mean"]) < tolerance
        assert abs(feature.std().item() - expected["std"]) < tolerance
        assert abs(feature.abs().max().item() - expected["absmax"]) < 1e-4 * expected["absmax"]
        np.testing.assert_allclose(feature.flatten()[:8], expected["head"], atol=tolerance)


def _check_detections(actual: Instances, expected: dict) -> None:
    """Detections of one image, each matched with the recorded one of its class whose box is nearest."""
    assert list(actual.image_size) == expected["image_size"]
    assert len(actual) == expected["n"]
    boxes, classes = torch.tensor(expected["boxes"]), torch.tensor(expected["classes"])
    distances = (boxes[:, None] - actual.pred_boxes.tensor).abs().amax(dim=2)
    distances[classes[:, None] != actual.pred_classes] = float("inf")
    error, order = distances.min(dim=1)
    assert error.max() < 0.01
    assert len(order.unique()) == len(order)
    matched = actual[order]
    assert (matched.scores - torch.tensor(expected["scores"])).abs().max() < 1e-4
    for mask, counts in zip(matched.pred_masks, expected.get("mask_rle", []), strict=False):
        truth = coco_mask.decode({"size": list(mask.shape), "counts": counts.encode()}).astype(bool)
        assert (truth != mask.numpy()).sum() <= 0.005 * truth.sum()
    areas = matched.pred_masks.flatten(1).sum(dim=1).numpy()
    np.testing.assert_allclose(areas, expected["mask_area"], rtol=0.005, atol=1)


def test_golden_training(golden, build_filled, zoo_cfg, make_input):
    """Three SGD steps in which every anchor and proposal takes part."""
    recorded = golden("mask_rcnn_training")
    cfg = zoo_cfg(MASK_RCNN, *recorded["opts"], "SOLVER.BASE_LR", recorded["base_lr"])
    model = build_filled(cfg, recorded["seed"])
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [name for parameter, name in names.items() if not parameter.requires_grad] == recorded["frozen"]
    optimizer = build_optimizer(cfg, model)
    groups = {
        names[parameter]: [group["lr"], group["weight_decay"], group["momentum"]]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert groups == recorded["param_groups"]

    for step, expected in enumerate(recorded["steps"]):
        seed = 10 * (recorded["seed"] + step)
        sizes = [(192, 256), (160, 224)]
        batch = [make_input(*size, 5, recorded["num_classes"], seed + idx) for idx, size in enumerate(sizes)]
        losses = model(batch)
        actual = {name: loss.item() for name, loss in losses.items()}
        assert actual == pytest.approx(expected["losses"], rel=1e-4)
        if step == len(recorded["steps"]) - 1:
            break
        optimizer.zero_grad()
        sum(losses.values()).backward()
        if "grad_norms" in expected:
            norms = {name: p.grad.double().norm().item() for p, name in names.items() if p.grad is not None}
            assert norms == pytest.approx(expected["grad_norms"], rel=1e-3)
        optimizer.step()
