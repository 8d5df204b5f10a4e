"""tools/visualize_data.py draws both sources, and says in one line what is wrong."""

import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from panomask.data.datasets.shapes import write_shapes
from panomask.engine import run_tool

CONFIG = """
DATASETS:
  TRAIN: ("visualized",)
DATALOADER:
  NUM_WORKERS: 0
INPUT:
  MIN_SIZE_TRAIN: (96,)
  MAX_SIZE_TRAIN: 200
  RANDOM_FLIP: "none"
MODEL:
  MASK_ON: True
SOLVER:
  IMS_PER_BATCH: 2
SEED: 3
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "v1"
    write_shapes(folder, num_images={"train": 4})
    return folder


@pytest.fixture
def arguments(shapes: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    annotations = shapes / "annotations" / "instances_train.json"
    return [
        *("--config-file", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "pictures")),
        *("DATASETS.REGISTER.visualized.ANNOTATIONS", str(annotations)),
        *("DATASETS.REGISTER.visualized.IMAGES", str(shapes / "train")),
    ]


def _run(tool: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["visualize_data.py", *arguments])
    run_tool(tool.main)


@pytest.mark.parametrize("source", ["dataloader", "annotation"])
def test_pictures_show_the_objects(
    tool: ModuleType,
    arguments: list[str],
    shapes: Path,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _run(tool, [*arguments, "--source", source, "--num", "3"], monkeypatch)
    assert "3 pictures written to" in capsys.readouterr().out
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [p.name[:4] for p in pictures] == ["0001", "0002", "0003"]
    for path in pictures:
        drawn = cv2.imread(str(path))
        assert 479 <= min(drawn.shape[:2]) <= 481
        plain = cv2.imread(str(shapes / "train" / f"{path.stem.split('_')[1]}.png"))
        plain = cv2.resize(plain, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        differs = np.abs(drawn.astype(int) - plain).max(axis=2) > 60
        assert 0.002 < differs.mean() < 0.6


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--num", "0"], "--num is 0"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["DATASETS.TRAIN", "visualised"], "'visualised' is not registered. Did you mean visualized"),
        (["INPUT.MIN_SIZE_TRAIM", "3"], "MIN_SIZE_TRAIM"),
        (["DATASETS.REGISTER.visualized.IMAGES", "nowhere"], "nowhere"),
    ],
)
@pytest.mark.parametrize("source", ["dataloader", "annotation"])
def test_bad_input_is_one_line(
    tool: ModuleType,
    arguments: list[str],
    source: str,
    extra: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        _run(tool, [*arguments, "--source", source, *extra], monkeypatch)
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_image_of_another_size_is_refused(
    tool: ModuleType,
    arguments: list[str],
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    for image in document["images"]:
        image["height"] += 1
    document["annotations"] = [a for a in document["annotations"] if isinstance(a["segmentation"], list)]
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    wrong = ["DATASETS.REGISTER.visualized.ANNOTATIONS", str(tmp_path / "wrong.json")]
    with pytest.raises(SystemExit):
        _run(tool, [*arguments, "--source", "annotation", *wrong], monkeypatch)
    assert "the annotations say" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("source", ["dataloader", "annotation"])
def test_segments_of_a_panoptic_set(
    tool: ModuleType,
    arguments: list[str],
    shapes: Path,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stuff is tinted too, so that few pixels are as they were."""
    panoptic = [
        *("DATASETS.REGISTER.visualized.ANNOTATIONS", str(shapes / "annotations" / "panoptic_train.json")),
        *("DATASETS.REGISTER.visualized.PANOPTIC_ROOT", str(shapes / "panoptic_train")),
        *("MODEL.META_ARCHITECTURE", "PanopticFPN"),
    ]
    _run(tool, [*arguments, *panoptic, "--source", source, "--num", "2"], monkeypatch)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 2
    for path in pictures:
        drawn = cv2.imread(str(path))
        plain = cv2.imread(str(shapes / "train" / f"{path.stem.split('_')[1]}.png"))
        plain = cv2.resize(plain, drawn.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        assert (np.abs(drawn.astype(int) - plain).max(axis=2) > 5).mean() > 0.8
