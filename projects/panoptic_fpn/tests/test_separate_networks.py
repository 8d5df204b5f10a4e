import json

import pytest
import torch

from panomask.errors import InputError
from panomask.modeling import build_model


@pytest.fixture
def model(tiny_cfg):
    torch.manual_seed(0)
    return build_model(tiny_cfg("SeparatePanopticNetworks", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0))


@pytest.fixture
def single_models(tiny_cfg, model):
    """A Mask R-CNN and a semantic FPN with the weights of the two networks."""
    cfg = tiny_cfg("PanopticFPN", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    models = []
    for architecture, network in (
        ("GeneralizedRCNN", model.detector),
        ("SemanticSegmentor", model.segmentor),
    ):
        cfg.MODEL.META_ARCHITECTURE = architecture
        single = build_model(cfg)
        single.load_state_dict(network.state_dict())
        models.append(single)
    return models


def test_losses_are_those_of_the_single_models(model, single_models, batch):
    torch.manual_seed(1)
    losses = model(batch)
    torch.manual_seed(1)
    expected = {name: loss for single in single_models for name, loss in single(batch).items()}
    assert len(expected) == 6
    assert {name: loss.item() for name, loss in losses.items()} == {
        name: loss.item() for name, loss in expected.items()
    }


def test_every_parameter_learns_from_one_task(model, batch):
    owners = [set(network.parameters()) for network in (model.detector, model.segmentor)]
    assert not owners[0] & owners[1]
    assert owners[0] | owners[1] == set(model.parameters())
    losses = model(batch)
    losses.pop("loss_sem_seg").backward()
    assert all(parameter.grad is None for parameter in model.detector.parameters())
    assert all(parameter.grad.any() for parameter in model.segmentor.parameters())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_output(model, single_models, batch):
    inputs = [{"image": x["image"], "height": 50, "width": 70} for x in batch]
    detector, segmentor = single_models
    found, detected, segmented = (x.eval()(inputs)[0] for x in (model, detector, segmentor))
    assert set(found) == {"instances", "sem_seg", "panoptic_seg"}
    assert torch.equal(found["instances"].pred_masks, detected["instances"].pred_masks)
    assert torch.equal(found["sem_seg"], segmented["sem_seg"])
    ids, segments_info = found["panoptic_seg"]
    assert ids.shape == (50, 70)
    assert set(ids.unique().tolist()) - {0} == {x["id"] for x in segments_info}
    model.combine = False
    assert set(model(inputs)[0]) == {"instances", "sem_seg"}


@torch.no_grad()
def test_with_equal_backbones_the_output_is_that_of_panoptic_fpn(tiny_cfg, batch):
    opts = """MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0  MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH 0.9
        MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT 9
        MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH 0.1"""
    torch.manual_seed(0)
    plain, model = (
        build_model(tiny_cfg(architecture, *opts.split())).eval()
        for architecture in ("PanopticFPN", "SeparatePanopticNetworks")
    )
    for network in (model.detector, model.segmentor):
        assert not network.load_state_dict(plain.state_dict(), strict=False).missing_keys
    for found, expected in zip(model(batch), plain(batch), strict=True):
        assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])
        assert found["panoptic_seg"][1] == expected["panoptic_seg"][1]
        assert {segment["isthing"] for segment in found["panoptic_seg"][1]} == {True, False}


def test_a_weight_that_would_weigh_nothing_is_refused(tiny_cfg):
    cfg = tiny_cfg("SeparatePanopticNetworks", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.5)
    with pytest.raises(InputError, match="INSTANCE_LOSS_WEIGHT is 0\\.5"):
        build_model(cfg)


@pytest.mark.slow
def test_trains_and_evaluates(train, tmp_path):
    train("MODEL.META_ARCHITECTURE", "SeparatePanopticNetworks", "SOLVER.MAX_ITER", 4)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"panoptic_seg", "segm", "sem_seg"} <= set(results["shapes_panoptic_val"])
