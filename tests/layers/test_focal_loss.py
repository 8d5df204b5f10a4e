import math
import weakref

import pytest
import torch
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import ops

from panomask.layers import focal_loss, sigmoid_focal_loss


def reference(logits, gt_classes, alpha, gamma):
    """torchvision's, with targets of the size of the logits."""
    num_classes = logits.shape[1]
    targets = one_hot(gt_classes.clamp(min=0), num_classes + 1)[:, :-1].to(logits)
    loss = ops.sigmoid_focal_loss(logits, targets, alpha, gamma)
    return (loss * (gt_classes >= 0)[:, None]).sum()


def test_by_hand():
    # The scores are 3/4 and 1/2; the object is of the first class.
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, torch.tensor([0]), alpha=0.25, gamma=2.0)
    expected = -0.25 * (1 / 4) ** 2 * math.log(3 / 4) - 0.75 * (1 / 2) ** 2 * math.log(1 / 2)
    torch.testing.assert_close(loss.item(), expected)
    background = sigmoid_focal_loss(logits, torch.tensor([2]), alpha=0.25, gamma=2.0)
    expected = -0.75 * (3 / 4) ** 2 * math.log(1 / 4) - 0.75 * (1 / 2) ** 2 * math.log(1 / 2)
    torch.testing.assert_close(background.item(), expected)
    assert sigmoid_focal_loss(logits, torch.tensor([-1]), alpha=0.25, gamma=2.0) == 0


def test_without_weights_and_focus_it_is_the_cross_entropy():
    logits = torch.tensor([[1.0, -2.0]])
    loss = sigmoid_focal_loss(logits, torch.tensor([1]), alpha=-1, gamma=0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor([[0.0, 1.0]]), reduction="sum"
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("alpha", [-1, 0, 0.25, 1])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.5])
def test_value_and_gradient_are_torchvisions(monkeypatch, alpha, gamma):
    monkeypatch.setitem(focal_loss.CHUNK_SIZES, "cpu", 40)  # several chunks, the last one smaller
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(50, 7, dtype=torch.float64, generator=generator)
    gt_classes = torch.randint(-1, 8, (50,), generator=generator)
    found, expected = (
        torch.autograd.functional.vjp(lambda x, f=f: f(x, gt_classes, alpha, gamma), logits)
        for f in (sigmoid_focal_loss, reference)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_gradient_by_differences():
    logits = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
    gt_classes = torch.tensor([0, 3, -1, 2])
    assert torch.autograd.gradcheck(lambda x: 3 * sigmoid_focal_loss(x, gt_classes, 0.25, 1.5), logits)


def test_confident_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [-30.0, 30.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 0, 2]), 0.25, 2.0)
    loss.backward()
    # Wrong by 200 as an object, by 200 as background of another class, and by 30 as background.
    torch.testing.assert_close(loss.item(), 0.25 * 200 + 0.75 * 200 + 0.75 * 30)
    expected = torch.tensor([[0, 0], [-0.25, 0.75], [0, 0.75]])
    torch.testing.assert_close(logits.grad, expected)


def test_what_is_ignored_may_be_anything():
    logits = torch.tensor([[math.inf, math.nan], [0.0, 0.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([-1, 2]), 0.25, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(2 * 0.75 * 0.25 * math.log(2))
    assert logits.grad[0].tolist() == [0, 0]


def test_nothing_gives_zero_on_the_graph():
    logits = torch.zeros(0, 80, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.int64), 0.25, 2.0)
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 80)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    """100,000 losses of 1.3e-4 each: in half precision the sum would stop growing."""
    logits = torch.full((100_000, 4), -4.0, dtype=dtype, requires_grad=True)
    gt_classes = torch.full((100_000,), 4)
    loss = sigmoid_focal_loss(logits, gt_classes, 0.25, 2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, reference(logits.float(), gt_classes, 0.25, 2.0))
    loss.backward()
    assert logits.grad.dtype == dtype
    assert (logits.grad != 0).all()
    exact = logits.detach().float().requires_grad_()
    reference(exact, gt_classes, 0.25, 2.0).backward()
    torch.testing.assert_close(logits.grad, exact.grad.to(dtype), rtol=0, atol=0)  # rounded once, at the end


class AllocatedBytes(TorchDispatchMode):
    """The most bytes that tensors made inside held at once; views of older ones are not counted."""

    def __init__(self, *older: torch.Tensor):
        super().__init__()
        self.now = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in older}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size


def peak_over_logits(loss_function) -> tuple[float, float]:
    """Of forward and backward pass, the bytes that are allocated on top of the logits, in sizes of these."""
    logits = torch.full((200_000, 80), -5.0, requires_grad=True)
    gt_classes = torch.full((200_000,), 80)
    size = logits.untyped_storage().nbytes()
    with AllocatedBytes(logits, gt_classes) as forward:
        loss = loss_function(logits, gt_classes, 0.25, 2.0)
    with AllocatedBytes(logits, gt_classes, loss) as backward:
        loss.backward()
    return forward.most / size, backward.most / size


def test_memory_is_that_of_the_gradient():
    """Of 200,000 anchors and 80 classes, all background: the logits and a tenth, the gradient included."""
    forward, backward = peak_over_logits(sigmoid_focal_loss)
    assert forward < 0.1
    assert backward < 1.1
    others_forward, _ = peak_over_logits(reference)
    assert others_forward > 5  # it is seen where it is taken
