"""From config to model."""

import pytest
import torch

from panomask.errors import InputError
from panomask.modeling import GeneralizedRCNN, ProposalNetwork, build_model


def test_architecture_and_device(tiny_cfg):
    model = build_model(tiny_cfg())
    assert isinstance(model, GeneralizedRCNN)
    assert model.device == torch.device("cpu")
    assert isinstance(build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "ProposalNetwork")), ProposalNetwork)


def test_cuda_falls_back(tiny_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_model(tiny_cfg("MODEL.DEVICE", "cuda")).device.type == "cpu"


def test_refusals(tiny_cfg):
    with pytest.raises(InputError, match="Did you mean GeneralizedRCNN"):
        build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "GeneralisedRCNN"))
    c4 = ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["p4"])
    with pytest.raises(InputError, match="KEYPOINT_ON"):
        build_model(tiny_cfg("MODEL.KEYPOINT_ON", True, *c4))
