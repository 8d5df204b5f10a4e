"""Rows of whole models can be made and agree, at sizes that take seconds."""

import argparse

import pytest
import torch
from torch import nn

from panomask.benchmark import inference, operations, training
from panomask.benchmark.comparison import measure
from panomask.benchmark.models import MASK_RCNN, RETINANET, plain_eager, spread_weights, zoo_config
from panomask.layers import Linear, ROIAlign
from panomask.modeling import build_model


def _rows(module, *options):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return list(module.comparisons(parser.parse_args(list(options))))


def test_operations():
    rows = [
        measure(row, rounds=1)
        for row in _rows(operations, "--boxes", "30", "--height", "64", "--width", "96")
    ]
    assert len(rows) == 7
    assert [row.target for row in rows] == [4.0, *[None] * 6]


@pytest.mark.slow
def test_inference():
    for row in _rows(inference, "--height", "128", "--width", "192"):
        found = measure(row, rounds=1)
        assert "objects" in found.agreement


@pytest.mark.slow
def test_training():
    for row in _rows(training, "--size", "96", "--images", "1", "--objects", "4"):
        assert "losses" in measure(row, rounds=1).agreement


def test_plain_model_has_nothing_of_ours_that_is_quick():
    torch.manual_seed(0)
    cfg = zoo_config(MASK_RCNN, "cpu", "MODEL.CHANNELS_LAST", False)
    model, plain = (spread_weights(build_model(cfg)).eval() for _ in range(2))
    plain_eager(plain)
    assert not any(type(module) in (Linear, ROIAlign) for module in plain.modules())
    batch = [{"image": torch.randint(256, (3, 64, 96)).byte()}]
    with torch.no_grad():
        found, expected = model(batch)[0]["instances"], plain(batch)[0]["instances"]
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
    seen = []
    norms = [module for module in plain.modules() if type(module).__name__ == "FrozenBatchNorm2d"]
    for norm in norms:
        norm.register_forward_hook(lambda *_: seen.append(1))
    plain(batch)
    assert len(seen) == len(norms) > 0


def test_weights_are_drawn_the_same_each_time():
    cfg = zoo_config(RETINANET, "cpu")
    assert cfg.MODEL.WEIGHTS == ""
    layers = [spread_weights(nn.Sequential(nn.Conv2d(3, 4, 1))) for _ in range(2)]
    torch.testing.assert_close(layers[0][0].weight, layers[1][0].weight, atol=0, rtol=0)
