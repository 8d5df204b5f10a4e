import argparse
import json

import pytest
import torch

from panomask.config import get_cfg
from panomask.data import MetadataCatalog
from panomask.engine import default_setup, match_num_classes, refuse_overwriting, register_datasets
from panomask.engine.setup import thing_classes_of
from panomask.errors import InputError

KEY = "MODEL.ROI_HEADS.NUM_CLASSES"


@pytest.fixture
def annotations(tmp_path):
    def write(name: str, *classes: str) -> str:
        path = tmp_path / f"{name}.json"
        categories = [{"id": i + 1, "name": c} for i, c in enumerate(classes)]
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
        return str(path)

    return write


@pytest.fixture
def config(tmp_path, forgotten):
    """A config with data sets that are forgotten afterwards."""

    def build(*opts, **data_sets):
        cfg = get_cfg()
        for name, json_file in data_sets.items():
            forgotten.append(name)
            key = f"DATASETS.REGISTER.{name}"
            cfg.merge_from_list([f"{key}.ANNOTATIONS", json_file, f"{key}.IMAGES", str(tmp_path)])
        cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu", *opts])
        register_datasets(cfg)
        return cfg

    return build


def test_data_sets_of_the_config_are_registered_once(config, annotations):
    cfg = config(setup_a=annotations("a", "cat", "dog"))
    register_datasets(cfg)
    assert thing_classes_of("setup_a") == ["cat", "dog"]
    assert MetadataCatalog.get("setup_a").evaluator_type == "coco"
    register_datasets(config(setup_a=annotations("b", "cat")))  # another run in the same process
    assert thing_classes_of("setup_a") == ["cat"]
    with pytest.raises(InputError, match="registered already"):
        config(coco_2017_val=annotations("a", "cat"))


def test_class_count_comes_from_the_data(config, annotations):
    cfg = config(setup_a=annotations("a", "cat", "dog"))
    (note,) = match_num_classes(cfg, ["setup_a"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert KEY in note
    assert "setup_a" in note
    assert match_num_classes(cfg, ["setup_a"]) == []


def test_stated_class_count_that_disagrees_names_both_numbers(config, annotations):
    cfg = config(KEY, 80, setup_a=annotations("a", "cat", "dog"))
    with pytest.raises(InputError, match=rf"{KEY} is 80, but data set setup_a has 2 classes .*a\.json"):
        match_num_classes(cfg, ["setup_a"])


def test_data_sets_that_disagree(config, annotations):
    cfg = config(
        setup_a=annotations("a", "cat", "dog"), setup_b=annotations("b", "cat"), setup_c=annotations("c", "x")
    )
    with pytest.raises(InputError, match="setup_a has 2 classes and data set setup_b has 1"):
        match_num_classes(cfg, ["setup_a", "setup_b"])
    notes = match_num_classes(cfg, ["setup_b", "setup_c"])
    assert any("other names" in note for note in notes)


def test_unknown_data_set_names_the_nearest(config):
    with pytest.raises(InputError, match="coco_2017_val"):
        match_num_classes(config(), ["coco_2017_vall"])


def test_missing_annotation_file_is_named(config, tmp_path):
    cfg = config(setup_a=str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"none\.json"):
        match_num_classes(cfg, ["setup_a"])


@pytest.mark.parametrize(
    ("model", "key"), [("RetinaNet", "MODEL.RETINANET.NUM_CLASSES"), ("FCOS", "MODEL.FCOS.NUM_CLASSES")]
)
def test_one_stage_detectors_count_their_own_classes_and_those_of_their_roi_heads(
    config, annotations, model, key
):
    data = {"setup_a": annotations("a", "cat", "dog")}
    opts = ("MODEL.META_ARCHITECTURE", model)
    cfg = config(*opts, **data)
    (note,) = match_num_classes(cfg, ["setup_a"])
    assert note.startswith(f"{key} is 2")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80  # there are no such heads
    cfg = config(*opts, "MODEL.MASK_ON", True, **data)
    assert len(match_num_classes(cfg, ["setup_a"])) == 2
    assert (cfg.MODEL[model.upper()].NUM_CLASSES, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (2, 2)
    with pytest.raises(InputError, match=f"{KEY} is 3, but data set setup_a has 2 classes"):
        match_num_classes(config(*opts, "MODEL.MASK_ON", True, KEY, 3, **data), ["setup_a"])


def test_models_without_classes_are_left_alone(config, annotations):
    cfg = config("MODEL.META_ARCHITECTURE", "SomethingElse", setup_a=annotations("a", "cat"))
    assert match_num_classes(cfg, ["setup_a"]) == []
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 80


def args(**kwargs) -> argparse.Namespace:
    return argparse.Namespace(**{"eval_only": False, "resume": False, **kwargs})


def test_default_setup_prepares_a_run(config, annotations, tmp_path):
    cfg = config("SEED", 5, "DATASETS.TRAIN", ("setup_a",), setup_a=annotations("a", "cat", "dog"))
    cfg.freeze()
    default_setup(cfg, args())
    assert cfg.is_frozen()
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    saved = get_cfg()
    saved.merge_from_file(str(tmp_path / "out" / "config.yaml"))
    assert saved == cfg
    assert "Environment" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_saved_config_keeps_the_device_for_other_machines(config, tmp_path):
    cfg = config("MODEL.DEVICE", "cuda")
    default_setup(cfg, args())
    assert cfg.MODEL.DEVICE == "cpu"
    assert "DEVICE: cuda" in (tmp_path / "out" / "config.yaml").read_text()


def test_an_evaluation_keeps_the_config_of_the_training(config, tmp_path):
    default_setup(config("SEED", 1), args())
    default_setup(config("SEED", 2), args(eval_only=True))
    assert "SEED: 1" in (tmp_path / "out" / "config.yaml").read_text()


def test_bad_configs_write_nothing(config, annotations, tmp_path):
    with pytest.raises(InputError):
        default_setup(config(KEY, 3, "DATASETS.TRAIN", ("setup_a",), setup_a=annotations("a", "cat")), args())
    with pytest.raises(InputError):
        default_setup(config("SEED", 1.5), args())
    opts = ("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "DATASETS.TRAIN", ("setup_a",))
    without_keypoints = config("MODEL.KEYPOINT_ON", True, *opts, setup_a=annotations("a", "cat"))
    with pytest.raises(InputError, match="declares no keypoints"):
        default_setup(without_keypoints, args())
    opts += ("MODEL.LOAD_PROPOSALS", True, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    without_proposals = config(*opts, "DATASETS.PROPOSAL_FILES_TRAIN", (str(tmp_path / "none.pkl"),))
    with pytest.raises(InputError, match=r"none\.pkl: no such file of proposals"):
        default_setup(without_proposals, args())
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_run_is_not_written_to_by_accident(config, tmp_path):
    cfg = config()
    refuse_overwriting(cfg)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="--resume"):
        refuse_overwriting(cfg)


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_an_output_folder_that_cannot_be_made(config, tmp_path, where):
    (tmp_path / "file").write_text("")
    cfg = config("OUTPUT_DIR", str(tmp_path / where))
    with pytest.raises(InputError, match="cannot be made a folder"):
        default_setup(cfg, args())
