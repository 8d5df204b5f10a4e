from pathlib import Path

import pytest
import torch
from panoptic_fpn.project import AlternatingPanopticFPN, SeparatePanopticNetworks

from panomask.ablation.sweep import read_sweep
from panomask.config import check_supported
from panomask.engine import load_config
from panomask.errors import InputError
from panomask.event_storage import EventStorage
from panomask.modeling import build_model

PROJECT = Path(__file__).parents[1]
SWEEPS = sorted(PROJECT.glob("*.yaml"))
MODELS = [model.__name__ for model in (AlternatingPanopticFPN, SeparatePanopticNetworks)]


@pytest.mark.parametrize("architecture", MODELS)
def test_classes_are_those_of_the_data(tiny_cfg, architecture):
    cfg = tiny_cfg(architecture)
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (6, 4)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_every_choice_is_a_config(sweep):
    for variant in read_sweep(sweep).variants():
        check_supported(load_config(variant.base, [x for item in variant.overrides.items() for x in item]))


@pytest.mark.parametrize(
    "file, idle",
    [
        ("loss_weights.yaml", ("sem_seg_head.",)),
        ("instance_loss_weights.yaml", ("proposal_generator.", "roi_heads.")),
    ],
)
def test_at_weight_zero_one_task_learns_alone(tiny_cfg, batch, file, idle):
    zero = read_sweep(PROJECT / file).variants()[0]
    assert zero.choices == ("0",)
    model = build_model(tiny_cfg("PanopticFPN", *[x for item in zero.overrides.items() for x in item]))
    with EventStorage():
        sum(model(batch).values()).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() == (not name.startswith(idle)), name


@pytest.mark.parametrize("architecture", MODELS)
def test_the_checks_of_panoptic_fpn_are_made(tiny_cfg, architecture):
    """What the core refuses for PanopticFPN it refuses for these too: a merged output needs masks."""
    cfg = tiny_cfg(architecture)
    check_supported(cfg)
    cfg.MODEL.MASK_ON = False
    with pytest.raises(InputError, match="COMBINE"):
        check_supported(cfg)
