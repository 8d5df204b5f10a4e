"""Every config of the zoo builds the model whose state dict Detectron2's has.

golden_zoo.json.xz: by Detectron2's config (.yaml, or .py where it has no YAML), the keys of the state dict in
their order with shapes, and the counts of parameters.
"""

import json
import lzma
from pathlib import Path

import pytest
import torch

from panomask.config.zoo import zoo_configs
from panomask.modeling import build_model
from panomask.registry import META_ARCH_REGISTRY

GOLDEN = json.loads(lzma.decompress(Path(__file__).with_name("golden_zoo.json.xz").read_bytes()))


@pytest.mark.parametrize("config", list(GOLDEN))
def test_state_dict_is_detectron2s(config, zoo_cfg):
    recorded = GOLDEN[config]
    with torch.device("meta"):
        model = build_model(zoo_cfg(config.replace(".py", ".yaml"), "MODEL.DEVICE", "meta"))
    assert isinstance(model, META_ARCH_REGISTRY.get(recorded["meta_architecture"]))
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert list(shapes.items()) == list(recorded["state_dict"].items())
    assert sum(p.numel() for p in model.parameters()) == recorded["parameters"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recorded["trainable"]


@pytest.mark.parametrize(
    "config", sorted(set(zoo_configs()) - {name.replace(".py", ".yaml") for name in GOLDEN})
)
def test_the_others_build(config, zoo_cfg):
    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(zoo_cfg(config, "MODEL.DEVICE", "meta")).parameters()) > 3e7
