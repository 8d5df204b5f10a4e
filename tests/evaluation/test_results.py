import logging

import numpy as np
import pytest

from panomask.evaluation import flatten_results_dict, print_csv_format, results_table, unmet_expectations
from panomask.evaluation.results import mean_measured

NAN = float("nan")
RESULTS = {
    "bbox": {"AP": 41.25, "AP50": 60.0, "AP-cat": 50.0, "AP-traffic-light": 32.5},
    "segm": {"AP": 38.0, "AP50": NAN, "AP-cat": NAN, "AP-traffic-light": 38.0},
}


def test_mean_of_what_was_measured():
    assert mean_measured(np.array([[1.0, NAN], [4.0, NAN]])) == 2.5
    assert np.isnan(mean_measured(np.array([NAN])))
    assert np.isnan(mean_measured(np.zeros(0)))


def test_flatten_results_dict():
    assert flatten_results_dict({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert flatten_results_dict({}) == {}


def test_print_csv_format_leaves_out_the_classes(caplog):
    with caplog.at_level(logging.INFO, logger="panomask.evaluation.results"):
        print_csv_format({"bbox": RESULTS["bbox"], "seconds": 3})
    assert [record.getMessage() for record in caplog.records] == [
        "bbox\nAP,AP50\n41.2500,60.0000",
        "seconds\nseconds\n3",
    ]


def test_results_table_has_tasks_and_classes():
    assert results_table(RESULTS).splitlines() == [
        "| task   |    AP |   AP50 |",
        "|:-------|------:|-------:|",
        "| bbox   | 41.25 |  60.00 |",
        "| segm   | 38.00 |      - |",
        "",
        "| class         |   bbox AP |   segm AP |",
        "|:--------------|----------:|----------:|",
        "| cat           |     50.00 |         - |",
        "| traffic-light |     32.50 |     38.00 |",
    ]


def test_results_table_has_every_metric_of_a_class_and_one_table_for_tasks_that_share_metrics():
    results = {
        "panoptic_seg": {"PQ": 40.0, "PQ-cat": 50.0, "SQ-cat": 80.0, "PQ-wall-wood": 30.0},
        "sem_seg": {"mIoU": 60.0, "IoU-things": 70.0, "min(IoU, B-Iou)-wall-wood": 20.0},
        "bbox": {"AP": 41.25},
        "segm": {"AP": 38.0, "APs": 10.0, "AP-cat": 38.0},
    }
    assert results_table(results).splitlines() == [
        "| task         |    PQ |",
        "|:-------------|------:|",
        "| panoptic_seg | 40.00 |",
        "",
        "| task    |   mIoU |",
        "|:--------|-------:|",
        "| sem_seg |  60.00 |",
        "",
        "| task   |    AP |   APs |",
        "|:-------|------:|------:|",
        "| bbox   | 41.25 |     - |",
        "| segm   | 38.00 | 10.00 |",
        "",
        "| class     |   panoptic_seg PQ |   panoptic_seg SQ |   sem_seg IoU |   sem_seg min(IoU, B-Iou) "
        "|   segm AP |",
        "|:----------|------------------:|------------------:|--------------:|--------------------------:"
        "|----------:|",
        "| cat       |             50.00 |             80.00 |             - |                         - "
        "|     38.00 |",
        "| wall-wood |             30.00 |                 - |             - |                     20.00 "
        "|         - |",
        "| things    |                 - |                 - |         70.00 |                         - "
        "|         - |",
    ]


def test_results_table_of_several_data_sets_and_of_none():
    table = results_table({"val_a": {"bbox": {"AP": 1.0}}, "val_b": {"bbox": {"AP": 2.0}}})
    assert table.index("val_a") < table.index("1.00") < table.index("val_b") < table.index("2.00")
    assert results_table({}) == "(no results)"
    assert results_table({"bbox": {}}) == "(no results)"


def test_class_names_of_any_kind_stay_in_their_row():
    table = results_table({"bbox": {"AP": 1.0, "AP-a|b": 2.0, "AP-new\n line": 3.0}})
    assert [line.split(" |")[0].strip("| ") for line in table.splitlines()[-2:]] == ["a/b", "new line"]


def test_results_table_of_numbers_without_a_task():
    assert results_table({"seconds": 2.5}).splitlines()[-1].split() == ["|", "seconds", "|", "2.50", "|"]
    both = results_table({"bbox": {"AP": 1.0}, "seconds": 2.5})
    assert both.index("1.00") < both.index("2.50")


@pytest.mark.parametrize(
    "entry, is_met",
    [
        (["bbox", "AP", 41.0, 0.3], True),
        (["bbox", "AP", 41.0, 0.2], False),
        (["segm", "AP50", 41.0, 100.0], False),  # NaN
        (["segm", "AP75", 41.0, 100.0], False),  # absent metric
        (["keypoints", "AP", 41.0, 100.0], False),  # absent task
    ],
)
def test_unmet_expectations(entry, is_met):
    misses = unmet_expectations([entry], RESULTS)
    assert len(misses) == (not is_met)
    assert all(f"{entry[0]}/{entry[1]}" in line for line in misses)
