"""The zoo's names, scores and addresses, and what opens each of its config files."""

import re
from pathlib import Path

import pytest

from panomask import model_zoo
from panomask.checkpoint import DetectionCheckpointer
from panomask.config import CfgNode, get_cfg
from panomask.config.zoo import CONFIG_FOLDER, zoo_configs
from panomask.errors import InputError

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
LABELS = {
    ("bbox", "AP"): "box AP",
    ("bbox", "AP50"): "box AP50",
    ("segm", "AP"): "mask AP",
    ("keypoints", "AP"): "keypoint AP",
    ("panoptic_seg", "PQ"): "PQ",
    ("box_proposals", "AR@1000"): "proposal AR@1000",
}


def _header(name: str) -> list[str]:
    """The comment that opens a config: its command, and the text below it as one line."""
    lines = (CONFIG_FOLDER / name).read_text().splitlines()
    comment = [line for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    assert comment[1] == "#"
    return [comment[0].removeprefix("# "), " ".join(line.removeprefix("# ") for line in comment[2:])]


def test_known_entries():
    models = model_zoo.zoo_models()
    assert len(models) == 61
    assert models[MASK_RCNN].scores == {("bbox", "AP"): 41.0, ("segm", "AP"): 37.2}
    assert models["COCO-Detection/rpn_R_50_FPN_1x.yaml"].scores == {("box_proposals", "AR@1000"): 58.0}
    assert models["COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"].scores[("keypoints", "AP")] == 64.0
    assert models["PascalVOC-Detection/faster_rcnn_R_50_C4.yaml"].scores[("bbox", "AP50")] == 80.3


def test_every_published_model_has_its_config():
    known = set(zoo_configs())
    assert set(model_zoo.zoo_models()) <= known


@pytest.mark.parametrize("name", zoo_configs())
def test_config_opens_with_its_command_and_its_published_score(name):
    command, text = _header(name)
    assert command == f"python tools/train_net.py --config-file configs/{name} --num-gpus 8"
    cfg = model_zoo.get_config(name)
    if name in model_zoo.zoo_models():
        scores = model_zoo.zoo_models()[name].scores
        shown = ", ".join(f"{scores[metric]} {label}" for metric, label in LABELS.items() if metric in scores)
        assert f" Published: {shown} on {cfg.DATASETS.TEST[0]}." in text
    else:
        assert "No score in the zoo's table." in text
        assert not re.search(r"\d AP|Published", text)


def test_an_installed_package_carries_every_config():
    """setup.py ships configs/*.yaml and configs/*/*.yaml."""
    files = [path.relative_to(CONFIG_FOLDER) for path in CONFIG_FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".tsv", ".yaml"}
    assert max(len(path.parts) for path in files) == 2


def test_config_by_name():
    cfg = model_zoo.get_config(MASK_RCNN)
    assert isinstance(cfg, CfgNode)
    assert cfg.SOLVER.MAX_ITER == 270000
    assert cfg.MODEL.WEIGHTS == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    trained = model_zoo.get_config(MASK_RCNN, trained=True)
    assert trained.MODEL.WEIGHTS == model_zoo.get_checkpoint_url(MASK_RCNN)
    assert Path(model_zoo.get_config_file(MASK_RCNN)).is_file()


def test_checkpoint_address():
    folder = "https://dl.fbaipublicfiles.com/detectron2/"
    assert model_zoo.get_checkpoint_url(MASK_RCNN) == folder + (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
    )
    python_config = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"
    assert model_zoo.get_checkpoint_url(python_config).endswith("/42047764/model_final_bb69de.pkl")


def test_model_by_name(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        DetectionCheckpointer, "load", lambda self, path, match: loaded.append((path, match, self.model))
    )
    model = model_zoo.get("COCO-Detection/rpn_R_50_FPN_1x.yaml", trained=True, device="cpu")
    assert model.training
    assert next(model.parameters()).device.type == "cpu"
    url = model_zoo.get_checkpoint_url("COCO-Detection/rpn_R_50_FPN_1x.yaml")
    assert loaded == [(url, "parameters", model)]  # a trained model lacks nothing


@pytest.mark.parametrize("function", [model_zoo.get_config_file, model_zoo.get_checkpoint_url])
def test_unknown_name_tells_the_nearest(function):
    with pytest.raises(model_zoo.NotInZooError, match=r"nothing_R_50_FPN_3x.*mask_rcnn_R_50_FPN_3x") as error:
        function("COCO-InstanceSegmentation/nothing_R_50_FPN_3x.yaml")
    assert isinstance(error.value, InputError)
    assert isinstance(error.value, RuntimeError)  # what Detectron2's users catch


def test_config_without_published_weights():
    with pytest.raises(model_zoo.NotInZooError, match="publishes no weights"):
        model_zoo.get_checkpoint_url("PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml")


@pytest.mark.parametrize("folder", ["", "somewhere/configs/"])
def test_python_config_is_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"{folder}new_baselines/mask_rcnn_regnety_4gf_dds_FPN_100ep_LSJ.py"
    Path(name).parent.mkdir(parents=True)
    Path(name).write_text("open('ran', 'w')\n")
    with pytest.raises(InputError, match=r"never run; use .*dds_FPN_100ep_LSJ\.yaml in its place"):
        get_cfg().merge_from_file(name)
    with pytest.raises(InputError, match=r"own\.py: .*write what it sets as a YAML file"):
        get_cfg().merge_from_file("own.py")
    assert not Path("ran").exists()
