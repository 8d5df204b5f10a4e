"""One-stage detectors as a whole: builds, gradients, images out of the ordinary, RoI heads on them."""

import numpy as np
import pytest
import torch

from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.layers import ShapeSpec
from panomask.modeling import FCOS as FCOSModel
from panomask.modeling import Backbone, DenseDetector, build_model
from panomask.structures import Boxes, Instances, Keypoints, PolygonMasks

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FCOS = "COCO-Detection/fcos_R_50_FPN_1x.yaml"
TINY = """MODEL.RESNETS.DEPTH 18  MODEL.RESNETS.STEM_OUT_CHANNELS 16  MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.BACKBONE.FREEZE_AT 0  MODEL.PIXEL_STD [50.0,50.0,50.0]  MODEL.FPN.OUT_CHANNELS 64
    MODEL.RETINANET.NUM_CLASSES 3  MODEL.FCOS.NUM_CLASSES 3  MODEL.ROI_HEADS.NUM_CLASSES 3
    MODEL.ROI_HEADS.IN_FEATURES ["p3","p4","p5"]  MODEL.ROI_MASK_HEAD.CONV_DIM 16"""
MASKS = "MODEL.MASK_ON True  MODEL.ROI_HEADS.NAME GivenBoxROIHeads"
TWO_STAGES = """MODEL.MASK_ON True  MODEL.ROI_HEADS.NAME StandardROIHeads
    MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead  MODEL.ROI_BOX_HEAD.NUM_FC 1  MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 7"""
KEYPOINTS = f"{MASKS} MODEL.KEYPOINT_ON True  MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS [16]"
ARCHITECTURES = {
    "retinanet": (RETINANET, ""),
    "retinanet_bn_giou": (
        RETINANET,
        "MODEL.RETINANET.NORM BN MODEL.FPN.NORM BN MODEL.RETINANET.BBOX_REG_LOSS_TYPE giou",
    ),
    "retinanet_masks": (RETINANET, MASKS),
    "retinanet_two_stages": (RETINANET, TWO_STAGES),
    "fcos": (FCOS, ""),
    "fcos_of_the_first_paper": (
        FCOS,
        """MODEL.FCOS.CENTERNESS_ON_REG False  MODEL.FCOS.CENTER_SAMPLE False  MODEL.FCOS.LOC_LOSS_TYPE iou
        MODEL.FCOS.NORM_REG_TARGETS False  MODEL.FCOS.USE_SCALE True""",
    ),
    "retinanet_keypoints": (RETINANET, KEYPOINTS.replace("MODEL.MASK_ON True", "MODEL.MASK_ON False")),
    "fcos_masks_keypoints": (FCOS, KEYPOINTS),
    "fcos_two_stages": (FCOS, TWO_STAGES),
}
"""What is tried -> config and overrides."""
LOSSES = {
    "retinanet": {"loss_cls", "loss_box_reg"},
    "fcos": {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"},
    "masks": {"loss_mask"},
    "keypoints": {"loss_keypoint"},
}


@pytest.fixture(params=list(ARCHITECTURES))
def name(request):
    return request.param


@pytest.fixture
def build(zoo_cfg):
    def build_tiny(name: str, *opts):
        torch.manual_seed(0)
        config, overrides = ARCHITECTURES[name]
        return build_model(zoo_cfg(config, *TINY.split(), *overrides.split(), *opts))

    return build_tiny


def image_with(size: tuple[int, int], boxes: list[list[float]]) -> dict:
    """An input whose objects fill their boxes and have a keypoint in the middle; classes take turns."""
    height, width = size
    rng = np.random.default_rng(0)
    corners = [np.array([x0, y0, x1, y0, x1, y1, x0, y1]) for x0, y0, x1, y1 in boxes]
    centers = [[[(x0 + x1) / 2, (y0 + y1) / 2, 2.0]] * 17 for x0, y0, x1, y1 in boxes]
    instances = Instances(
        size,
        gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_classes=torch.arange(len(boxes)) % 3,
        gt_masks=PolygonMasks([[polygon] for polygon in corners]),
        gt_keypoints=Keypoints(torch.tensor(centers).reshape(-1, 17, 3)),
    )
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return {"image": image, "instances": instances}


def many_boxes(count: int) -> list[list[float]]:
    corners = np.random.default_rng(1).uniform(0, 100, (count, 2))
    return [[x, y, x + 4 + i % 20, y + 4 + i % 17] for i, (x, y) in enumerate(corners.tolist())]


ORDINARY = [
    image_with((96, 128), [[10, 10, 60, 70], [70, 20, 120, 60]]),
    image_with((64, 64), [[4, 4, 50, 60]]),
]
BATCHES = {
    "no objects": [image_with((96, 128), []), image_with((64, 64), [])],
    "no objects in one image": [image_with((64, 96), []), image_with((96, 64), [[10, 10, 50, 80]])],
    "objects smaller than a stride": [
        image_with((96, 128), [[33, 33, 36, 35], [81, 60, 81.5, 60.5], [127, 95, 128, 96]]),
        image_with((64, 64), [[30, 30, 30.01, 30.01]]),
    ],
    "extreme aspect ratio": [image_with((16, 1024), [[3, 2, 900, 12], [1000, 1, 1020, 15]])],
    "300 objects": [image_with((128, 128), many_boxes(300)), ORDINARY[1]],
}


@pytest.mark.parametrize("batch", list(BATCHES))
def test_losses_are_finite_and_reach_every_parameter(build, name, batch):
    model = build(name)
    losses = model(BATCHES[batch])
    assert all(loss.dim() == 0 and loss.isfinite() and loss >= 0 for loss in losses.values())
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    if batch == "no objects":
        assert all(loss == 0 for loss_name, loss in losses.items() if "cls" not in loss_name)


@pytest.mark.parametrize("config", ["retinanet", "fcos", "mask_fcos"])
def test_quick_starts_have_no_weight_without_a_gradient(zoo_cfg, config):
    """Several processes would stop at such a weight."""
    model = build_model(zoo_cfg(f"quickstart/{config}_shapes.yaml"))
    sum(model(ORDINARY).values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_names_of_losses(build, name):
    expected = set().union(*(names for part, names in LOSSES.items() if part in name))
    if "two_stages" in name:
        expected |= {"loss_mask"}
        expected |= (
            {"loss_cls_roi", "loss_box_reg_roi"} if "retinanet" in name else {"loss_cls", "loss_box_reg"}
        )
    losses = build(name)(ORDINARY)
    assert set(losses) == expected
    assert all(loss > 0 for loss in losses.values())


def test_outputs(build, name):
    model = build(name, "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0, "MODEL.FCOS.INFERENCE_TH_TEST", 0.0).eval()
    with torch.no_grad():
        outputs = model([{**x, "height": 50, "width": 70} for x in ORDINARY])
    fields = {"pred_boxes", "scores", "pred_classes"}
    fields |= {"pred_masks"} if "masks" in name or "two_stages" in name else set()
    fields |= {"pred_keypoints", "pred_keypoint_heatmaps"} if "keypoints" in name else set()
    for output in outputs:
        found = output["instances"]
        assert found.image_size == (50, 70)
        assert set(found.get_fields()) == fields
        assert len(found) > 0
        assert found.pred_boxes.nonempty().all()
        assert (found.pred_boxes.tensor <= torch.tensor([70.0, 50, 70, 50])).all()
        assert (found.scores.diff() <= 0).all()
        assert found.pred_classes.max() < 3
        if found.has("pred_masks"):
            assert found.pred_masks.shape == (len(found), 50, 70)


def test_nothing_found(build, name):
    thresholds = [f"MODEL.{key}" for key in ("RETINANET.SCORE_THRESH_TEST", "FCOS.INFERENCE_TH_TEST")]
    model = build(name, *(x for key in thresholds for x in (key, 1.0))).eval()
    with torch.no_grad():
        outputs = model([{"image": x["image"]} for x in ORDINARY])
    assert [len(output["instances"]) for output in outputs] == [0, 0]


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_images_of_a_batch_do_not_depend_on_each_other(build, name):
    model = build(name, "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0, "MODEL.FCOS.INFERENCE_TH_TEST", 0.0).eval()
    small, large = ({"image": x["image"]} for x in reversed(ORDINARY))
    with torch.no_grad():
        alone, together = model([large])[0]["instances"], model([small, large])[1]["instances"]
    torch.testing.assert_close(alone.scores, together.scores, rtol=1e-4, atol=1e-6)
    same = (alone.pred_boxes.tensor - together.pred_boxes.tensor).abs().amax(dim=1) < 0.01
    assert same.float().mean() > 0.9  # scores that are as good as equal may have changed places


def test_an_image_without_objects_is_background_whatever_low_overlaps_are(build):
    model = build("retinanet", "MODEL.RETINANET.IOU_LABELS", [-1, 0, 1])
    anchors = model.anchor_generator([torch.zeros(1, 1, 4, 4)] * 5)
    labels, _ = model.label_anchors(anchors, [x["instances"] for x in BATCHES["no objects in one image"]])
    assert labels[0].unique().tolist() == [3]
    assert -1 in labels[1]


def test_training_without_truth_says_so(build):
    with pytest.raises(InputError, match="FCOS learns from 'instances', which an input does not have"):
        build("fcos")([{"image": torch.zeros(3, 32, 32, dtype=torch.uint8)}])


def test_masks_are_those_of_the_boxes_in_the_image(build):
    """A box that sticks out is clipped before its mask is predicted, not after."""
    model = build("fcos_masks_keypoints").eval()
    found = Instances((64, 64), pred_boxes=Boxes([[-20.0, 10, 40, 80], [70, 70, 90, 90]]))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.8]), torch.tensor([1, 2])
    pooled = []
    model.forward_inference = lambda images, features, predictions: [found]
    model.roi_heads.mask_pooler.register_forward_hook(lambda module, args, output: pooled.append(args[1][0]))
    with torch.no_grad():
        output = model([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])[0]["instances"]
    assert output.pred_boxes.tensor.tolist() == [[0, 10, 40, 64]]
    assert pooled[0].tensor.tolist() == [[0, 10, 40, 64]]
    assert output.pred_classes.tolist() == [1]
    assert output.scores.tolist() == pytest.approx([0.9])
    assert found.pred_boxes.tensor[0].tolist() == [-20, 10, 40, 80]  # left as it was


def test_mask_head_learns_in_the_boxes_of_the_step_and_in_true_ones(build):
    model = build("fcos_masks_keypoints")
    batch = [ORDINARY[0]]
    truth = batch[0]["instances"].gt_boxes.tensor
    off_by_2 = Instances((96, 128), pred_boxes=Boxes(truth[:1] + 2), scores=torch.tensor([0.5]))
    off_by_2.pred_classes = torch.tensor([0])
    pooled = []
    model.forward_inference = lambda images, features, predictions: [off_by_2]
    model.roi_heads.mask_pooler.register_forward_hook(lambda module, args, output: pooled.append(args[1][0]))
    model(batch)
    found = sorted(pooled[0].tensor.tolist())
    assert found == sorted([*truth.tolist(), (truth[0] + 2).tolist()])


def test_normalizer_is_a_moving_average_of_positives(build):
    model = build("retinanet")
    assert model.loss_normalizer == 100
    is_positive = torch.zeros(2, 10, dtype=torch.bool)
    is_positive[0, :4] = True
    with EventStorage() as storage:
        assert model.update_normalizer(is_positive).item() == pytest.approx(0.9 * 100 + 0.1 * 4)
        assert storage.latest()["num_pos_anchors"][0] == 2
    nothing = model.update_normalizer(torch.zeros(2, 10, dtype=torch.bool))
    assert nothing.item() == pytest.approx(0.9 * 90.4 + 0.1)
    assert "loss_normalizer" not in model.state_dict()
    assert build("fcos").loss_normalizer == 300


def test_losses_written_for_detectron2(build):
    """What subclasses that override `losses` and `forward_training` there call."""
    model = build("retinanet")
    normalizer = model._ema_update("loss_normalizer", max(4, 1), 100)
    assert normalizer.item() == pytest.approx(90.4)
    assert model.loss_normalizer is normalizer
    assert model._ema_update("other", 4.0, 100) == model.other == pytest.approx(90.4)
    predictions = model.head([torch.zeros(1, 64, 4 - i % 2, 4) for i in range(5)])
    logits, deltas = model._transpose_dense_predictions(predictions, [3, 4])
    assert (logits[0].shape, deltas[1].shape) == ((1, 4 * 4 * 9, 3), (1, 3 * 4 * 9, 4))


def test_two_forward_passes_before_the_backward_pass(build):
    """As when gradients are accumulated: the second pass leaves the graph of the first one alone."""
    model = build("retinanet")
    losses = [sum(model(BATCHES[name]).values()) for name in ("no objects", "300 objects")]
    sum(losses).backward()


def test_half_precision_trains(build, name):
    model = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(ORDINARY)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()


def test_pictures_of_training(build):
    model = build("retinanet")
    model.vis_period, model.input_format = 2, "BGR"
    for iteration, count in ((1, 0), (2, 1)):
        with EventStorage(iteration) as storage:
            model(ORDINARY)
            assert len(storage.vis_data) == count
            if count:
                caption, image, _ = storage.vis_data[0]
                assert "Highest Scoring Results" in caption
                assert torch.equal(image[:, 0, 0], ORDINARY[0]["image"][[2, 1, 0], 0, 0])  # BGR, drawn as RGB


def test_levels_by_stride_where_no_names_are_given():
    class Pyramid(Backbone):
        def forward(self, x):
            return {}

        def output_shape(self):
            return {"coarse": ShapeSpec(channels=1, stride=16), "fine": ShapeSpec(channels=1, stride=8)}

    detector = DenseDetector(Pyramid(), torch.nn.Identity(), pixel_mean=[0.0], pixel_std=[1.0])
    assert detector.head_in_features == ["fine", "coarse"]


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_an_unknown_feature_is_named(build, name):
    key = f"MODEL.{name.upper()}.IN_FEATURES"
    levels = ["p3", "p4", "p5", "p9", "p7"]
    with pytest.raises(InputError, match=rf"{key}: \['p3', .*'p7'\]: allowed are one or more of \['p3', "):
        build(name, key, levels)


@pytest.mark.parametrize(("name", "key"), [("retinanet", "RETINANET.BBOX_REG"), ("fcos", "FCOS.LOC")])
def test_an_unknown_box_loss_is_named(zoo_cfg, build, name, key):
    model, cfg = build(name), zoo_cfg(ARCHITECTURES[name][0])
    with pytest.raises(InputError, match=rf"MODEL\.{key}_LOSS_TYPE: 'l2': allowed are"):
        type(model)(cfg, backbone=model.backbone, box_reg_loss_type="l2")


def test_roi_heads_for_other_classes_are_refused(build):
    with pytest.raises(
        InputError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES is 5, .* of the 3 classes of a FCOS"
    ):
        build("fcos_masks_keypoints", "MODEL.ROI_HEADS.NUM_CLASSES", 5)


def test_proposals_of_two_stages_are_as_many_as_of_an_rpn(build):
    opts = ("MODEL.RPN.POST_NMS_TOPK_TEST", 77, "TEST.DETECTIONS_PER_IMAGE", 33)
    assert build("fcos_two_stages", *opts).max_detections_per_image == 77
    assert build("fcos_masks_keypoints", *opts).max_detections_per_image == 33
    assert build("fcos", *opts).max_detections_per_image == 33


def test_a_checkpoint_without_masks_is_where_one_with_masks_starts_from(build):
    without, with_masks = build("retinanet").state_dict(), build("retinanet_masks")
    keys = with_masks.load_state_dict(without, strict=False)
    assert keys.unexpected_keys == []
    assert {key.split(".")[1] for key in keys.missing_keys} == {"mask_head"}


@pytest.mark.parametrize("name", ["fcos_masks_keypoints", "fcos_two_stages"])
def test_boxes_of_the_step_are_given_to_the_second_stage(build, name):
    """As proposals are: no gradient flows back into the detector through them."""
    model = build(name, "MODEL.FCOS.INFERENCE_TH_TEST", 0.0)
    given = []
    model.roi_heads.register_forward_hook(lambda module, args, output: given.extend(args[2]))
    model(ORDINARY)
    with torch.no_grad():
        model.eval()(ORDINARY)
    for proposals in given:
        assert not proposals.proposal_boxes.tensor.requires_grad
        assert not proposals.objectness_logits.isnan().any()
    trained, tested = given[0], given[2]
    assert set(trained.get_fields()) == {"proposal_boxes", "objectness_logits"}
    torch.testing.assert_close(tested.objectness_logits.sigmoid(), tested.scores)


def test_explicit_arguments_have_detectron2s_defaults(zoo_cfg):
    """FCOS as Detectron2's Python config builds it, and the same from YAML."""
    cfg = zoo_cfg("COCO-Detection/fcos_R_50_FPN_1x.yaml", "MODEL.DEVICE", "meta")
    with torch.device("meta"):
        from_cfg = build_model(cfg)
        backbone, head = from_cfg.backbone, from_cfg.head
        built = FCOSModel(
            backbone=backbone, head=head, num_classes=80, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
        )
    assert built.head_in_features == from_cfg.head_in_features
    numbers = ("focal_loss_alpha", "focal_loss_gamma", "test_score_thresh", "test_topk_candidates")
    numbers += ("test_nms_thresh", "max_detections_per_image", "center_sampling_radius", "box_reg_loss_type")
    numbers += ("size_bounds", "num_classes")
    assert {x: getattr(built, x) for x in numbers} == {x: getattr(from_cfg, x) for x in numbers}
    assert vars(built.box2box_transform) == vars(from_cfg.box2box_transform)
    with pytest.raises(InputError, match=r"SIZES_OF_INTEREST: \[64\]: the 5 levels .* have 4 bounds"):
        FCOSModel(cfg, size_bounds=[64], backbone=backbone)


@pytest.mark.parametrize("loss", ["iou", "giou"])
def test_box_loss_of_fcos(build, loss):
    """Predicted boxes of half the object's sides: IoU 1/4, and a hull that is the object."""
    model = build("fcos", "MODEL.FCOS.LOC_LOSS_TYPE", loss)
    cells, truth = Boxes([[28.0, 28, 36, 36]]), torch.tensor([[16.0, 16, 48, 48]])
    predictions = {"pred_logits": torch.full((1, 1, 3), -9.0), "pred_anchor_deltas": torch.ones(1, 1, 4)}
    losses = model.losses(
        [cells],
        gt_labels=[torch.tensor([1])],
        gt_boxes=[truth],
        pred_centerness=[torch.zeros(1, 1, 1)],
        **{name: [value] for name, value in predictions.items()},
    )
    normalizer = 0.9 * 300 + 0.1
    area, whole = 16 * 16, 32 * 32
    expected = 1 - area / whole if loss == "giou" else -np.log((area + 1) / (whole + 1))
    assert losses["loss_fcos_loc"].item() * normalizer == pytest.approx(expected, rel=1e-5)
    assert losses["loss_fcos_ctr"].item() * normalizer == pytest.approx(np.log(2), rel=1e-5)
