import pytest

from panomask.ablation.metric_names import metric_headings, only_data_set


@pytest.mark.parametrize(
    "metric, heading",
    [
        ("segm/AP", "mask AP"),
        ("segm/AP50", "mask AP50"),
        ("bbox/AP", "box AP"),
        ("keypoints/AP", "keypoint AP"),
        ("panoptic_seg/PQ", "PQ"),
        ("panoptic_seg/PQ_th", "PQ things"),
        ("panoptic_seg/SQ_st", "SQ stuff"),
        ("sem_seg/mIoU", "mIoU"),
        ("shapes_val/segm/AP75", "mask AP75"),
        ("segm/AP-wall/wood", "mask AP-wall/wood"),
        ("own_task/score", "own_task score"),
        ("score", "score"),
    ],
)
def test_short_headings(metric: str, heading: str):
    assert metric_headings([metric]) == (heading,)


def test_several_data_sets_are_told_apart():
    metrics = ["a_val/segm/AP", "b_val/segm/AP"]
    assert metric_headings(metrics) == ("mask AP (a_val)", "mask AP (b_val)")
    assert only_data_set(metrics) == ""
    assert only_data_set(metrics[:1]) == "a_val"
    assert only_data_set(["segm/AP", "bbox/AP"]) == ""


def test_alike_short_forms_give_way_to_full_names():
    assert metric_headings(["sem_seg/x", "panoptic_seg/x", "bbox/AP"]) == (
        "sem_seg/x",
        "panoptic_seg/x",
        "box AP",
    )
