import pytest
import torch
from torch import nn

from panomask.config import check_supported, get_cfg
from panomask.engine.precision import InferenceAutocast, inference_autocast
from panomask.engine.train_loop import AMPTrainer, SimpleTrainer, build_step_trainer
from panomask.errors import InputError


def _cfg(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
    return cfg


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.bfloat16)],
)
def test_products_in_the_precision_of_the_config(precision, expected):
    """On the CPU; float16 is none of its types."""
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with inference_autocast(_cfg("TEST.PRECISION", precision)):
        assert layer(x).dtype == expected
    assert layer(x).dtype == torch.float32


def test_what_is_done_with_the_outputs_is_outside():
    layer = nn.Linear(2, 2)
    model = InferenceAutocast(layer, inference_autocast(_cfg("TEST.PRECISION", "bfloat16")))
    assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    assert not model.eval().model.training


def test_float32_leaves_the_autocast_of_the_caller():
    with torch.autocast("cpu", dtype=torch.bfloat16), inference_autocast(_cfg()):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


def test_mode_of_the_model_is_that_of_the_wrapper():
    layer = nn.Linear(2, 2).eval()
    model = InferenceAutocast(layer, inference_autocast(_cfg()))
    model.train(model.training)
    assert not layer.training


def test_scaler_of_a_run_in_bfloat16_is_no_obstacle():
    model = nn.Linear(2, 2)
    trainer = AMPTrainer(model, [], torch.optim.SGD(model.parameters(), lr=1.0))
    state = trainer.state_dict()
    assert state["grad_scaler"] == {}
    trainer.grad_scaler = torch.amp.GradScaler("cpu", enabled=True)
    trainer.load_state_dict(state)


def test_trainer_of_the_config():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    assert type(build_step_trainer(_cfg(), model, [], optimizer)) is SimpleTrainer
    cfg = _cfg("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")
    trainer = build_step_trainer(cfg, model, [], optimizer)
    assert isinstance(trainer, AMPTrainer)
    assert trainer.precision == torch.bfloat16


def test_other_precisions_are_refused():
    for key in ("TEST.PRECISION", "SOLVER.AMP.PRECISION"):
        with pytest.raises(InputError, match=f"{key}.*bfloat16"):
            check_supported(_cfg(key, "fp16"))
