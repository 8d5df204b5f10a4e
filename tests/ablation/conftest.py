"""A small sweep with one of everything: names that markup trips over, a failed run, a missing one."""

from pathlib import Path

import pytest

from panomask.ablation.outcomes import RunOutcome, SweepOutcome, VariantOutcome

ODD_NAME = "<b>Öl_1</b> & 5%, *x*|$y$"


def _runs(
    folder: str, segm: tuple[float, ...], bbox: tuple[float, ...], seconds: float
) -> tuple[RunOutcome, ...]:
    return tuple(
        RunOutcome(
            seed=seed,
            status="done",
            folder=Path(f"runs/{folder}/seed_{seed}"),
            scores={"segm/AP": segm[seed - 1], "bbox/AP": bbox[seed - 1]},
            cost={"seconds": seconds + seed, "memory_mib": 1000.0, "parameters": 44.4e6, "flops": 2.5e9},
        )
        for seed in (1, 2, 3)
    )


@pytest.fixture
def sweep_outcome() -> SweepOutcome:
    """Against the baseline: the second +1, +2, +3 mask AP and +5, +5, +5 box AP, the third +0.5 mask AP."""
    third = (
        RunOutcome(1, "done", Path("runs/third/seed_1"), {"segm/AP": 30.5}, {"seconds": 50.0}),
        RunOutcome(
            2,
            "failed",
            Path("runs/third & <co>/seed_2"),
            {"segm/AP": 99.0},
            {"seconds": 1.0},
            "No <memory>, 1_2",
        ),
        RunOutcome(3, "missing", Path("runs/third/seed_3")),
    )
    return SweepOutcome(
        title="Heads & <tails>",
        notes="Why <i>?",
        axes=("head|neck", "size"),
        metrics=("segm/AP", "bbox/AP"),
        seeds=(1, 2, 3),
        variants=(
            VariantOutcome(
                ("plain", "14"), {}, _runs("plain", (30.0, 31.0, 32.0), (40.0, 41.0, 42.0), 100.0)
            ),
            VariantOutcome(
                (ODD_NAME, "28"),
                {"MODEL.NAME": "<u>&", "MODEL.SIZE": "28"},
                _runs("odd", (31.0, 33.0, 35.0), (45.0, 46.0, 47.0), 400.0),
            ),
            VariantOutcome(("third", "28"), {"MODEL.SIZE": "28"}, third),
        ),
        baseline=("plain", "14"),
        command="python tools/ablate.py <sweep>.yaml",
        commit="abc123",
    )
