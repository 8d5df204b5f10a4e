import json
import logging

import pytest
import torch

from panomask.engine import CommonMetricPrinter, JSONWriter, TensorboardXWriter
from panomask.engine.writers import default_writers, rewind_metrics
from panomask.event_storage import EventStorage


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_writer_writes_each_value_once_under_its_iteration(tmp_path):
    writer = JSONWriter(tmp_path / "metrics.json", window_size=2)
    with EventStorage() as storage:
        for value in (1.0, 3.0):
            storage.put_scalar("loss", value)
            storage.step()
        storage.put_scalar("AP", float("nan"), smoothing_hint=False)
        writer.write()
        writer.write()
        storage.step()
        storage.put_scalar("loss", 5.0)
        writer.write()
    writer.close()
    assert lines(tmp_path / "metrics.json") == [
        {"iteration": 1, "loss": 2.0},  # the median of 1 and 3
        {"iteration": 2, "AP": None},
        {"iteration": 3, "loss": 5.0},
    ]


def test_rewind_takes_out_what_will_be_run_again(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    rewind_metrics(path, 3)  # no file: nothing to do
    path.write_text('{"iteration": 1}\n{"iteration": 3}\n{"iteration": 2}\n{"iteration": 4, "lo')
    with caplog.at_level(logging.WARNING):
        rewind_metrics(path, 3)
    assert lines(path) == [{"iteration": 1}, {"iteration": 2}]
    assert "dropped a line" in caplog.text


def test_console_line(caplog):
    printer = CommonMetricPrinter(max_iter=100)
    with caplog.at_level(logging.INFO), EventStorage(9) as storage:
        storage.put_scalars(total_loss=1.5, time=2.0, data_time=0.25)
        storage.put_scalar("lr", 0.01, smoothing_hint=False)
        printer.write()
        storage.iter = 100
        printer.write()
    assert len(caplog.messages) == 1
    line = caplog.messages[0]
    assert line.startswith(
        "eta: 0:03:00  iter: 9/100  total_loss: 1.5  time: 2.0000  data_time: 0.2500  lr: 0.01"
    )


def test_console_line_before_anything_is_known(caplog):
    with caplog.at_level(logging.INFO), EventStorage():
        CommonMetricPrinter(max_iter=100).write()
        CommonMetricPrinter().write()
    assert [message.split("  max_mem")[0] for message in caplog.messages] == [
        "eta: N/A  iter: 0/100",
        "iter: 0",
    ]


@pytest.mark.slow
def test_tensorboard_files_hold_scalars_images_and_histograms(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = TensorboardXWriter(str(tmp_path))
    with EventStorage(5) as storage:
        storage.put_scalar("loss", 2.0)
        storage.put_image("picture", torch.zeros(3, 4, 4))
        storage.put_histogram("weights", torch.arange(4.0), bins=4)
        writer.write()
        assert storage.vis_data == storage.histograms == []
    writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 2.0)]
    assert events.Tags()["images"] == ["picture"]
    assert events.Tags()["histograms"] == ["weights"]


def test_default_writers_make_the_folder_and_no_file_yet(tmp_path):
    writers = default_writers(str(tmp_path / "out"), 10)
    assert [type(writer).__name__ for writer in writers] == [
        "CommonMetricPrinter",
        "JSONWriter",
        "TensorboardXWriter",
    ]
    assert list((tmp_path / "out").iterdir()) == []
