"""tools/convert_weights.py writes foreign weights under our names."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from panomask.checkpoint.files import read_checkpoint
from panomask.engine import run_tool


@pytest.fixture
def r50(tmp_path) -> Path:
    blobs = {"conv1_w": np.ones((8, 3, 7, 7), np.float32), "res_conv1_bn_s": np.ones(8, np.float32)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({**blobs, "conv1_w_momentum": blobs["conv1_w"]}, 2))
    return path


def test_caffe2_to_safetensors_and_on(run, r50, tmp_path):
    run(r50, tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == {"stem.conv1.weight", "stem.conv1.norm.weight"}
    run(tmp_path / "a.safetensors", tmp_path / "b.pth")
    checkpoint = read_checkpoint(str(tmp_path / "b.pth"))
    assert checkpoint["matching_heuristics"] is True  # so that Detectron2 finds the place, too
    assert checkpoint["model"]["stem.conv1.weight"].shape == (8, 3, 7, 7)


def test_what_belongs_to_training_is_left(run, tmp_path):
    content = {"model": {"backbone.w": torch.ones(1)}, "optimizer": {}, "thing_classes": ["a"]}
    torch.save(content, tmp_path / "a.pth")
    run(tmp_path / "a.pth", tmp_path / "b.pth")
    assert set(read_checkpoint(str(tmp_path / "b.pth"))) == {"model", "thing_classes"}


def test_names_of_a_model(run, tmp_path, tiny_run, capsys):
    """An ImageNet ResNet-18 of torchvision gets the names of the config's backbone."""
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    widths = ("MODEL.RESNETS.STEM_OUT_CHANNELS", 64, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
    run(tmp_path / "resnet18.pth", tmp_path / "b.pth", "--config-file", tiny_run, *widths)
    weights = read_checkpoint(str(tmp_path / "b.pth"))["model"]
    assert weights["backbone.bottom_up.res5.1.conv2.norm.running_var"].shape == (512,)
    assert all(key.startswith("backbone.bottom_up.") for key in weights)
    said = capsys.readouterr().out
    assert "stem.fc.{weight, bias}" in said
    assert f"What fits {tiny_run}:\nweights " in said  # the table's head stands above its columns
    assert "trained on RGB images" in said


def test_errors_are_one_line(run, r50, tmp_path, tiny_run, capsys):
    for arguments, words in (
        ((tmp_path / "none.pkl", tmp_path / "a.pth"), "no such file"),
        ((r50, tmp_path / "a.bin"), "weights are written as"),
        (
            (r50, tmp_path / "a.pth", "MODEL.MASK_ON", True),
            "settings are of a config; name it by --config-file",
        ),
        (
            (r50, tmp_path / "a.pth", "--config-file", tiny_run, "MODEL.RESNETS.STEM_OUT_CHANNELS", 4),
            "another model",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(lambda arguments=arguments: run(*arguments))
        assert stopped.value.code == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
