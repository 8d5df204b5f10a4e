import logging

import pytest
import torch
from torch import nn

from panomask.data import MetadataCatalog
from panomask.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
    inference_context,
    inference_on_dataset,
)


class Recorder(DatasetEvaluator):
    """Counts what it is given and reports it under its task."""

    def __init__(self, task: str = "count") -> None:
        self.task = task
        self.images = -1

    def reset(self) -> None:
        self.images = 0

    def process(self, inputs, outputs) -> None:
        assert len(inputs) == len(outputs)
        self.images += len(inputs)

    def evaluate(self):
        return {self.task: {"images": self.images}}


class Echo(nn.Module):
    """Returns one output an input and remembers in which mode it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, batch):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return [{"echo": item} for item in batch]


BATCHES = [[1, 2], [3, 4], [5]]


def test_inference_context_restores_every_submodule():
    model = Echo().train()
    model.inner[0].eval()  # a frozen part stays frozen
    with inference_context(model):
        assert not any(module.training for module in model.modules())
    assert model.training
    assert model.inner[1].training
    assert not model.inner[0].training


def test_inference_context_restores_after_an_error():
    model = Echo().train()
    with pytest.raises(RuntimeError, match="boom"), inference_context(model):
        raise RuntimeError("boom")
    assert model.training


def test_inference_on_dataset_counts_images_in_evaluation_mode_without_gradients():
    model = Echo().train()
    results = inference_on_dataset(model, BATCHES, Recorder())
    assert results == {"count": {"images": 5}}
    assert model.seen == [(False, False)] * 3
    assert model.training
    assert torch.is_grad_enabled()


def test_inference_on_dataset_takes_none_a_list_a_function_and_a_generator():
    assert inference_on_dataset(Echo(), BATCHES, None) == {}
    both = inference_on_dataset(lambda batch: batch, iter(BATCHES), [Recorder("a"), Recorder("b")])
    assert both == {"a": {"images": 5}, "b": {"images": 5}}
    assert inference_on_dataset(Echo(), [], Recorder()) == {"count": {"images": 0}}


def test_callbacks_come_in_order():
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    inference_on_dataset(
        Echo(), [[1], [2]], None, {name: lambda name=name: calls.append(name) for name in names}
    )
    step = ["before_inference", "after_inference"]
    assert calls == ["on_start", *step, *step, "on_end"]


def test_progress_lines_show_speed_and_time_left(caplog, monkeypatch):
    monkeypatch.setattr("panomask.evaluation.evaluator.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, logger="panomask.evaluation.evaluator"):
        inference_on_dataset(Echo(), [[0]] * 8, None)
        inference_on_dataset(Echo(), iter([[0]] * 6), None)
    progress = [line for line in caplog.messages if "batch" in line]
    assert [line.partition("  seconds")[0] for line in progress] == [  # the first five batches warm up
        *(f"eta: 0:00:00  batch {seen}/8" for seen in (6, 7, 8)),
        "batch 6",
    ]
    assert sum("over 3 images" in line for line in caplog.messages) == 1


def test_the_results_are_logged_as_one_table(caplog):
    with caplog.at_level(logging.INFO, logger="panomask.evaluation.evaluator"):
        inference_on_dataset(Echo(), BATCHES, Recorder())
    assert len(caplog.messages) == 2  # the speed, the table
    assert caplog.messages[-1].startswith("Results:\n| task")


def test_two_evaluators_must_not_report_the_same_task():
    evaluators = DatasetEvaluators([Recorder("bbox"), Recorder("bbox")])
    evaluators.reset()
    with pytest.raises(ValueError, match="'bbox'"):
        evaluators.evaluate()


def test_evaluators_skip_those_that_report_nothing():
    assert DatasetEvaluators([DatasetEvaluator(), Recorder()]).evaluate() == {"count": {"images": -1}}


@pytest.mark.parametrize(
    "base",
    [
        CityscapesInstanceEvaluator,
        CityscapesSemSegEvaluator,
        COCOEvaluator,
        COCOPanopticEvaluator,
        PascalVOCDetectionEvaluator,
        SemSegEvaluator,
    ],
)
def test_reset_of_a_subclass_is_not_called_before_it_is_constructed(base):
    """As in Detectron2, where no constructor calls it."""
    name = "evaluated_by_a_subclass"
    MetadataCatalog.get(name).set(
        **{"dirname": "voc", "split": "val", "year": 2012, "gt_dir": "gt", "json_file": "truth.json"},
        **{"thing_classes": ["cat"], "stuff_classes": ["things"]},
        thing_dataset_id_to_contiguous_id={1: 0},
    )

    class Own(base):
        def __init__(self, dataset_name):
            super().__init__(dataset_name)
            self.start = 3

        def reset(self):
            super().reset()
            self.count = self.start

    try:
        evaluator = Own(name)
    finally:
        MetadataCatalog.remove(name)
    evaluator.reset()
    assert evaluator.count == 3
