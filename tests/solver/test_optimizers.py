import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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


# ---- fused steps ----

KINDS = [("SOLVER.OPTIMIZER", "SGD"), ("SOLVER.OPTIMIZER", "SGD", "SOLVER.NESTEROV", "True")]
KINDS += [("SOLVER.OPTIMIZER", "ADAMW")]


def trained(optimizer, model, steps):
    """The parameters after some steps along gradients that depend on them."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((p - 0.3) ** 4).sum() for p in model.parameters() if p.requires_grad).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def net_and_optimizer(*overrides):
    torch.manual_seed(0)
    model = Net()
    return model, build_optimizer(cfg_with("SOLVER.BASE_LR", "0.01", *overrides), model)


def unfused(optimizer):
    """The plain implementation of the same optimizer."""
    for group in optimizer.param_groups:
        group.update(fused=False, foreach=False)
    return optimizer


@pytest.mark.parametrize("kind", KINDS)
def test_fused_steps_are_the_plain_ones(kind):
    model, optimizer = net_and_optimizer(*kind)
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    other, plain = net_and_optimizer(*kind)
    torch.testing.assert_close(trained(optimizer, model, 8), trained(unfused(plain), other, 8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_steps_heed_layouts(kind, layout):
    """torch's walk through memory: it must be in the same order for gradients and states of any layout."""

    def run(fused):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(1, 4, 3))
        optimizer = build_optimizer(cfg_with("SOLVER.BASE_LR", "0.1", *kind), model)
        optimizer = optimizer if fused else unfused(optimizer)
        for step in range(4):
            for p in model.parameters():
                p.grad = torch.randn(p.shape)  # in the order of its dimensions, as a user's may be
            if step == 2:  # in the middle, so that there are states of another layout
                model.to(memory_format=layout)
            optimizer.step()
        return model.state_dict()

    torch.testing.assert_close(run(True), run(False))


def test_gradients_of_autograd_are_not_copied():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(get_cfg(), model)
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    places = [p.grad.data_ptr() for p in model.parameters()]
    optimizer.step()
    assert [p.grad.data_ptr() for p in model.parameters()] == places


def test_parameters_without_a_fused_step():
    for model in (Net().to("meta"), nn.Linear(2, 2, dtype=torch.complex64)):
        assert {group["fused"] for group in build_optimizer(get_cfg(), model).param_groups} == {None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved_from", ["fused", "plain", "years ago"])
def test_a_run_goes_on_from_the_state_of_any_implementation(kind, saved_from):
    model, optimizer = net_and_optimizer(*kind)
    expected = trained(optimizer, model, 6)

    model, optimizer = net_and_optimizer(*kind)
    trained(optimizer if saved_from == "fused" else unfused(optimizer), model, 3)
    state = optimizer.state_dict()
    if saved_from == "years ago":  # before torch 1.12; Detectron2's checkpoints are as old
        for group in state["param_groups"]:
            for name in ("fused", "foreach", "maximize", "differentiable"):
                group.pop(name, None)
        for of_parameter in state["state"].values():
            of_parameter.update({"step": int(of_parameter["step"])} if "step" in of_parameter else {})
    state["param_groups"][0]["lr"] = 0.01  # what the schedule made of it is taken over
    rates = [group["lr"] for group in state["param_groups"]]

    resumed = build_optimizer(cfg_with(*kind, "SOLVER.BASE_LR", "0.5"), model)
    resumed.load_state_dict(state)
    assert [group["lr"] for group in resumed.param_groups] == rates
    assert {group["fused"] for group in resumed.param_groups} == {True}
    torch.testing.assert_close(trained(resumed, model, 3), expected)


def test_states_that_do_not_fit_are_refused():
    _, optimizer = net_and_optimizer()
    state = optimizer.state_dict()
    for groups in (state["param_groups"][:1], state["param_groups"] * 2):
        with pytest.raises(ValueError, match="parameter groups"):
            optimizer.load_state_dict({**state, "param_groups": groups})


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


@pytest.mark.parametrize("norm_type", ["0.5", "1.0", "2.0", "3.0", "inf"])
def test_norms_are_clipped_as_torch_clips_each(norm_type):
    cfg = cfg_with(
        *CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.CLIP_GRADIENTS.NORM_TYPE", norm_type
    )
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape)) for shape in [(), (1,), (5,), (3, 4), (2, 1, 3, 3)]]
    for scale, parameter in zip((0.01, 3.0, 0.1, 10.0, 0.5), params, strict=True):
        parameter.grad = torch.randn_like(parameter) * scale
    params[2].grad.zero_()
    expected = [parameter.grad.clone() for parameter in params]
    for grad in expected:
        holder = nn.Parameter(torch.zeros_like(grad))
        holder.grad = grad
        nn.utils.clip_grad_norm_(holder, 1.0, float(norm_type))
    maybe_add_gradient_clipping(cfg, torch.optim.SGD(params, lr=1.0)).step()
    torch.testing.assert_close([parameter.grad for parameter in params], expected)


def test_clipping_where_no_parameter_has_a_gradient():
    for clip_type in ("value", "norm"):
        cfg = cfg_with(*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
        maybe_add_gradient_clipping(cfg, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)).step()


@pytest.mark.parametrize("clip_type", ["value", "norm"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("factor", [1.0, float("inf")])
def test_clipping_sees_gradients_without_the_scale_of_mixed_precision(clip_type, fused, factor):
    """A GradScaler leaves the division to fused optimizers; limits are on what comes after it."""
    cfg = cfg_with(*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
    params = two_parameters()[:2]
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(params, lr=1.0, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    for parameter in params:
        parameter.grad *= 1024.0 * factor
    scaler.step(optimizer)
    scaler.update()
    first = {"value": [-1.0, 1.0], "norm": [-0.6, 0.8]}[clip_type]
    if factor != 1.0:  # the step is left out
        assert [x.tolist() for x in params] == [[0.0, 0.0], [0.0, 0.0]]
        return
    torch.testing.assert_close(params[0].detach(), torch.tensor(first), rtol=0, atol=1e-5)
    torch.testing.assert_close(params[1].detach(), torch.tensor([-0.3, -0.4]))


class _Reads(TorchDispatchMode):
    """Counts how often a number leaves a tensor, for which a GPU would be waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [(), CLIP])
def test_a_fused_step_in_mixed_precision_reads_nothing(clip):
    """A GradScaler asks for itself whether gradients are finite, unless the step does it on the device."""
    reads = {}
    for fused in (True, False):
        params = two_parameters()[:2]
        plain = torch.optim.SGD(params, lr=1.0, momentum=0.9, fused=fused)
        optimizer = maybe_add_gradient_clipping(cfg_with(*clip), plain)
        scaler = torch.amp.GradScaler("cpu")
        for _ in range(2):
            scaler.scale(sum(x.sum() for x in params)).backward()
            with _Reads() as mode:
                scaler.step(optimizer)
                scaler.update()
        reads[fused] = mode.count
    assert reads == {True: 0, False: 1}


def test_no_clipping_unless_enabled():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD) is torch.optim.SGD
    params = two_parameters()
    maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD(params, lr=1.0)).step()
    assert params[0].tolist() == [-3.0, 4.0]


def test_unknown_clip_type():
    with pytest.raises(InputError, match="allowed are 'value', 'norm'"):
        maybe_add_gradient_clipping(cfg_with(*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "x"), torch.optim.SGD)


def test_parameters_with_gaps_in_memory_are_stepped_as_torch_does():
    """A fused step would go through what lies between their elements."""
    for value in (torch.randn(8, 4)[:, :2], torch.randn(8)[::2], torch.zeros(1, 3).expand(2, 3)):
        model = nn.Module()
        model.weight = nn.Parameter(value)
        optimizer = build_optimizer(get_cfg(), model)
        assert optimizer.defaults["fused"] is None
    for value in (torch.randn(8, 4).T, torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)):
        model.weight = nn.Parameter(value)
        assert build_optimizer(get_cfg(), model).defaults["fused"]
