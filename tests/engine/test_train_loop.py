import pytest
import torch
from torch import nn

from panomask.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase


class Line(nn.Module):
    """A 'model' of one layer whose losses are the two halves of the squared error."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        nn.init.ones_(self.layer.weight)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = self.layer(batch).square().mean()
        return {"loss_a": error / 2, "loss_b": error / 2}


def build(trainer_type=SimpleTrainer, batches=None, **kwargs) -> SimpleTrainer:
    model = Line()
    batches = [torch.tensor([[1.0, 0.0]])] * 10 if batches is None else batches
    return trainer_type(model, batches, torch.optim.SGD(model.parameters(), lr=0.25), **kwargs)


class Recorder(HookBase):
    def __init__(self):
        self.calls: list[str] = []

    def before_train(self):
        self.calls.append(f"before_train {self.trainer.iter}")

    def before_step(self):
        self.calls.append(f"before_step {self.trainer.iter}")

    def after_backward(self):
        self.calls.append("after_backward")

    def after_step(self):
        self.calls.append(f"after_step {self.trainer.storage.iter}")

    def after_train(self):
        self.calls.append(f"after_train {self.trainer.iter}")


def test_a_step_follows_the_gradient():
    trainer = build()
    trainer.train(0, 1)
    # loss w^2 at w = 1: gradient 2, step 0.25 * 2
    assert trainer.model.layer.weight.tolist() == [[0.5, 1.0]]
    storage = trainer.storage
    assert storage.latest()["total_loss"] == (1.0, 0)
    assert storage.latest()["loss_a"] == (0.5, 0)
    assert storage.latest()["data_time"][0] >= 0


@pytest.mark.parametrize("zero_grad_before_forward", [False, True])
def test_gradients_do_not_pile_up(zero_grad_before_forward):
    trainer = build(zero_grad_before_forward=zero_grad_before_forward)
    trainer.train(0, 3)
    assert trainer.model.layer.weight[0, 0].item() == 0.125


def test_order_of_hooks():
    trainer, recorder = build(), Recorder()
    trainer.register_hooks([None, recorder])
    trainer.train(4, 6)
    assert recorder.calls == [
        "before_train 4",
        *("before_step 4", "after_backward", "after_step 4"),
        *("before_step 5", "after_backward", "after_step 5"),
        "after_train 6",
    ]
    with pytest.raises(TypeError, match="HookBase"):
        trainer.register_hooks([3])


def test_after_train_is_called_after_an_error_and_tells_it():
    trainer, recorder = build(batches=[torch.ones(1, 2)]), Recorder()
    trainer.register_hooks([recorder])
    with pytest.raises(StopIteration):
        trainer.train(0, 5)
    assert recorder.calls[-1] == "after_train 1"


def test_nothing_left_to_train():
    trainer, recorder = build(), Recorder()
    trainer.register_hooks([recorder])
    trainer.train(5, 5)
    assert recorder.calls == ["before_train 5", "after_train 5"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    trainer = build(batches=[torch.ones(1, 2), torch.full((1, 2), float("inf"))])
    trainer.train(0, 1)
    before = trainer.model.layer.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=r"iteration 1 is not finite \(loss_a nan.*BASE_LR"):
        trainer.train(1, 2)
    assert torch.equal(trainer.model.layer.weight, before)


def test_the_error_of_a_late_check_names_the_first_bad_iteration():
    trainer = build()
    trainer.train(0, 3)
    with (
        trainer.storage,
        pytest.raises(FloatingPointError, match=r"iteration 1 is not finite \(loss_a 0.125"),
    ):
        trainer._raise_for_iteration(1, ["loss_a", "loss_b"])


def test_a_single_loss_is_a_total_loss():
    model = nn.Linear(1, 1)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, batch):
            return self.inner(batch).sum()

    trainer = SimpleTrainer(Wrapped(), [torch.ones(1, 1)], torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.train(0, 1)
    assert set(trainer.storage.latest()) == {"total_loss", "data_time"}


def test_evaluation_mode_is_refused():
    trainer = build()
    trainer.model.eval()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        trainer.train(0, 1)


def test_state_round_trip():
    trainer = build()
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.25, momentum=0.9)
    trainer.train(0, 2)
    state = trainer.state_dict()
    other = build()
    other.optimizer = torch.optim.SGD(other.model.parameters(), lr=0.1, momentum=0.5)
    other.load_state_dict(state)
    assert other.iter == trainer.iter == 2
    assert other.optimizer.param_groups[0]["momentum"] == 0.9


def test_hooks_with_a_state():
    class Counter(HookBase):
        count = 0

        def after_step(self):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state_dict):
            self.count = state_dict["count"]

    trainer, counter = build(), Counter()
    trainer.register_hooks([counter, Recorder()])
    trainer.train(0, 3)
    other, other_counter = build(), Counter()
    other.register_hooks([other_counter])
    TrainerBase.load_state_dict(other, TrainerBase.state_dict(trainer))
    assert other_counter.count == 3


def test_reset_data_loader():
    trainer = build()
    trainer.train(0, 1)
    trainer.reset_data_loader(lambda: [torch.zeros(1, 2)])
    trainer.train(1, 2)
    assert trainer.storage.latest()["total_loss"][0] == 0


def test_mixed_precision_on_the_cpu_is_bfloat16_without_scaling():
    seen = []

    class Spy(Line):
        def forward(self, batch):
            seen.append(self.layer(batch).dtype)
            return super().forward(batch)

    model = Spy()
    trainer = AMPTrainer(model, [torch.tensor([[1.0, 0.0]])], torch.optim.SGD(model.parameters(), lr=0.25))
    trainer.train(0, 1)
    assert seen == [torch.bfloat16]
    assert model.layer.weight.dtype == torch.float32
    assert model.layer.weight.tolist() == [[0.5, 1.0]]
    assert not trainer.grad_scaler.is_enabled()


def test_metrics_of_research_code_that_overrides_the_step():
    class Custom(SimpleTrainer):
        def run_step(self):
            losses = self.model(next(self._data_loader_iter))
            self._write_metrics(losses, 0.1, prefix="x/")

    model = Line()
    trainer = Custom(model, [torch.ones(1, 2)], torch.optim.SGD(model.parameters(), lr=0.25))
    trainer.train(0, 1)
    assert {name for name in trainer.storage.latest()} == {
        "data_time",
        "x/loss_a",
        "x/loss_b",
        "x/total_loss",
    }
    with pytest.raises(FloatingPointError):
        Custom.write_metrics({"loss": torch.tensor(float("nan"))}, 0.1, 3)
