import json
import logging
import math
from pathlib import Path

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from panomask.config import get_cfg
from panomask.errors import InputError
from panomask.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
)

GOLDEN = json.loads((Path(__file__).parent / "golden_lr_curves.json").read_text())


def make_optimizer(*lrs):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs or (1.0,)]
    return torch.optim.SGD(groups, lr=1.0)


def cfg_with(*overrides):
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", 1.0, *overrides])
    return cfg


def rates(optimizer, scheduler, count):
    """The learning rate that each of `count` steps uses."""
    used = []
    for _ in range(count):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def curve(*overrides):
    cfg, optimizer = cfg_with(*overrides), make_optimizer()
    return rates(optimizer, build_lr_scheduler(cfg, optimizer), cfg.SOLVER.MAX_ITER)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_curve(name):
    assert curve(*GOLDEN[name]["opts"]) == pytest.approx(GOLDEN[name]["lr"], rel=1e-9, abs=0)


def test_fixed_gamma_by_hand():
    # 12 iterations in 3 equal parts (2 decays), warm-up of 2 from 0.5 up to the value there
    name = ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "SOLVER.NUM_DECAYS", 2)
    lrs = curve(*name, "SOLVER.MAX_ITER", 12, "SOLVER.WARMUP_ITERS", 2, "SOLVER.WARMUP_FACTOR", 0.5)
    assert lrs == pytest.approx([0.5, 0.75] + [1.0] * 2 + [0.1] * 4 + [0.01] * 4)


def test_fixed_gamma_in_a_training_shorter_than_its_warmup():
    name = ("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "SOLVER.WARMUP_FACTOR", 0.0)
    lrs = curve(*name, "SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 1000)
    assert lrs == pytest.approx([0.0, 0.5 * 0.1**3])


def test_constant_warmup():
    lrs = curve(
        *("SOLVER.MAX_ITER", 5, "SOLVER.STEPS", "(3,)", "SOLVER.WARMUP_METHOD", "constant"),
        *("SOLVER.WARMUP_ITERS", 2, "SOLVER.WARMUP_FACTOR", 0.25),
    )
    assert lrs == pytest.approx([0.25, 0.25, 1.0, 0.1, 0.1])


def test_one_iteration():
    assert curve("SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0) == [1.0]


def test_every_group_follows_its_own_base_rate():
    optimizer = make_optimizer(1.0, 0.2)
    overrides = ("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "(2,)", "SOLVER.WARMUP_ITERS", 0)
    scheduler = build_lr_scheduler(cfg_with(*overrides), optimizer)
    rates(optimizer, scheduler, 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.02])
    assert scheduler.get_last_lr() == pytest.approx([0.1, 0.02])


def test_steps_beyond_the_end_are_left_out_with_a_warning(caplog):
    overrides = ("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "(2, 4, 9)", "SOLVER.WARMUP_ITERS", 0)
    with caplog.at_level(logging.WARNING):
        assert curve(*overrides) == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert "SOLVER.STEPS (2, 4, 9)" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.LR_SCHEDULER_NAME", "Poly"), "allowed are 'WarmupMultiStepLR', 'WarmupCosineLR'"),
        (("SOLVER.WARMUP_METHOD", "burn"), "allowed are 'linear', 'constant'"),
        (("SOLVER.MAX_ITER", 0), "at least 1"),
        (("SOLVER.STEPS", "(30, 20)"), "in rising order"),
        (("SOLVER.STEPS", "(20, 20)"), "in rising order"),
        (("SOLVER.STEPS", "(0, 20)"), "at least 1"),
        (
            ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", 2.0),
            "between 0 and SOLVER.BASE_LR",
        ),
        (
            ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR", 0.0),
            "between 0 and SOLVER.BASE_LR",
        ),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "SOLVER.NUM_DECAYS", 0), "above 0"),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR", "SOLVER.GAMMA", 0.0), "above 0"),
    ],
)
def test_settings_that_make_no_schedule(overrides, message):
    with pytest.raises(InputError, match=message):
        build_lr_scheduler(cfg_with(*overrides), make_optimizer())


def test_resumed_schedule_goes_on_bit_for_bit():
    overrides = GOLDEN["cosine"]["opts"]
    whole = curve(*overrides)
    optimizer = make_optimizer()
    scheduler = build_lr_scheduler(cfg_with(*overrides), optimizer)
    rates(optimizer, scheduler, 17)
    state = scheduler.state_dict()
    assert state == {"base_lrs": [1.0], "last_epoch": 17}

    resumed_optimizer = make_optimizer()
    resumed = build_lr_scheduler(cfg_with(*overrides), resumed_optimizer)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    assert rates(resumed_optimizer, resumed, len(whole) - 17) == whole[17:]


def test_multiplier_starts_at_last_iter():
    optimizer = make_optimizer()
    optimizer.param_groups[0]["initial_lr"] = 2.0
    LRMultiplier(optimizer, LinearParamScheduler(0.0, 1.0), max_iter=10, last_iter=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * 0.4)  # torch takes one step when it starts


def test_multiplier_must_be_a_param_scheduler():
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(make_optimizer(), lambda where: 1.0, max_iter=10)


def test_unknown_warmup_method():
    with pytest.raises(ValueError, match="unknown warmup method"):
        WarmupParamScheduler(LinearParamScheduler(1.0, 0.0), 0.1, 0.5, "burn")


def test_warmup_ends_where_the_schedule_stands():
    schedule = WarmupParamScheduler(LinearParamScheduler(1.0, 0.0), 0.5, 0.2)
    assert [schedule(where) for where in (0.0, 0.1, 0.2, 0.6)] == pytest.approx([0.5, 0.65, 0.8, 0.4])
    squeezed = WarmupParamScheduler(LinearParamScheduler(1.0, 0.0), 0.5, 0.2, rescale_interval=True)
    assert [squeezed(where) for where in (0.0, 0.1, 0.2, 0.6)] == pytest.approx([0.5, 0.75, 1.0, 0.5])


# ---- Detectron2's older schedulers ----


def test_older_multi_step():
    optimizer = make_optimizer()
    scheduler = WarmupMultiStepLR(optimizer, [3, 5], gamma=0.5, warmup_factor=0.2, warmup_iters=2)
    assert rates(optimizer, scheduler, 6) == pytest.approx([0.2, 0.6, 1.0, 0.5, 0.5, 0.25])
    with pytest.raises(ValueError, match="must rise"):
        WarmupMultiStepLR(make_optimizer(), [5, 3])


def test_older_cosine():
    optimizer = make_optimizer()
    scheduler = WarmupCosineLR(optimizer, 4, warmup_factor=0.2, warmup_iters=1, warmup_method="constant")
    expected = [0.2] + [0.5 * (1 + math.cos(math.pi * t / 4)) for t in (1, 2, 3)]
    assert rates(optimizer, scheduler, 4) == pytest.approx(expected)
    with pytest.raises(ValueError, match="unknown warmup method"):
        WarmupCosineLR(make_optimizer(), 4, warmup_method="burn")
