import pytest
import torch
from torch import nn

from panomask.layers import Linear
from panomask.layers import linear as linear_module


@pytest.fixture
def always(monkeypatch):
    """Small products go the quick way too."""
    monkeypatch.setattr(linear_module, "MIN_PRODUCTS", 1)


def _both(inputs, outputs, **kwargs):
    torch.manual_seed(0)
    ours, reference = Linear(inputs, outputs, **kwargs), nn.Linear(inputs, outputs, **kwargs)
    reference.load_state_dict(ours.state_dict())
    return ours, reference


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("min_rows", [0, 10**6])
def test_numbers_and_gradients_are_those_of_torch(always, monkeypatch, bias, min_rows):
    monkeypatch.setattr(linear_module, "MIN_ROWS_BACKWARD", min_rows)
    ours, reference = _both(7, 5, bias=bias)
    x = torch.randn(6, 7)
    found = []
    for layer in (ours, reference):
        given = x.clone().requires_grad_()
        out = layer(given)
        out.square().sum().backward()
        found.append([out, given.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
        assert a.shape == b.shape


def test_by_hand(always):
    layer = Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2], [3, 4]]))
        layer.bias.copy_(torch.tensor([10.0, 20]))
    assert layer(torch.tensor([[1.0, 1], [0, 2]])).tolist() == [[13, 27], [14, 28]]


def test_frozen_weights_get_no_gradient(always):
    layer, _ = _both(3, 2)
    layer.weight.requires_grad_(False)
    layer(torch.ones(4, 3)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [4, 4]


@pytest.mark.parametrize("x", [torch.zeros(0, 3), torch.ones(2, 4, 3), torch.ones(3)])
def test_other_shapes(always, x):
    ours, reference = _both(3, 2)
    torch.testing.assert_close(ours(x), reference(x))


def test_large_products_go_the_quick_way(monkeypatch):
    calls = []
    layer, reference = _both(1024, 512)
    apply = linear_module._PixelLinear.apply
    monkeypatch.setattr(linear_module._PixelLinear, "apply", lambda *a: calls.append(1) or apply(*a))
    x = torch.randn(600, 1024)
    torch.testing.assert_close(layer(x), reference(x), atol=1e-4, rtol=1e-4)
    layer(x[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert len(calls) == 1


def test_traced_graph_has_a_plain_product_in_it(always):
    graph = torch.jit.trace(Linear(3, 2), torch.ones(4, 3)).inlined_graph
    assert "aten::linear" in str(graph)


def test_functional_transforms(always):
    """vmap and grad of torch.func go through it."""
    layer, reference = _both(3, 2)
    rows = torch.randn(4, 5, 3)
    torch.testing.assert_close(torch.func.vmap(layer)(rows), reference(rows))
    found, expected = (
        torch.func.grad(lambda x, layer=layer: layer(x).square().sum())(rows[0])
        for layer in (layer, reference)
    )
    torch.testing.assert_close(found, expected)
