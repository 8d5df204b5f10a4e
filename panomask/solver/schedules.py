"""Learning-rate schedules: a multiplier over the progress of training, with a warm-up in front.

A schedule maps progress (iteration / MAX_ITER, from 0 to 1) to a factor on the base learning rate. Step t,
counted from 0, uses the factor at t / MAX_ITER.
"""

import logging
import math
from bisect import bisect_right
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler

from panomask.config import CfgNode
from panomask.errors import InputError

logger = logging.getLogger(__name__)

WARMUP_METHODS = ("linear", "constant")


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule of SOLVER.LR_SCHEDULER_NAME with its warm-up; call `.step()` after each iteration.

    Raises InputError for an unknown schedule and for numbers that make none.
    """
    solver = cfg.SOLVER
    if solver.MAX_ITER < 1:
        raise InputError(f"SOLVER.MAX_ITER is {solver.MAX_ITER}; it must be at least 1")
    if solver.WARMUP_METHOD not in WARMUP_METHODS:
        raise InputError(
            f"SOLVER.WARMUP_METHOD is {solver.WARMUP_METHOD!r}; allowed are 'linear', 'constant'"
        )
    builders = {
        "WarmupMultiStepLR": _build_multi_step,
        "WarmupCosineLR": _build_cosine,
        "WarmupStepWithFixedGammaLR": _build_fixed_gamma,
    }
    if solver.LR_SCHEDULER_NAME not in builders:
        raise InputError(
            f"SOLVER.LR_SCHEDULER_NAME is {solver.LR_SCHEDULER_NAME!r};"
            f" allowed are {', '.join(map(repr, builders))}"
        )
    schedule = WarmupParamScheduler(
        builders[solver.LR_SCHEDULER_NAME](cfg),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, schedule, max_iter=solver.MAX_ITER)


def _build_multi_step(cfg: CfgNode) -> ParamScheduler:
    solver = cfg.SOLVER
    steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
    if len(steps) != len(solver.STEPS):
        logger.warning(
            "SOLVER.STEPS %s: those from MAX_ITER %d on are not reached", solver.STEPS, solver.MAX_ITER
        )
    if steps != sorted(set(steps)) or any(step < 1 for step in steps):
        raise InputError(
            f"SOLVER.STEPS is {solver.STEPS}; it takes iterations of at least 1, in rising order"
        )
    values = [solver.GAMMA**k for k in range(len(steps) + 1)]
    return MultiStepParamScheduler(values, num_updates=solver.MAX_ITER, milestones=steps)


def _build_cosine(cfg: CfgNode) -> ParamScheduler:
    base, end = cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END
    if not 0 <= end <= base or base == 0:
        raise InputError(
            f"SOLVER.BASE_LR_END is {end}; it must lie between 0 and SOLVER.BASE_LR, which is {base}"
        )
    return CosineParamScheduler(1.0, end / base)


def _build_fixed_gamma(cfg: CfgNode) -> ParamScheduler:
    solver = cfg.SOLVER
    if solver.NUM_DECAYS < 1 or solver.GAMMA <= 0:
        raise InputError(
            f"SOLVER.NUM_DECAYS is {solver.NUM_DECAYS} and SOLVER.GAMMA {solver.GAMMA}; both must be above 0"
        )
    return _FixedGamma(1.0, num_decays=solver.NUM_DECAYS, gamma=solver.GAMMA, num_updates=solver.MAX_ITER)


class _FixedGamma(StepWithFixedGammaParamScheduler):
    """fvcore's schedule, defined at the very end of training too, where fvcore's has no value left."""

    def __call__(self, where: float) -> float:
        return super().__call__(min(where, 1.0 - 2 * self.WHERE_EPSILON))


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule whose first part is replaced by a warm-up.

    Args:
        scheduler: what follows the warm-up.
        warmup_factor: the warm-up starts at this multiple of the schedule's first value.
        warmup_length: its share of the training, from 0 to 1.
        warmup_method: "linear", up to the value that the schedule has where the warm-up ends, or "constant".
        rescale_interval: whether the schedule is squeezed into what is left, or joined where it stands.

    Raises ValueError for an unknown method.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        start = warmup_factor * scheduler(0.0)
        warmup: ParamScheduler
        if warmup_method == "linear":
            warmup = LinearParamScheduler(start, scheduler(0.0 if rescale_interval else warmup_length))
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"unknown warmup method {warmup_method!r}; allowed are {WARMUP_METHODS}")
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1.0 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """A torch scheduler: each group's learning rate is its base rate times `multiplier(t / max_iter)`.

    Args:
        multiplier: progress from 0 to 1 -> factor.
        max_iter: the iterations of the whole training.
        last_iter: the iterations already done; -1: none.

    Its state is the base rates and the iteration, so that a checkpoint holds numbers only.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be an fvcore ParamScheduler, not {type(multiplier).__name__}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[Any]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


class WarmupMultiStepLR(LRScheduler):
    """Detectron2's older scheduler by iterations: GAMMA at each milestone, times the warm-up's factor."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: list[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must rise: {milestones}")
        self.milestones, self.gamma = milestones, gamma
        self.warmup = (warmup_method, warmup_iters, warmup_factor)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        method, iters, factor = self.warmup
        factor = _get_warmup_factor_at_iter(method, self.last_epoch, iters, factor)
        factor *= self.gamma ** bisect_right(self.milestones, self.last_epoch)
        return [base_lr * factor for base_lr in self.base_lrs]


class WarmupCosineLR(LRScheduler):
    """Detectron2's older scheduler by iterations: half a cosine, times the warm-up's factor."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        self.max_iters = max_iters
        self.warmup = (warmup_method, warmup_iters, warmup_factor)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        method, iters, factor = self.warmup
        factor = _get_warmup_factor_at_iter(method, self.last_epoch, iters, factor)
        factor *= 0.5 * (1.0 + math.cos(math.pi * self.last_epoch / self.max_iters))
        return [base_lr * factor for base_lr in self.base_lrs]


def _get_warmup_factor_at_iter(method: str, iter: int, warmup_iters: int, warmup_factor: float) -> float:
    """From `warmup_factor`, linearly or constant, to 1 after the warm-up."""
    if method not in WARMUP_METHODS:
        raise ValueError(f"unknown warmup method {method!r}; allowed are {WARMUP_METHODS}")
    if iter >= warmup_iters:
        return 1.0
    if method == "constant":
        return warmup_factor
    return warmup_factor + (1.0 - warmup_factor) * iter / warmup_iters
