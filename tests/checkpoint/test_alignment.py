import pytest
import torch

from panomask.checkpoint.alignment import align_and_update_state_dicts, match_by_suffix
from panomask.errors import InputError


def test_the_longest_ending_wins():
    model = ["backbone.bottom_up.res2.0.conv1.weight", "head.conv1.weight", "stem.conv1.weight", "head.bias"]
    keys = ["res2.0.conv1.weight", "head.conv1.weight", "conv1.weight", "conv.weight"]
    assert match_by_suffix(model, keys) == {
        "res2.0.conv1.weight": "backbone.bottom_up.res2.0.conv1.weight",
        "head.conv1.weight": "head.conv1.weight",
        "conv1.weight": "stem.conv1.weight",
    }


def test_endings_are_whole_parts_and_say_something():
    model = ["body.0.weight", "body.myconv.weight", "weight"]
    assert match_by_suffix(model, ["0.weight", "conv.weight", "weight"]) == {"weight": "weight"}
    assert match_by_suffix([], ["a.weight"]) == match_by_suffix(model, []) == {}


def test_one_weight_for_two_places_is_refused():
    with pytest.raises(InputError, match=r"'fc.weight' belongs to .*'a.fc.weight' and 'b.fc.weight'"):
        match_by_suffix(["a.fc.weight", "b.fc.weight"], ["fc.weight"])


def test_state_dicts_of_caffe2_get_the_names_of_a_model():
    model = {
        "backbone.bottom_up.stem.conv1.weight": torch.zeros(2),
        "roi_heads.box_predictor.cls_score.weight": torch.zeros(3, 1),
        "roi_heads.box_predictor.bbox_pred.weight": torch.zeros(8, 1),
    }
    blobs = {
        "conv1_w": torch.ones(2),
        "cls_score_w": torch.arange(3.0)[:, None],
        "bbox_pred_w": torch.ones(20, 1),
    }
    aligned = align_and_update_state_dicts(model, {**blobs, "lr": torch.ones(1)})
    assert aligned["backbone.bottom_up.stem.conv1.weight"] is blobs["conv1_w"]
    assert aligned["roi_heads.box_predictor.cls_score.weight"].flatten().tolist() == [1, 2, 0]
    assert aligned["bbox_pred.weight"].shape == (16, 1)  # does not fit, and keeps its name
    assert len(aligned) == 4
    plain = align_and_update_state_dicts(model, {"stem.conv1.weight": torch.ones(2)}, c2_conversion=False)
    assert list(plain) == ["backbone.bottom_up.stem.conv1.weight"]
