"""timm models as backbones: levels, normalisation, freezing, weights, and what is refused."""

import sys

import pytest
import torch

from panomask.config import get_cfg
from panomask.errors import InputError
from panomask.modeling.backbone import FPN, build_backbone

timm = pytest.importorskip("timm")

LEVELS = ["res2", "res3", "res4", "res5"]
RES = "MODEL.RESNETS."
TAGGED = "timm/test_resnet.r160_in1k"


def _cfg(name, *opts, features=LEVELS, freeze_at=0, norm="BN"):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.FREEZE_AT", freeze_at, RES + "NORM", norm]
    )
    cfg.merge_from_list([RES + "OUT_FEATURES", features, *opts])
    return cfg


def _build(name, *opts, **kwargs):
    return build_backbone(_cfg(name, *opts, **kwargs))


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_convnext",
        "test_efficientnet",
        "swin_tiny_patch4_window7_224",
        "mobilenetv3_small_050",
    ],
)
def test_pyramid_of_any_model(name):
    net = _build(f"timm/{name}", "MODEL.FPN.IN_FEATURES", LEVELS, "MODEL.FPN.OUT_CHANNELS", 8)
    assert isinstance(net, FPN)
    features = net(torch.randn(1, 3, 64, 96))
    assert {key: tuple(x.shape) for key, x in features.items()} == {
        f"p{i}": (1, 8, 64 // 2**i, -(-96 // 2**i)) for i in range(2, 7)
    }
    sum(x.sum() for x in features.values()).backward()
    assert [key for key, x in net.named_parameters() if x.grad is None] == []


@pytest.mark.parametrize("name", ["test_vit", "inception_v3"])
def test_maps_of_other_sizes_are_resized(name, caplog):
    """A plain vision transformer has maps of stride 16 alone; Inception's convolutions lose the border."""
    with caplog.at_level("INFO"):
        net = _build(f"timm/{name}").eval()
    features = net(torch.randn(1, 3, 96, 128))
    assert [tuple(x.shape[2:]) for x in features.values()] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    assert ("no map of its own for res2, res3, res5" in caplog.text) == (name == "test_vit")
    if name == "test_vit":  # res5: each cell the mean of 2 x 2
        torch.testing.assert_close(features["res5"], torch.nn.functional.avg_pool2d(features["res4"], 2))


def test_only_what_is_needed_is_built():
    net = _build("timm/test_resnet", features=["res4"])
    assert {name: (spec.channels, spec.stride) for name, spec in net.output_shape().items()} == {
        "res4": (192, 16)
    }
    assert not any("layer4" in key for key in net.state_dict())
    assert net.size_divisibility == 16


def test_batch_norms_of_averages():
    """Attention of this model normalises global averages: in training one image alone would be refused."""
    net = _build("timm/skresnet18", features=["res2"])
    assert net.training
    assert net(torch.zeros(2, 3, 64, 64))["res2"].shape[2:] == (16, 16)


def test_dilation():
    net = _build("timm/test_resnet", RES + "RES5_DILATION", 2)
    assert [shape.stride for shape in net.output_shape().values()] == [4, 8, 16, 16]
    assert net(torch.zeros(1, 3, 64, 64))["res5"].shape[2:] == (4, 4)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_input_is_what_the_weights_were_trained_on(order, monkeypatch):
    """Whatever PIXEL_MEAN and PIXEL_STD are: (pixels / 255 - its own mean) / its own deviation, in RGB."""
    mean, std = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]
    net = _build("timm/test_resnet", "INPUT.FORMAT", order, "MODEL.PIXEL_MEAN", mean, "MODEL.PIXEL_STD", std)
    seen = []
    monkeypatch.setattr(net.net, "forward", lambda x: seen.append(x) or [torch.zeros(1, 1, 8, 8)] * 4)
    pixels = torch.rand(1, 3, 32, 32) * 255
    net((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    rgb = pixels if order == "RGB" else pixels.flip(1)
    own = net.net.pretrained_cfg
    expected = (rgb / 255 - torch.tensor(own["mean"])[:, None, None]) / torch.tensor(own["std"])[
        :, None, None
    ]
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "freeze_at, frozen",
    [
        (0, ()),
        (1, ("conv1", "bn1")),
        (2, ("conv1", "bn1", "layer1")),
        (3, ("conv1", "bn1", "layer1", "layer2")),
    ],
)
def test_freezing(freeze_at, frozen):
    net = _build("timm/test_resnet", freeze_at=freeze_at)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != name.split(".")[1].startswith(tuple(frozen)) or not frozen, name
    stages = {name.split(".")[1] for name, x in net.named_modules() if isinstance(x, torch.nn.BatchNorm2d)}
    assert not stages & set(frozen)
    assert "layer4" in stages


def test_the_stem_of_a_vision_transformer():
    net = _build("timm/test_vit", freeze_at=1)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    stem = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert frozen == {f"net.model.{name}" for name in stem}


def test_frozen_batch_norms(caplog):
    net = _build("timm/test_efficientnet", norm="FrozenBN")  # its norms hold the activation
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    assert "hardly train" in caplog.text
    torch.manual_seed(0)
    frozen = net.train()(torch.zeros(1, 3, 64, 64))["res5"]
    assert torch.equal(frozen, net.eval()(torch.zeros(1, 3, 64, 64))["res5"])
    caplog.clear()
    _build("timm/test_vit", norm="FrozenBN")
    assert caplog.text == ""  # it has none


def test_weights_of_the_tag_in_the_cache_folder(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path))
    (tmp_path / "timm").mkdir()
    path = tmp_path / "timm" / "test_resnet.r160_in1k.safetensors"
    source = timm.create_model("test_resnet")
    save_file(source.state_dict(), path)
    loaded = _build(TAGGED).net.state_dict()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.items())
    other = _build(TAGGED, "MODEL.WEIGHTS", "model_final.pth").net.state_dict()
    assert not torch.equal(other["conv1.0.weight"], loaded["conv1.0.weight"])
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="not the weights of timm/test_resnet"):
        _build(TAGGED)


def test_weights_that_cannot_be_fetched(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PANOMASK_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"cannot be fetched.*place model.safetensors.*r160_in1k.safetensors"
    ):
        _build(TAGGED)


@pytest.mark.parametrize(
    "name, opts, message",
    [
        ("timm/rsnet18", [], "no model 'rsnet18'; nearest: .*resnet18"),
        ("timm/test_resnet.in22k", [], "no weights 'in22k' of test_resnet; known: r160_in1k"),
        ("timm/beit_base_patch16_224", [], "does not take images of any size"),
        ("timm/test_vit", ["MODEL.BACKBONE.FREEZE_AT", 2], "FREEZE_AT: 2: .*stride 4"),
        ("timm/test_vit", [RES + "RES5_DILATION", 2], "RES5_DILATION 2"),
        ("timm/test_resnet", [RES + "OUT_FEATURES", ["stem"]], "OUT_FEATURES"),
        ("timm/test_resnet", [RES + "NORM", "GN"], "norms of its own"),
        (
            "timm/test_resnet",
            [RES + "DEFORM_ON_PER_STAGE", [False] * 3 + [True]],
            "no deformable convolution",
        ),
        ("timm/test_resnet", ["INPUT.FORMAT", "YUV-BT.601"], "RGB or BGR"),
    ],
)
def test_refused(name, opts, message):
    with pytest.raises(InputError, match=message):
        _build(name, *opts)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'panomask\[timm\]'"):
        _build("timm/test_resnet")
