"""Parameters and operations of a model, by the config and weights of its training."""

import logging

import pytest
import torch

from panomask.ablation.model_cost import build_sample, measure_model
from panomask.engine import load_config, match_num_classes, register_datasets
from panomask.engine.analysis import flop_count_operators
from panomask.errors import InputError
from panomask.modeling import build_model


@pytest.fixture
def trained(tiny_run, tmp_path):
    """Config, weights, and the model they make."""
    cfg = load_config(tiny_run)
    register_datasets(cfg)
    match_num_classes(cfg, ["tiny"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    return cfg, tmp_path / "config.yaml", tmp_path / "w.pth", model


def test_parameters_and_operations(trained, caplog):
    cfg, config, weights, model = trained
    caplog.set_level(logging.INFO)
    cost = measure_model(config, ["MODEL.WEIGHTS", str(weights)])
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    by_operation = flop_count_operators(model, [build_sample(cfg)])  # fvcore's, of the traced model
    products = sum(by_operation[name] for name in ("conv", "linear", "matmul", "addmm", "bmm", "einsum"))
    assert cost["flops"] == pytest.approx(1e9 * products, rel=1e-6)
    assert "Weights are loaded" not in caplog.text  # a table is no training
    assert logging.getLogger("panomask").isEnabledFor(logging.INFO)


def test_weights_or_data_that_are_gone(trained, tmp_path):
    _, config, weights, _ = trained
    with pytest.raises(InputError, match=r"gone.pth"):
        measure_model(config, ["MODEL.WEIGHTS", str(tmp_path / "gone.pth")])
    (tmp_path / "tiny.json").unlink()
    with pytest.raises(InputError, match=r"tiny.json"):
        measure_model(config, ["MODEL.WEIGHTS", str(weights)])
