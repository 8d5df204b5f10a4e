import pytest
import torch
from torch import nn

from panomask.config import get_cfg
from panomask.errors import InputError
from panomask.solver import (
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)


class Net(nn.Module):
    """One of each: convolution, norm layers, frozen layer, shared layer, bare parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)
        self.gn = nn.GroupNorm(1, 2)
        self.ln = nn.LayerNorm(2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.fc = nn.Linear(2, 2)
        self.shared = self.fc
        self.embedding = nn.Parameter(torch.zeros(3))


LEARNING = ["embedding", "conv.weight", "conv.bias", "bn.weight", "bn.bias", "gn.weight", "gn.bias"]
LEARNING += ["ln.weight", "ln.bias", "fc.weight", "fc.bias"]


def settings(model, groups, *names):
    """parameter name -> its values of the hyperparameters `names`; every parameter must be there once."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    found = [
        (name_of[p], tuple(group.get(name) for name in names)) for group in groups for p in group["params"]
    ]
    assert sorted(name for name, _ in found) == sorted(LEARNING)
    return dict(found)


def cfg_with(*overrides):
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    return cfg


def test_groups_of_build_optimizer():
    model = Net()
    cfg = cfg_with(
        *("SOLVER.BASE_LR", "0.1", "SOLVER.WEIGHT_DECAY", "0.01", "SOLVER.WEIGHT_DECAY_NORM", "0.002"),
        *("SOLVER.BIAS_LR_FACTOR", "2.0", "SOLVER.WEIGHT_DECAY_BIAS", "0.0003", "SOLVER.MOMENTUM", "0.8"),
    )
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.SGD
    plain, norm, bias = (0.1, 0.01, 0.8), (0.1, 0.002, 0.8), (0.2, 0.0003, 0.8)
    assert settings(model, optimizer.param_groups, "lr", "weight_decay", "momentum") == {
        "embedding": plain,
        "conv.weight": plain,
        "conv.bias": bias,
        "bn.weight": norm,
        "bn.bias": bias,  # the bias of a norm layer is a bias first
        "gn.weight": norm,
        "gn.bias": bias,
        "ln.weight": norm,
        "ln.bias": bias,
        "fc.weight": plain,
        "fc.bias": bias,
    }
    assert len(optimizer.param_groups) == 3


def test_default_config_joins_biases_with_weights_and_frees_norms_of_decay():
    model = Net()
    groups = build_optimizer(get_cfg(), model).param_groups
    decay = settings(model, groups, "weight_decay")
    assert {name for name, (value,) in decay.items() if value == 0.0} == {
        f"{layer}.{leaf}" for layer in ("bn", "gn", "ln") for leaf in ("weight", "bias")
    }
    assert {value for (value,) in decay.values()} == {0.0, 0.0001}
    assert len(groups) == 2


def test_one_sgd_step_by_hand():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    overrides = ["SOLVER.BASE_LR", "0.5", "SOLVER.WEIGHT_DECAY", "0.1", "SOLVER.MOMENTUM", "0.9"]
    for nesterov, first_step in (("False", 1.0), ("True", 1.9)):
        net = nn.Linear(1, 1, bias=False)
        net.load_state_dict(model.state_dict())
        optimizer = build_optimizer(cfg_with(*overrides, "SOLVER.NESTEROV", nesterov), net)
        net.weight.grad = torch.tensor([[3.0]])
        optimizer.step()
        # gradient 3 + 0.1 * 2 = 3.2 = momentum buffer; Nesterov adds 0.9 of the buffer to the gradient
        assert net.weight.item() == pytest.approx(2.0 - 0.5 * 3.2 * first_step)


def test_adamw():
    model = Net()
    cfg = cfg_with("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.ADAMW_BETAS", "0.8,0.9", "SOLVER.BASE_LR", "0.1")
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    assert settings(model, optimizer.param_groups, "lr", "weight_decay", "betas")["gn.weight"] == (
        0.1,
        0.0,
        (0.8, 0.9),
    )


def test_unusable_settings_and_nothing_to_train():
    with pytest.raises(InputError, match="allowed are 'SGD', 'ADAMW'"):
        build_optimizer(cfg_with("SOLVER.OPTIMIZER", "adam"), Net())
    with pytest.raises(InputError, match="SOLVER: Nesterov momentum requires"):
        build_optimizer(cfg_with("SOLVER.NESTEROV", "True", "SOLVER.MOMENTUM", "0.0"), Net())
    with pytest.raises(InputError, match="nothing to train"):
        build_optimizer(get_cfg(), nn.Linear(1, 1).requires_grad_(False))


def test_params_without_any_setting_leave_all_to_the_optimizer():
    (group,) = get_default_optimizer_params(Net())
    assert list(group) == ["params"]
    assert len(group["params"]) == len(LEARNING)


def test_params_with_factors_and_overrides():
    model = Net()
    overrides = {"embedding": {"weight_decay": 0.0, "lr": 7.0}}
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.5,
        bias_lr_factor=3.0,
        lr_factor_func=lambda name: 0.1 if name.startswith("conv.") else 1.0,
        overrides=overrides,
    )
    found = settings(model, groups, "lr", "weight_decay")
    assert found["conv.weight"] == (0.1, 0.5)
    assert found["fc.weight"] == (1.0, 0.5)
    assert found["fc.bias"] == (3.0, 0.5)
    assert found["embedding"] == (7.0, 0.0)
    assert found["bn.weight"] == (1.0, 0.5)  # no weight_decay_norm: as others
    assert list(overrides) == ["embedding"]  # the caller's dict is left alone


def test_full_names_reach_the_factor():
    names = []
    get_default_optimizer_params(Net(), base_lr=1.0, lr_factor_func=lambda name: names.append(name) or 1.0)
    assert names == LEARNING


@pytest.mark.parametrize(
    "arguments",
    [
        {"bias_lr_factor": 2.0},
        {"lr_factor_func": lambda name: 1.0},
        {"weight_decay_bias": 0.0, "overrides": {"bias": {"lr": 1.0}}},
    ],
)
def test_contradicting_arguments(arguments):
    with pytest.raises(ValueError):
        get_default_optimizer_params(Net(), **arguments)


def test_reduce_param_groups():
    a, b, c, d = (nn.Parameter(torch.zeros(1)) for _ in range(4))
    groups = reduce_param_groups(
        [
            {"params": [a], "lr": 1.0, "weight_decay": 0.1},
            {"params": [b, c], "lr": 2.0},
            {"params": d, "weight_decay": 0.1, "lr": 1.0},
        ]
    )
    assert [(g["params"], g["lr"], g.get("weight_decay")) for g in groups] == [
        ([a, d], 1.0, 0.1),
        ([b, c], 2.0, None),
    ]
    assert reduce_param_groups([]) == []


# ---- gradient clipping ----

CLIP = ("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "1.0")


def two_parameters():
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    first.grad, second.grad = torch.tensor([3.0, -4.0]), torch.tensor([0.3, 0.4])
    return [first, second, nn.Parameter(torch.zeros(1))]  # the last has no gradient


@pytest.mark.parametrize(
    ("overrides", "first"),
    [
        (("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value"), [1.0, -1.0]),
        (("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"), [0.6, -0.8]),  # norm 5 -> 1
        (
            ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.CLIP_GRADIENTS.NORM_TYPE", "inf"),
            [0.75, -1.0],  # largest 4 -> 1
        ),
        (
            ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.CLIP_GRADIENTS.NORM_TYPE", "1.0"),
            [3 / 7, -4 / 7],  # sum 7 -> 1
        ),
    ],
)
@pytest.mark.parametrize("on", ["class", "instance"])
def test_each_parameter_is_clipped_by_itself_before_the_step(overrides, first, on):
    cfg = cfg_with(*CLIP, *overrides)
    params = two_parameters()
    if on == "class":
        optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
        assert issubclass(optimizer_class, torch.optim.SGD)
        optimizer = optimizer_class(params, lr=1.0)
    else:
        plain = torch.optim.SGD(params, lr=1.0)
        optimizer = maybe_add_gradient_clipping(cfg, plain)
        assert optimizer is plain
    optimizer.step()
    assert torch.allclose(params[0], -torch.tensor(first), atol=1e-5)
    assert torch.equal(params[1], -torch.tensor([0.3, 0.4]))  # already small enough: untouched


def test_clipping_of_build_optimizer():
    model = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(cfg_with(*CLIP, "SOLVER.BASE_LR", "1.0", "SOLVER.WEIGHT_DECAY", "0.0"), model)
    before = model.weight.item()
    model.weight.grad = torch.tensor([[50.0]])
    optimizer.step()
    assert model.weight.item() == pytest.approx(before - 1.0)


def test_no_clipping_unless_enabled():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD) is torch.optim.SGD
    params = two_parameters()
    maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD(params, lr=1.0)).step()
    assert params[0].tolist() == [-3.0, 4.0]


def test_unknown_clip_type():
    with pytest.raises(InputError, match="allowed are 'value', 'norm'"):
        maybe_add_gradient_clipping(cfg_with(*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "x"), torch.optim.SGD)
