"""Files of other programs, loaded whole: Caffe2, Detectron1, Detectron2's zoo, safetensors."""

import logging
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

from panomask.checkpoint import Checkpointer
from panomask.checkpoint.files import write_weights
from panomask.checkpoint.foreign import fit_names_of_networks, translate
from panomask.config import get_cfg
from panomask.errors import InputError
from panomask.modeling import build_model

MODEL = """
MODEL.META_ARCHITECTURE GeneralizedRCNN MODEL.DEVICE cpu MODEL.MASK_ON True
MODEL.BACKBONE.NAME build_resnet_fpn_backbone MODEL.RESNETS.STEM_OUT_CHANNELS 8
MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.RESNETS.WIDTH_PER_GROUP 4
MODEL.RESNETS.OUT_FEATURES ["res2","res3","res4","res5"] MODEL.FPN.IN_FEATURES ["res2","res3","res4","res5"]
MODEL.FPN.OUT_CHANNELS 8 MODEL.ANCHOR_GENERATOR.SIZES [[32],[64],[128],[256],[512]]
MODEL.RPN.IN_FEATURES ["p2","p3","p4","p5","p6"] MODEL.ROI_HEADS.IN_FEATURES ["p2","p3","p4","p5"]
MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead
MODEL.ROI_BOX_HEAD.NUM_FC 2 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 7
MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead MODEL.ROI_MASK_HEAD.NUM_CONV 4
MODEL.ROI_MASK_HEAD.CONV_DIM 8
"""
BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
DETECTOR = {
    "proposal_generator.rpn_head.conv": "conv_rpn_fpn2",
    "proposal_generator.rpn_head.objectness_logits": "rpn_cls_logits_fpn2",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_bbox_pred_fpn2",
    "backbone.fpn_lateral5": "fpn_inner_res5_2_sum",
    "backbone.fpn_lateral4": "fpn_inner_res4_5_sum_lateral",
    "backbone.fpn_lateral3": "fpn_inner_res3_3_sum_lateral",
    "backbone.fpn_lateral2": "fpn_inner_res2_2_sum_lateral",
    "backbone.fpn_output5": "fpn_res5_2_sum",
    "backbone.fpn_output4": "fpn_res4_5_sum",
    "backbone.fpn_output3": "fpn_res3_3_sum",
    "backbone.fpn_output2": "fpn_res2_2_sum",
    "roi_heads.box_head.fc1": "fc6",
    "roi_heads.box_head.fc2": "fc7",
    "roi_heads.box_predictor.cls_score": "cls_score",
    "roi_heads.box_predictor.bbox_pred": "bbox_pred",
    "roi_heads.mask_head.mask_fcn1": "_[mask]_fcn1",
    "roi_heads.mask_head.mask_fcn2": "_[mask]_fcn2",
    "roi_heads.mask_head.mask_fcn3": "_[mask]_fcn3",
    "roi_heads.mask_head.mask_fcn4": "_[mask]_fcn4",
    "roi_heads.mask_head.deconv": "conv5_mask",
    "roi_heads.mask_head.predictor": "mask_fcn_logits",
}
ENDINGS = {"weight": "w", "bias": "b"}
NORM_ENDINGS = {"weight": "s", "bias": "b"}


def model(num_classes: int = 3, depth: int = 50, **more: str) -> nn.Module:
    cfg = get_cfg()
    keys = {"MODEL.ROI_HEADS.NUM_CLASSES": str(num_classes), "MODEL.RESNETS.DEPTH": str(depth), **more}
    cfg.merge_from_list(MODEL.split() + [text for pair in keys.items() for text in pair])
    return build_model(cfg)


def blob_name(key: str) -> str:
    """The name in Detectron1 of a weight of ours."""
    module, _, ending = key.rpartition(".")
    if module in DETECTOR:
        return f"{DETECTOR[module]}_{ENDINGS[ending]}"
    parts = module.removeprefix("backbone.bottom_up.").split(".")
    is_norm = parts[-1] == "norm"
    tail = f"bn_{NORM_ENDINGS[ending]}" if is_norm else ENDINGS[ending]
    if parts[0] == "stem":
        return f"res_conv1_{tail}" if is_norm else f"conv1_{tail}"
    stage, block, conv = parts[:3]
    return f"{stage}_{block}_{BRANCHES[conv]}_{tail}"


def detectron1_file(path, source: nn.Module, *, backbone_only: bool = False) -> str:
    """What Detectron1 (the whole) or its ImageNet training (the backbone) would have written."""
    blobs = {"fc1000_w": np.zeros((4, 4), np.float32)} if backbone_only else {"lr": np.float32(0.1)}
    for key, value in source.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            continue  # folded into weight and bias there
        if backbone_only and "bottom_up" not in key:
            continue
        array = value.numpy()
        background = np.zeros_like(array[:1])
        if "cls_score" in key:
            array = np.concatenate([array[-1:], array[:-1]])
        elif "bbox_pred" in key:
            array = np.concatenate([background] * 4 + [array])
        elif "mask_head.predictor" in key:
            array = np.concatenate([background, array])
        blobs[blob_name(key)] = array
        blobs[f"{blob_name(key)}_momentum"] = np.zeros_like(array)
    path.write_bytes(pickle.dumps(blobs if backbone_only else {"blobs": blobs, "cfg": "MODEL: {}"}, 2))
    return str(path)


def same(a: nn.Module, b: nn.Module, part: str = "") -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x, y, atol=2e-5, rtol=0) for (key, x), y in pairs if part in key)


def test_a_detector_of_detectron1_fills_every_weight(tmp_path, caplog):
    source, target = model(), model()
    path = detectron1_file(tmp_path / "model_final.pkl", source)
    with caplog.at_level(logging.INFO):
        Checkpointer(target).load(path, match="parameters")
    assert same(source, target)
    norm = target.backbone.bottom_up.res2[0].conv1.norm
    assert norm.running_var.unique().tolist() == [1]  # as Detectron2 fills it
    assert "names of Caffe2" in caplog.messages[0]
    assert "unknown to the model (not used)" in caplog.messages[1]
    assert "lr" in caplog.messages[1]


def test_an_imagenet_backbone_finds_its_place(tmp_path, caplog):
    source, target = model(), model(num_classes=5)
    with caplog.at_level(logging.INFO):
        Checkpointer(target).load(detectron1_file(tmp_path / "R-50.pkl", source, backbone_only=True))
    assert same(source, target, "bottom_up")
    assert "names were completed by backbone.bottom_up." in caplog.messages[0]
    table = caplog.messages[1]
    assert "fc1000.weight" in table
    assert re.search(r"missing in the file \(kept as initialised\) +\d+ +backbone.fpn_lateral2", table)
    assert "running_mean" not in table
    with pytest.raises(
        InputError, match=r"R-50.pkl: does not fit the model: \d+ weights of the model are not"
    ):
        Checkpointer(target).load(str(tmp_path / "R-50.pkl"), match="parameters")


def test_a_c4_model_has_its_last_stage_in_the_head(tmp_path, caplog):
    backbone = model()
    c4 = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": '["res4"]',
        "MODEL.ANCHOR_GENERATOR.SIZES": "[[32,64,128,256,512]]",
        "MODEL.RPN.IN_FEATURES": '["res4"]',
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": '["res4"]',
    }
    target = model(**c4)
    with caplog.at_level(logging.INFO):
        Checkpointer(target).load(detectron1_file(tmp_path / "R-50.pkl", backbone, backbone_only=True))
    bottom_up = backbone.backbone.bottom_up
    assert torch.equal(target.backbone.res4[5].conv3.weight, bottom_up.res4[5].conv3.weight)
    assert torch.equal(target.roi_heads.res5[2].conv3.weight, bottom_up.res5[2].conv3.weight)
    assert "names were completed by backbone., roi_heads." in caplog.messages[0]


def zoo_file(path, source: nn.Module) -> str:
    """What Detectron2's zoo publishes: arrays, and some that are no weights."""
    arrays = {key: value.numpy() for key, value in source.state_dict().items()}
    arrays["pixel_mean"] = arrays["pixel_std"] = np.ones((3, 1, 1), np.float32)
    for front in ("proposal_generator.", ""):  # of an R-CNN, of a RetinaNet
        arrays[f"{front}anchor_generator.cell_anchors.0"] = np.ones((3, 4), np.float32)
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    path.write_bytes(pickle.dumps(content, 4))
    return str(path)


def test_a_file_of_the_zoo_fits_without_remarks(tmp_path, caplog):
    source, target = model(), model()
    with caplog.at_level(logging.INFO):
        Checkpointer(target).load(zoo_file(tmp_path / "model_final.pkl", source), match="parameters")
    assert same(source, target)
    assert caplog.messages[1].startswith("The checkpoint fits the model:\nweights")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.mark.parametrize(("trained", "match"), [("source", "exact"), ("target", "overlap")])
def test_what_norms_have_counted_is_no_remark(tmp_path, caplog, trained, match):
    """The counts of batches, which frozen norms do not keep, are neither unknown nor missing."""
    norms = {"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": "0"}
    source, target = (model(**norms if name == trained else {}) for name in ("source", "target"))
    counts = [sum(key.endswith("num_batches_tracked") for key in m.state_dict()) for m in (source, target)]
    assert sorted(counts) == [0, 53]
    with caplog.at_level(logging.INFO):
        Checkpointer(target).load(zoo_file(tmp_path / "model_final.pkl", source), match=match)
    assert caplog.messages[1].startswith("The checkpoint fits the model:\nweights")


def test_another_number_of_classes_is_said_and_starts_as_initialised(tmp_path, caplog):
    source, target = model(), model(num_classes=5)
    scores = target.roi_heads.box_predictor.cls_score.weight.detach().clone()
    with caplog.at_level(logging.WARNING):
        Checkpointer(target).load(zoo_file(tmp_path / "model_final.pkl", source))
    assert same(source, target, "fpn_")
    assert torch.equal(target.roi_heads.box_predictor.cls_score.weight, scores)
    words = "3 classes in the checkpoint, 5 in the model, so that the layers of another shape start as"
    assert words in caplog.messages[0]
    assert (
        "roi_heads.mask_head.predictor.weight: (3, 8, 1, 1) in the file, (5, 8, 1, 1) here"
        in caplog.messages[0]
    )


def test_another_number_of_keypoints_is_said_too(tmp_path, caplog):
    keys = {
        "MODEL.MASK_ON": "False",
        "MODEL.KEYPOINT_ON": "True",
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": "[8]",
    }
    source = model(1, **keys)
    target = model(2, **keys, **{"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS": "5"})
    path = zoo_file(tmp_path / "model_final.pkl", source)
    words = "1 classes in the checkpoint, 2 in the model; 17 keypoints in the checkpoint, 5 in the model"
    with caplog.at_level(logging.WARNING):
        Checkpointer(target).load(path)
    assert f"differ: {words}, so that the layers of another shape start as initialised" in caplog.messages[0]
    with pytest.raises(InputError, match=words):
        Checkpointer(target).load(path, match="parameters")


@pytest.mark.parametrize("depths", [(101, 50), (50, 101)])
@pytest.mark.parametrize("write", [zoo_file, detectron1_file])
def test_another_depth_is_another_model(tmp_path, depths, write):
    source, target = (model(depth=depth) for depth in depths)
    blocks = {50: 6, 101: 23}
    words = (
        rf"res4 has {blocks[depths[0]]} blocks in the file, {blocks[depths[1]]} in the model; use the config"
    )
    with pytest.raises(InputError, match=words):
        Checkpointer(target).load(write(tmp_path / "other.pkl", source))


def test_a_model_without_some_heads_takes_the_rest(tmp_path):
    source, target = model(), model(**{"MODEL.MASK_ON": "False"})
    Checkpointer(target).load(zoo_file(tmp_path / "model_final.pkl", source), match="parameters")
    assert same(source.backbone, target.backbone)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_names_are_completed_where_a_file_asks_for_it(tmp_path, name):
    target = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleDict({"c": nn.Linear(2, 2)})})
    state = {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2), "c.weight": torch.zeros(2, 2)}
    path = str(tmp_path / name)
    write_weights(path, {"model": state})
    Checkpointer(target).load(path)
    assert target["b"]["c"].weight.any()  # some names are known, so that the others must be whole
    Checkpointer(target).load(f"{path}?matching_heuristics=True")
    assert not target["b"]["c"].weight.any()
    nn.init.ones_(target["b"]["c"].weight)
    write_weights(path, {"model": state, "matching_heuristics": True})
    assert Checkpointer(target).load(path) == {}
    assert not target["b"]["c"].weight.any()


def test_a_front_of_all_names_is_dropped(tmp_path, caplog):
    """As a LightningModule whose attribute `model` is the model saves it."""
    source, target = nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"a": nn.Linear(2, 2)})
    state = {f"model.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    with caplog.at_level(logging.INFO):
        assert Checkpointer(target).load(str(tmp_path / "a.ckpt"), match="exact") == {"epoch": 3}
    assert same(source, target)
    assert "names lost the 'model.' in front" in caplog.messages[0]


def test_names_of_torchvision_in_a_backbone_stay(tmp_path):
    """A ResNet of timm, whose names are torchvision's, stands below the FPN; its file has no prefix."""
    resnet = nn.ModuleDict({"conv1": nn.Conv2d(1, 1, 1), "layer1": nn.ModuleList([nn.ModuleDict()])})
    resnet["layer1"][0]["conv1"] = nn.Conv2d(1, 1, 1)
    target = nn.ModuleDict({"net": resnet, "head": nn.Linear(2, 2)})
    state = {key: torch.full_like(value, 2) for key, value in resnet.state_dict().items()}
    write_weights(str(tmp_path / "a.pth"), {"model": state})
    Checkpointer(target).load(str(tmp_path / "a.pth"))
    assert all((value == 2).all() for value in resnet.state_dict().values())


def test_a_wish_that_is_no_wish(tmp_path):
    target = nn.ModuleDict({"a": nn.Linear(1, 1)})
    arrays = {key: value.numpy() for key, value in target.state_dict().items()}
    content = {"model": arrays, "matching_heuristics": np.ones(2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert Checkpointer(target).load(str(tmp_path / "a.pkl"), match="exact") == {}


def test_weights_for_two_places_are_one_line(tmp_path):
    target = nn.ModuleDict(
        {"a": nn.ModuleDict({"c": nn.Linear(2, 2)}), "b": nn.ModuleDict({"c": nn.Linear(2, 2)})}
    )
    write_weights(str(tmp_path / "a.pth"), {"model": {"c.weight": torch.zeros(2, 2)}})
    with pytest.raises(InputError, match=r"a\.pth: weight 'c\.weight' belongs to two weights of the model"):
        Checkpointer(target).load(str(tmp_path / "a.pth"))


def test_a_model_with_names_of_another_program_is_left_alone(tmp_path):
    """Somebody's own model may call its layers as torchvision does, and hold what others do not."""
    target = nn.ModuleDict(
        {"conv1": nn.Conv2d(1, 1, 1), "layer1": nn.Sequential(nn.ModuleDict({"conv1": nn.Conv2d(1, 1, 1)}))}
    )
    target.register_buffer("pixel_mean", torch.zeros(3))
    state = {key: torch.full_like(value, 2) for key, value in target.state_dict().items()}
    write_weights(str(tmp_path / "a.safetensors"), {"model": state})
    Checkpointer(target).load(str(tmp_path / "a.safetensors"), match="exact")
    assert all((value == 2).all() for value in target.state_dict().values())


TORCHVISION = {"backbone.body.conv1.weight": torch.ones(1), "rpn.head.cls_logits.weight": torch.ones(1)}
CLASSIFIER = "roi_heads.box_predictor.cls_score.weight"


@pytest.mark.parametrize(
    "state",
    [
        {**TORCHVISION, "roi_heads.box_predictor.bbox_pred.weight": torch.ones(8, 4)},
        {**TORCHVISION, CLASSIFIER: torch.ones(())},
        {
            **TORCHVISION,
            CLASSIFIER: torch.ones(5, 4),
            "roi_heads.box_predictor.bbox_pred.bias": torch.ones(7),
        },
        {
            **TORCHVISION,
            CLASSIFIER: torch.ones(91, 4),
            "roi_heads.box_predictor.bbox_pred.bias": torch.ones(8),
        },
        {"conv1_w": torch.ones(1), "cls_score_w": torch.ones(())},
    ],
)
def test_heads_that_do_not_go_together_are_one_line(tmp_path, state):
    target = nn.ModuleDict({"a": nn.Linear(1, 1)})
    write_weights(str(tmp_path / "a.pth"), {"model": state})
    with pytest.raises(
        InputError, match=r"a\.pth: has the names of .* do not have the same classes"
    ) as caught:
        Checkpointer(target).load(str(tmp_path / "a.pth"))
    assert "\n" not in str(caught.value)


def test_a_detector_of_torchvision_without_heads():
    weights, _ = translate(TORCHVISION)
    assert set(weights) == {
        "backbone.bottom_up.stem.conv1.weight",
        "proposal_generator.rpn_head.objectness_logits.weight",
    }


def test_each_of_several_networks_starts_from_the_file():
    """A backbone's weights go below both fronts; what neither has a place for keeps its name."""
    own = {f"{front}.backbone.conv.weight": torch.zeros(2, 2) for front in ("one", "two")}
    own |= {"one.head.weight": torch.zeros(3)}
    state = {"backbone.conv.weight": torch.ones(2, 2), "other.weight": torch.ones(1)}
    fitted, _ = fit_names_of_networks("f.pth", state, own, ("one.", "two."))
    assert fitted.keys() == {"one.backbone.conv.weight", "two.backbone.conv.weight", "other.weight"}
    # A checkpoint of the model itself is taken as it is, and so is that of a model of one network.
    whole = {key: torch.ones_like(value) for key, value in own.items()}
    assert fit_names_of_networks("f.pth", whole, own, ("one.", "two."))[0].keys() == own.keys()
    alone = {"backbone.conv.weight": torch.zeros(2, 2)}
    assert fit_names_of_networks("f.pth", state, alone, ())[0].keys() == state.keys()
