import math

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from panomask.checkpoint import Checkpointer
from panomask.engine import EventWriter, SimpleTrainer, hooks
from panomask.engine.train_loop import HookBase


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1, momentum=0.5)

    def forward(self, batch):
        return {"loss": self.norm(self.layer(batch)).sum()}


def train(hook_list, start: int = 0, stop: int = 6) -> SimpleTrainer:
    model = Model()
    batches = [torch.tensor([[1.0], [2.0]])] * 20
    trainer = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks(hook_list(trainer) if callable(hook_list) else hook_list)
    trainer.train(start, stop)
    return trainer


class Log(EventWriter):
    def __init__(self):
        self.calls: list = []

    def write(self):
        from panomask.event_storage import get_event_storage

        self.calls.append(get_event_storage().iter)

    def close(self):
        self.calls.append("closed")


def test_callback_hook():
    calls = []

    def note(trainer):
        calls.append(trainer.iter)

    train([hooks.CallbackHook(before_train=note, after_step=note)])
    assert calls == [0, 0, 1, 2, 3, 4, 5]


def test_periodic_writer_writes_in_the_last_iteration_and_after_training():
    log = Log()
    train([hooks.PeriodicWriter([log], period=4)])
    assert log.calls == [3, 5, 6, "closed"]
    with pytest.raises(TypeError, match="EventWriter"):
        hooks.PeriodicWriter([3])


def test_iteration_timer_leaves_out_the_warm_up():
    trainer = train([hooks.IterationTimer(warmup_iter=2)])
    assert [iteration for _, iteration in trainer.storage.history("time").values()] == [2, 3, 4, 5]
    train([hooks.IterationTimer()], start=6)  # no iteration at all is fine


def test_lr_scheduler_records_the_rate_that_was_used():
    trainer = train([hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))])
    rates = [rate for rate, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([0.1 * (1 - i / 6) for i in range(6)])


def test_the_group_that_stands_for_all():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(4)]
    by_size = torch.optim.SGD([{"params": weights[:1], "lr": 1}, {"params": weights[1:], "lr": 2}], lr=0)
    assert hooks.LRScheduler.get_best_param_group_id(by_size) == 1
    single = torch.optim.SGD(
        [{"params": [w], "lr": lr} for w, lr in zip(weights, (1, 2, 2, 3), strict=True)], lr=0
    )
    assert hooks.LRScheduler.get_best_param_group_id(single) == 1


def test_eval_hook_runs_on_time_and_records_flat_numbers():
    calls = []

    def evaluate():
        calls.append(torch.rand(1))  # draws a number, which must not show in training
        return {"bbox": {"AP": 10.0 * len(calls), "AP-x": float("nan")}}

    trainer = train([hooks.EvalHook(2, evaluate)])
    values = trainer.storage.history("bbox/AP").values()
    assert values == [(10.0, 1), (20.0, 3), (30.0, 6)]  # the last one after training, once
    assert math.isnan(trainer.storage.latest()["bbox/AP-x"][0])


def test_evaluation_leaves_no_trace_in_the_random_numbers():
    class Draw(HookBase):
        def after_step(self):
            drawn.append(torch.rand(1).item())

    def run(evaluate):
        drawn.clear()
        torch.manual_seed(0)
        train([hooks.EvalHook(1, evaluate), Draw()])
        return list(drawn)

    drawn: list[float] = []
    assert run(lambda: {"x": torch.rand(7).sum().item()}) == run(lambda: None)


@pytest.mark.parametrize("result, error", [(3, TypeError), ({"a": "high"}, ValueError)])
def test_eval_hook_refuses_what_is_no_number(result, error):
    with pytest.raises(error):
        train([hooks.EvalHook(0, lambda: result)])


def test_evaluation_after_an_error_is_skipped():
    calls = []

    def fail(trainer):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        train([hooks.EvalHook(0, lambda: calls.append(1)), hooks.CallbackHook(after_step=fail)])
    assert calls == []


def test_best_checkpointer_keeps_the_best_and_remembers_it(tmp_path):
    scores = iter([0.5, 0.9, 0.7])

    def hook_list(trainer):
        checkpointer = Checkpointer(trainer.model, str(tmp_path))
        return [
            hooks.EvalHook(2, lambda: {"AP": next(scores)}),
            hooks.BestCheckpointer(2, checkpointer, "AP"),
        ]

    trainer = train(hook_list)
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert best["iteration"] == 3
    assert trainer.hook_states() == {"BestCheckpointer": {"best_metric": 0.9, "best_iter": 3}}
    with pytest.raises(ValueError, match="allowed"):
        hooks.BestCheckpointer(1, Checkpointer(trainer.model), "AP", mode="best")


def test_periodic_checkpointer_gathers_before_it_saves(tmp_path):
    class Gathered:
        calls = 0

        def before_save(self):
            self.calls += 1

        def state_dict(self):
            return {"calls": self.calls}

    def hook_list(trainer):
        return [hooks.PeriodicCheckpointer(Checkpointer(trainer.model, str(tmp_path), extra=Gathered()), 4)]

    train(hook_list)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["model_0000003.pth", "model_final.pth"]
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert (final["iteration"], final["extra"]) == (5, {"calls": 2})


def test_precise_bn_averages_over_whole_batches():
    loader = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])]

    def hook_list(trainer):
        with torch.no_grad():
            trainer.model.layer.weight.fill_(1)
            trainer.model.layer.bias.zero_()
        for parameter in trainer.model.parameters():
            parameter.requires_grad_(parameter is trainer.model.norm.bias)
        return [hooks.PreciseBN(3, trainer.model, loader, 2)]

    trainer = train(hook_list)
    assert trainer.model.norm.running_mean.item() == pytest.approx(3.0)  # the mean of 1 and 5


def test_progress_bar_is_silent_without_a_terminal(capfd):
    train([hooks.ProgressBar()])
    assert capfd.readouterr().err == ""


def test_progress_bar_does_not_hide_why_training_did_not_start():
    class Broken(HookBase):
        def before_train(self):
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        train([Broken(), hooks.ProgressBar()])
