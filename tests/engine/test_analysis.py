import pytest
import torch
from torch import nn

from panomask.config import get_cfg
from panomask.engine.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
)
from panomask.modeling import build_model
from panomask.structures import Boxes, Instances


class Detector(nn.Module):
    """Takes and returns what detectors do; `spare` is not used."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.spare = nn.Linear(2, 2)

    def forward(self, batch):
        maps = self.norm(self.conv(torch.stack([x["image"] for x in batch])))  # (N, 8, H, W)
        if self.training:
            return {"loss": maps.sum()}
        fields = {"pred_boxes": Boxes(maps[:, 0, 0, :4]), "scores": maps[:, 0, 0, 0]}
        return [{"instances": Instances((4, 4), **fields)}]


BATCH = [{"image": torch.ones(3, 4, 5), "file_name": "a.jpg", "instances": Instances((4, 5))}]
POSITIONS = 4 * 5
FLOPS = POSITIONS * 8 * 3 * 9  # of the convolution
NORM_FLOPS = POSITIONS * 8 * 2  # a factor and a summand for each element


def test_flops_of_a_model_that_takes_dicts():
    flops = FlopCountAnalysis(Detector().eval(), BATCH)
    assert flops.total() == FLOPS + NORM_FLOPS
    assert flops.by_module()["model.conv"] == FLOPS


@pytest.mark.parametrize("is_training", [True, False])
def test_counts_by_operator_leave_the_mode(is_training: bool):
    model = Detector().train(is_training)
    assert flop_count_operators(model, BATCH)["conv"] == pytest.approx(FLOPS / 1e9)
    assert activation_count_operators(model, BATCH)["conv"] == pytest.approx(8 * POSITIONS / 1e6)
    assert model.training is is_training


def test_unused_parameters():
    model = Detector()
    assert find_unused_parameters(model, BATCH) == ["spare.weight", "spare.bias"]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of what it takes for constants
def test_a_whole_detector():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    flops = FlopCountAnalysis(build_model(cfg).eval(), [{"image": torch.zeros(3, 32, 32)}]).by_module()
    assert flops["model.backbone.stem"] == 16 * 16 * 64 * (3 * 49 + 2)
    assert flops["model.proposal_generator"] > 0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_panoptic_model():
    cfg = get_cfg()
    cfg.merge_from_list(
        """MODEL.DEVICE cpu  MODEL.META_ARCHITECTURE PanopticFPN  MODEL.MASK_ON True
        MODEL.RESNETS.DEPTH 18  MODEL.RESNETS.RES2_OUT_CHANNELS 64  MODEL.RPN.POST_NMS_TOPK_TEST 2
        MODEL.ROI_HEADS.NAME StandardROIHeads  MODEL.ROI_BOX_HEAD.NAME FastRCNNConvFCHead
        MODEL.ROI_BOX_HEAD.NUM_FC 1  MODEL.ROI_BOX_HEAD.FC_DIM 8
        MODEL.SEM_SEG_HEAD.IN_FEATURES ["res4"]  MODEL.SEM_SEG_HEAD.COMMON_STRIDE 16
        MODEL.SEM_SEG_HEAD.CONVS_DIM 32  MODEL.SEM_SEG_HEAD.NUM_CLASSES 3
        MODEL.SEM_SEG_HEAD.NORM ''""".split()
    )
    flops = FlopCountAnalysis(build_model(cfg).eval(), [{"image": torch.zeros(3, 32, 32)}]).by_module()
    assert flops["model.sem_seg_head.res4"] == 2 * 2 * 256 * 32 * 9
    assert flops["model.sem_seg_head.predictor"] == 2 * 2 * 32 * 3
