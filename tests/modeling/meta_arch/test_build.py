"""From config to model."""

import copy

import pytest
import torch

from panomask.errors import InputError
from panomask.modeling import GeneralizedRCNN, ProposalNetwork, build_model
from panomask.registry import META_ARCH_REGISTRY


def test_architecture_and_device(tiny_cfg):
    model = build_model(tiny_cfg())
    assert isinstance(model, GeneralizedRCNN)
    assert model.device == torch.device("cpu")
    assert isinstance(build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "ProposalNetwork")), ProposalNetwork)


def test_cuda_falls_back(tiny_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_model(tiny_cfg("MODEL.DEVICE", "cuda")).device.type == "cpu"


def test_compiling_without_a_compiler_is_refused_before_it_begins(tiny_cfg, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"MODEL\.COMPILE needs a C\+\+ compiler"):
        build_model(tiny_cfg("MODEL.COMPILE", True))


def test_refusals(tiny_cfg):
    with pytest.raises(InputError, match="Did you mean GeneralizedRCNN"):
        build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "GeneralisedRCNN"))
    c4 = ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["p4"])
    with pytest.raises(InputError, match="KEYPOINT_ON"):
        build_model(tiny_cfg("MODEL.KEYPOINT_ON", True, *c4))


def _tensors(model, batch):
    with torch.no_grad():
        found = model.eval()(batch)[0]["instances"]
    return found.pred_boxes.tensor, found.scores


def _batch(height=64, width=96):
    return [
        {"image": torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()}
    ]


def test_memory_format(tiny_cfg):
    """Weights and feature maps are laid out as asked; keys, values and results stay."""
    torch.manual_seed(0)
    model = build_model(tiny_cfg())
    plain = build_model(tiny_cfg("MODEL.CHANNELS_LAST", False))
    plain.load_state_dict(model.state_dict())
    for built, memory_format in ((model, torch.channels_last), (plain, torch.contiguous_format)):
        maps = built.backbone(torch.zeros(1, 3, 64, 96))
        assert all(x.is_contiguous(memory_format=memory_format) for x in maps.values())
    torch.testing.assert_close(_tensors(model, _batch()), _tensors(plain, _batch()), atol=1e-4, rtol=1e-4)


def test_memory_format_of_convolutions_alone(tiny_cfg):
    """Other weights, such as those of three-dimensional convolutions, are left as they are."""

    class WithMore(GeneralizedRCNN):
        def __init__(self, cfg):
            super().__init__(cfg)
            self.volume = torch.nn.Conv3d(2, 2, 3)
            self.table = torch.nn.Parameter(torch.zeros(2, 3, 4, 5))

    META_ARCH_REGISTRY.register(WithMore)
    try:
        model = build_model(tiny_cfg("MODEL.META_ARCHITECTURE", "WithMore"))
    finally:
        del META_ARCH_REGISTRY._obj_map["WithMore"]
    assert model.table.is_contiguous()
    assert model.backbone.fpn_output2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_compiled(tiny_cfg):
    """The same numbers, and no new graph for images of other shapes.

    So much smaller or larger that torch convolves the few channels of this model in another way they are not.
    """
    torch.manual_seed(0)
    options = ("MODEL.MASK_ON", True)
    plain, compiled = build_model(tiny_cfg(*options)), build_model(tiny_cfg(*options, "MODEL.COMPILE", True))
    compiled.load_state_dict(plain.state_dict())
    num_graphs = []
    for size in ((256, 384), (320, 320), (384, 288), (288, 416)):
        found, expected = (_tensors(model, _batch(*size)) for model in (compiled, plain))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        num_graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 0 < num_graphs[0] == num_graphs[-1], num_graphs
    changed = copy.deepcopy(compiled)
    changed.load_state_dict({name: 0 * value for name, value in plain.state_dict().items()})
    assert not changed.roi_heads.mask_head.layers(torch.ones(2, 16, 14, 14)).any()
    assert compiled.roi_heads.mask_head.layers(torch.ones(2, 16, 14, 14)).any()


def test_scores_are_in_float32_whatever_the_network_computes_in(tiny_cfg):
    model = build_model(tiny_cfg("MODEL.MASK_ON", True, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.inference(_batch(), do_postprocess=False)[0]
    assert len(found) > 0
    for values in (found.scores, found.pred_boxes.tensor, found.pred_masks):
        assert values.dtype == torch.float32
