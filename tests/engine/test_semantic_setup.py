import argparse
import json

import numpy as np
import pytest
from PIL import Image

from panomask.config import get_cfg
from panomask.data import DatasetCatalog, MetadataCatalog
from panomask.data.label_check import check_label_folder, check_label_images
from panomask.engine import default_setup, match_num_classes, register_datasets, semantic_setup
from panomask.engine.semantic_setup import (
    TrainedStuff,
    check_labels,
    check_truth,
    match_stuff_classes,
    settle_stuff,
)
from panomask.errors import InputError
from panomask.panoptic_png import write_segment_ids

NUM_CLASSES = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
IGNORE = "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"
CATEGORIES = (("cat", 1), ("sky", 0), ("dog", 1), ("grass", 0))


@pytest.fixture
def panoptic(tmp_path):
    """Writes a panoptic data set of one image; gives what DATASETS.REGISTER needs."""

    def write(name: str, categories=CATEGORIES) -> dict[str, str]:
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "a.jpg")
        write_segment_ids(folder / "a.png", np.full((4, 6), 9))
        listed = [{"id": i, "name": n, "isthing": thing} for i, (n, thing) in enumerate(categories, start=1)]
        segments = [{"id": 9, "category_id": 1, "iscrowd": 0, "area": 24, "bbox": [0, 0, 6, 4]}]
        document = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
            "categories": listed,
        }
        (folder / "a.json").write_text(json.dumps(document))
        return {"ANNOTATIONS": str(folder / "a.json"), "PANOPTIC_ROOT": str(folder), "IMAGES": str(folder)}

    return write


@pytest.fixture
def semantic(tmp_path):
    """The same for a semantic data set."""

    def write(name: str, *classes: str, ignore: int = 255) -> dict[str, str]:
        for kind in ("images", "labels"):
            (tmp_path / name / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name / "images" / "a.jpg")
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / name / "labels" / "a.png")
        paths = {"SEM_SEG_ROOT": str(tmp_path / name / "labels"), "IMAGES": str(tmp_path / name / "images")}
        return {**paths, "STUFF_CLASSES": ",".join(classes), "IGNORE_LABEL": str(ignore)}

    return write


@pytest.fixture
def config(tmp_path, forgotten):
    """A config with data sets that are forgotten afterwards; all of them are in DATASETS.TRAIN."""

    def build(model="PanopticFPN", *opts, **data_sets):
        cfg = get_cfg()
        for name, entry in data_sets.items():
            forgotten.append(name)
            for field, value in entry.items():
                cfg.merge_from_list([f"DATASETS.REGISTER.{name}.{field}", value])
        cfg.merge_from_list(["DATASETS.TRAIN", tuple(data_sets), "MODEL.META_ARCHITECTURE", model])
        cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path / "out"), "MODEL.DEVICE", "cpu", *opts])
        register_datasets(cfg)
        return cfg

    return build


def test_class_counts_come_from_the_panoptic_file(config, panoptic):
    cfg = config(sem_a=panoptic("a"))
    (note,) = match_stuff_classes(cfg, ["sem_a"])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3  # things, sky, grass
    assert note == f'{NUM_CLASSES} is 3: data set sem_a has 3 semantic classes ("things" and 2 of stuff)'
    match_num_classes(cfg, ["sem_a"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert match_stuff_classes(cfg, ["sem_a"]) == []
    check_truth(cfg)
    others = config("GeneralizedRCNN", sem_b=panoptic("b"))
    assert match_stuff_classes(others, ["sem_b"]) == []
    check_truth(others)


def test_the_label_of_void_comes_from_the_data(config, panoptic):
    cfg = config(sem_a={**panoptic("a"), "IGNORE_LABEL": "65535"})
    assert f"{IGNORE} is 65535: the label of void in data set sem_a is 65535" in match_stuff_classes(
        cfg, ["sem_a"]
    )
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 65535


@pytest.mark.parametrize(("one", "other"), [(255, 9), (9, 255), (7, 9)])
def test_labels_of_void_that_disagree(config, semantic, one, other):
    sets = {"sem_a": semantic("a", "x", "y", ignore=one), "sem_b": semantic("b", "x", "y", ignore=other)}
    message = f"void is {one} in data set sem_a and {other} in data set sem_b"
    cfg = config("SemanticSegmentor", **sets)
    with pytest.raises(InputError, match=message):
        match_stuff_classes(cfg, ["sem_a", "sem_b"])


def test_a_set_that_says_nothing_of_void_is_passed_over(config, semantic):
    cfg = config("SemanticSegmentor", sem_a=semantic("a", "x", "y"), sem_b=semantic("b", "x", "y", ignore=9))
    del MetadataCatalog.get("sem_a").ignore_label
    match_stuff_classes(cfg, ["sem_a", "sem_b"])
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 9


def test_counts_that_disagree(config, panoptic):
    cfg = config("PanopticFPN", NUM_CLASSES, 2, sem_a=panoptic("a"))
    with pytest.raises(InputError, match=rf"{NUM_CLASSES} is 2, but data set sem_a has 3 .*leave it out"):
        match_stuff_classes(cfg, ["sem_a"])
    cfg = config(sem_a=panoptic("a2"), sem_b=panoptic("b", CATEGORIES[:2]))
    with pytest.raises(InputError, match=r"sem_a has 3 semantic classes .* sem_b has 2"):
        match_stuff_classes(cfg, ["sem_a", "sem_b"])
    cfg = config(sem_a=panoptic("a3"), sem_c=panoptic("c", (*CATEGORIES[:3], ("mud", 0))))
    assert any("other names" in note for note in match_stuff_classes(cfg, ["sem_a", "sem_c"]))


def test_semantic_set(config, semantic):
    cfg = config("SemanticSegmentor", sem_a=semantic("a", "road", "sky", ignore=0))
    notes = match_stuff_classes(cfg, ["sem_a"])
    assert (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE) == (2, 0)
    assert len(notes) == 2
    check_truth(cfg)
    check_label_folder("sem_a")
    cfg = config("SemanticSegmentor", IGNORE, 7, sem_b=semantic("b", "road", "sky"))
    with pytest.raises(InputError, match=f"{IGNORE} is 7, but the label of void in data set sem_b is 255"):
        match_stuff_classes(cfg, ["sem_b"])


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("FCOS", "semantic", "sem_a has semantic labels alone.*SemanticSegmentor"),
        ("RetinaNet", "semantic", "sem_a has semantic labels alone.*SemanticSegmentor"),
        ("GeneralizedRCNN", "semantic", "sem_a has semantic labels alone.*SemanticSegmentor"),
        ("PanopticFPN", "semantic", "sem_a has no things"),
        ("PanopticFPN", "instances", "sem_a has no semantic labels, which PanopticFPN learns"),
        ("SemanticSegmentor", "instances", "sem_a has no semantic labels.*GeneralizedRCNN"),
    ],
)
def test_models_and_data_that_do_not_fit(config, semantic, panoptic, model, kind, message):
    if kind == "semantic":
        entry = semantic("a", "road", "sky")
    else:
        entry = panoptic("a")
        del entry["PANOPTIC_ROOT"]
    with pytest.raises(InputError, match=message):
        check_truth(config(model, sem_a=entry))


def test_panoptic_models_need_things_also_for_evaluation(config, panoptic):
    cfg = config("PanopticFPN", sem_a=panoptic("a", [("sky", 0)]))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ("sem_a",)
    with pytest.raises(InputError, match="sem_a has no things"):
        check_truth(cfg, eval_only=True)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    check_truth(cfg, eval_only=True)


def test_training_sets_must_agree_in_their_stuff(config, panoptic):
    sets = {"sem_a": panoptic("a"), "sem_c": panoptic("c", (*CATEGORIES[:3], ("mud", 0)))}
    with pytest.raises(InputError, match="'sem_a' and 'sem_c' differ in stuff_classes"):
        check_truth(config("PanopticFPN", **sets))
    check_truth(config("GeneralizedRCNN", **sets))
    cfg = config("PanopticFPN", **sets)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("sem_a",), ("sem_c",)
    check_truth(cfg)


def test_one_list_of_things_and_stuff_is_no_data_for_panoptic_fpn(config):
    cfg = config("PanopticFPN", "DATASETS.TEST", "sem_unified")
    DatasetCatalog.register("sem_unified", list)
    try:
        metadata = MetadataCatalog.get("sem_unified")
        metadata.set(thing_classes=["cat", "sky"], stuff_classes=["cat", "sky"])
        with pytest.raises(InputError, match=r"one list of 2 classes.*_separated"):
            check_truth(cfg)
    finally:
        DatasetCatalog.remove("sem_unified")
        MetadataCatalog.remove("sem_unified")


def test_label_folders(config, panoptic, semantic, tmp_path):
    entry = panoptic("a")
    config(sem_a=entry)
    check_label_folder("sem_a")
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: an image of mode 'L' \(grey-scale\)"):
        check_label_folder("sem_a")
    (tmp_path / "a" / "a.png").unlink()
    with pytest.raises(InputError, match=r"sem_a: .*PANOPTIC_ROOT\) holds no PNG file"):
        check_label_folder("sem_a")
    config(sem_b={**entry, "PANOPTIC_ROOT": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"none \(PANOPTIC_ROOT\) is no folder"):
        check_label_folder("sem_b")
    config("SemanticSegmentor", sem_c=semantic("c", "road"))
    write_segment_ids(tmp_path / "c" / "labels" / "a.png", np.full((4, 6), 9))
    with pytest.raises(InputError, match="'RGB' with colours"):
        check_label_folder("sem_c")


def test_label_images_are_looked_at_before_a_training(config, panoptic, semantic, tmp_path):
    cfg = config("PanopticFPN", sem_a=panoptic("a"))
    check_labels(cfg)
    assert check_label_images("sem_a") == 1
    write_segment_ids(tmp_path / "a" / "a.png", np.full((4, 6), 8))
    for split in ("TRAIN", "TEST"):
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
        cfg.DATASETS[split] = ("sem_a",)
        with pytest.raises(InputError, match=r"a\.png: its pixels have segment id 8"):
            check_labels(cfg)
    cfg = config("SemanticSegmentor", sem_b=semantic("b", "road"))
    check_labels(cfg)
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "b" / "labels" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: label 9, but there are 1 classes"):
        check_labels(cfg)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "b" / "labels" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: 5 x 4 .* its image is 6 x 4"):
        check_labels(cfg)


def test_images_are_looked_at_beside_their_labels(config, panoptic, tmp_path):
    cfg = config("PanopticFPN", sem_a=panoptic("a"))
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: the image is 5 x 4 .* the annotations say 6 x 4"):
        check_labels(cfg)
    (tmp_path / "a" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg: image file does not exist"):
        check_labels(cfg)


def test_large_training_sets_are_left_to_the_loader(config, panoptic, monkeypatch):
    looked_at = []
    monkeypatch.setattr(semantic_setup, "check_label_images", looked_at.append)
    monkeypatch.setattr(semantic_setup, "MOST_BYTES", 10)
    cfg = config("PanopticFPN", sem_a=panoptic("a"), sem_b=panoptic("b"))
    cfg.DATASETS.TEST = ("sem_b",)
    check_labels(cfg)
    assert looked_at == ["sem_b"]


def test_default_setup_refuses_before_it_writes(config, panoptic, tmp_path):
    args, masks = argparse.Namespace(eval_only=False, resume=False), ("MODEL.MASK_ON", True)
    entry = panoptic("a")
    (tmp_path / "a" / "a.png").unlink()
    with pytest.raises(InputError, match="holds no PNG file"):
        default_setup(config("PanopticFPN", *masks, sem_a=entry), args)
    assert not (tmp_path / "out").exists()
    cfg = config("PanopticFPN", *masks, sem_b=panoptic("b"))
    default_setup(cfg, args)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3


def test_classes_travel_with_the_checkpoint(config, panoptic):
    cfg = config(sem_a=panoptic("a"))
    match_stuff_classes(cfg, ["sem_a"])
    state = TrainedStuff("sem_a").state_dict()
    assert state["stuff_classes"] == ["things", "sky", "grass"]
    assert state["sem_seg_things_label"] == 0
    MetadataCatalog.get("sem_a").stuff_colors = np.array([[1, 2, 3]] * 3)
    assert TrainedStuff("sem_a").state_dict()["stuff_colors"] == [[1, 2, 3]] * 3
    TrainedStuff("sem_a").load_state_dict(state)
    with pytest.raises(InputError, match="was trained on the semantic classes things, mud, but"):
        TrainedStuff("sem_a").load_state_dict({"stuff_classes": ["things", "mud"]})
    fresh = config("SemanticSegmentor")
    assert settle_stuff(fresh, state)["stuff_classes"] == ["things", "sky", "grass"]
    assert fresh.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert settle_stuff(config("GeneralizedRCNN"), state) == {}
    fresh = config("PanopticFPN", "DATASETS.TEST", "sem_a")
    assert settle_stuff(fresh, None) == {}
    assert fresh.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
