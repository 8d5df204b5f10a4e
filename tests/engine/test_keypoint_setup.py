import json
from collections.abc import Callable
from pathlib import Path

import pytest

from panomask.config import CfgNode, get_cfg
from panomask.data import MetadataCatalog
from panomask.engine import register_datasets
from panomask.engine.keypoint_setup import (
    NUM_KEYPOINTS_KEY,
    TrainedKeypoints,
    check_oks_sigmas,
    describe_mirroring,
    match_keypoints,
    settle_keypoints,
)
from panomask.errors import InputError

NAMES = ["nose", "left_eye", "right_eye"]


@pytest.fixture
def build(tmp_path: Path, forgotten: list[str]) -> Callable[..., CfgNode]:
    """A config with data sets of one category each; the keywords are its fields, DATASETS.TEST names them."""

    def make(*opts, **categories: dict) -> CfgNode:
        cfg = get_cfg()
        for name, category in categories.items():
            path = tmp_path / f"{name}.json"
            content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a", **category}]}
            path.write_text(json.dumps(content))
            key = f"DATASETS.REGISTER.{name}"
            cfg.merge_from_list([f"{key}.ANNOTATIONS", str(path), f"{key}.IMAGES", str(tmp_path)])
        forgotten.extend(categories)
        cfg.merge_from_list(["DATASETS.TEST", tuple(categories), "MODEL.KEYPOINT_ON", True, *opts])
        register_datasets(cfg)
        return cfg

    return make


def test_the_number_comes_from_the_data(build):
    cfg = build(kp_a={"keypoints": NAMES})
    (note,) = match_keypoints(cfg, ["kp_a"])
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 3
    assert note == f"{NUM_KEYPOINTS_KEY} is 3: the keypoints of data set kp_a"
    assert match_keypoints(cfg, ["kp_a"]) == []


def test_a_stated_number_that_disagrees_names_both(build):
    cfg = build(NUM_KEYPOINTS_KEY, 17, kp_a={"keypoints": NAMES})
    with pytest.raises(InputError, match=rf"{NUM_KEYPOINTS_KEY} is 17, but data set kp_a has 3 keypoints"):
        match_keypoints(cfg, ["kp_a"])


def test_models_without_keypoints_are_left_alone(build):
    cfg = build("MODEL.KEYPOINT_ON", False, kp_a={})
    assert match_keypoints(cfg, ["kp_a"]) == []
    check_oks_sigmas(cfg)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 17


def test_data_without_keypoints_are_refused(build):
    with pytest.raises(InputError, match=r"kp_a' declares no keypoints .*kp_a\.json"):
        match_keypoints(build(kp_a={}), ["kp_a"])
    with pytest.raises(InputError, match="'kp_a' and 'kp_b' differ in keypoint_names"):
        match_keypoints(build(kp_a={"keypoints": NAMES}, kp_b={"keypoints": NAMES[::-1]}), ["kp_a", "kp_b"])
    with pytest.raises(InputError, match="not registered"):
        match_keypoints(build(), ["kp_nowhere"])


def test_sigmas_must_be_known_where_the_data_are_scored(build):
    data = {"kp_a": {"keypoints": NAMES}}
    cfg = build(**data)
    with pytest.raises(InputError, match=r"kp_a: no OKS sigmas .* TEST\.KEYPOINT_OKS_SIGMAS to 3 numbers"):
        check_oks_sigmas(cfg)
    check_oks_sigmas(build("TEST.KEYPOINT_OKS_SIGMAS", [0.1, 0.1, 0.1], **data))
    check_oks_sigmas(build("DATASETS.TEST", (), "DATASETS.TRAIN", ("kp_a",), **data))
    check_oks_sigmas(build(kp_b={"keypoints": NAMES, "sigmas": [0.1, 0.1, 0.1]}))
    with pytest.raises(InputError, match="has 2 numbers, but data set kp_a has 3 keypoints"):
        check_oks_sigmas(build("TEST.KEYPOINT_OKS_SIGMAS", [0.1, 0.1], **data))


def test_sigmas_matter_to_coco_s_rules_alone(build):
    cfg = build(kp_a={"keypoints": NAMES})
    MetadataCatalog.get("kp_a").__dict__["evaluator_type"] = "of_my_own"
    check_oks_sigmas(cfg)


def test_pairs_and_sigmas_of_the_registration(build):
    key = "DATASETS.REGISTER.kp_a"
    cfg = build(kp_a={"keypoints": ["a", "b", "c"]})
    cfg.merge_from_list([f"{key}.KEYPOINT_FLIP_PAIRS", [["a", "c"]], f"{key}.KEYPOINT_SIGMAS", [1, 2.0, 3.0]])
    register_datasets(cfg)  # again, as it has changed
    register_datasets(cfg)
    check_oks_sigmas(cfg)
    metadata = MetadataCatalog.get("kp_a")
    assert metadata.keypoint_flip_map == [("a", "c")]
    assert metadata.keypoint_oks_sigmas == [1, 2, 3]


def test_what_a_mirror_swaps_is_said_before_training(build):
    cfg = build("DATASETS.TRAIN", ("kp_a",), kp_a={"keypoints": [*NAMES, "left_foot"]})
    swaps, unpaired = describe_mirroring(cfg)
    assert swaps == "Keypoints that swap in a mirrored image: left_eye and right_eye"
    assert "left_foot" in unpaired
    cfg.INPUT.RANDOM_FLIP = "none"
    assert describe_mirroring(cfg) == []


def test_a_resumed_run_has_the_keypoints_of_the_checkpoint(build):
    build(kp_a={"keypoints": NAMES, "skeleton": [[1, 2]]}, kp_b={"keypoints": NAMES[:2]})
    state = TrainedKeypoints("kp_a").state_dict()
    TrainedKeypoints("kp_a").load_state_dict(state)
    assert state["keypoint_connection_rules"][0][:2] == ("nose", "left_eye")
    with pytest.raises(InputError, match="was trained on the keypoints nose, left_eye, right_eye"):
        TrainedKeypoints("kp_b").load_state_dict(state)


def test_prediction_takes_the_keypoints_of_the_checkpoint_or_else_of_the_data(build):
    cfg = build(kp_a={"keypoints": NAMES})
    trained = {"keypoint_names": ["x", "y"], "keypoint_flip_map": [], "keypoint_connection_rules": []}
    assert settle_keypoints(cfg.clone(), None)["keypoint_names"] == NAMES
    assert settle_keypoints(cfg, trained) == trained
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 2
    cfg.merge_from_list([NUM_KEYPOINTS_KEY, 5])
    assert settle_keypoints(cfg, trained) == trained
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 5  # the weights will say that they do not fit
    cfg.MODEL.KEYPOINT_ON = False
    assert settle_keypoints(cfg, trained) == {}
