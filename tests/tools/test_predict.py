"""`tools/predict.py` on a tiny model with random weights."""

import importlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from panomask.checkpoint import DetectionCheckpointer
from panomask.config import get_cfg
from panomask.engine.video_files import VideoReader, VideoWriter
from panomask.modeling import build_model

ROOT = Path(__file__).parents[2]
TINY = """
MODEL:
  DEVICE: cpu
  MASK_ON: True
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 8, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 8}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], POST_NMS_TOPK_TEST: 10}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], SCORE_THRESH_TEST: 0.0}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 8, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 8}
INPUT: {MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 96}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[str, ...]:
    """Command-line options that name the tiny model and its weights."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.yaml").write_text(TINY)
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "tiny.yaml"))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    torch.manual_seed(0)
    checkpointer = DetectionCheckpointer(build_model(cfg), str(folder))
    checkpointer.save("weights", thing_classes=["apple", "nut"])
    return "--config-file", str(folder / "tiny.yaml"), "--weights", str(folder / "weights.pth")


@pytest.fixture(scope="module", params=["PanopticFPN", "SemanticSegmentor"])
def segmenter(request, tmp_path_factory) -> tuple[str, ...]:
    """The same for a panoptic and a semantic model; its class names are in the checkpoint."""
    folder = tmp_path_factory.mktemp("segmenter")
    (folder / "tiny.yaml").write_text(TINY)
    head = ["CONVS_DIM", 8, "NORM", "", "NUM_CLASSES", 3]
    options = ["MODEL.META_ARCHITECTURE", request.param, "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 1]
    options += [f"MODEL.SEM_SEG_HEAD.{word}" if i % 2 == 0 else word for i, word in enumerate(head)]
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "tiny.yaml"))
    cfg.merge_from_list([*options, "MODEL.ROI_HEADS.NUM_CLASSES", 2])
    torch.manual_seed(0)
    entries = {"thing_classes": ["apple", "nut"], "stuff": {"stuff_classes": ["things", "table", "wall"]}}
    DetectionCheckpointer(build_model(cfg), str(folder)).save("weights", **entries)
    weights = str(folder / "weights.pth")
    return "--config-file", str(folder / "tiny.yaml"), "--weights", weights, *map(str, options)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with two images, a damaged one, a video and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "c.png"):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 90, np.uint8))
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("notes")
    with VideoWriter(folder / "d.mp4", 10.0) as video:
        for value in (60, 120):
            video.write(np.full((48, 64, 3), value, np.uint8))
    return folder


@pytest.fixture
def tool(monkeypatch) -> Iterator[ModuleType]:
    """The script as a module, for what needs no process of its own: starting one takes seconds."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    on_sigterm = signal.getsignal(signal.SIGTERM)
    logger = logging.getLogger("panomask")
    state = logger.level, logger.propagate, list(logger.handlers)
    yield importlib.import_module("predict")
    level, logger.propagate, logger.handlers[:] = state
    logger.setLevel(level)
    signal.signal(signal.SIGTERM, on_sigterm)


def _call(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """Run the tool in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        sys.exit(tool.run_tool(tool.main))
    return ended.value.code or 0


def test_a_folder_with_a_damaged_image_and_a_video(model, photos, tmp_path):
    out = tmp_path / "out"
    arguments = [*model, "--confidence-threshold", 0, "--output", out, "--input", photos]
    command = [sys.executable, ROOT / "tools" / "predict.py", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    first, last = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert str(photos / "b.jpg") in first
    assert first.endswith("replace the file, or leave it out")
    assert "1 of 4 inputs" in last
    names = {"a.jpg", "c.png", "d.mp4", "images.json", "coco_instances_results.json"}
    assert {path.name for path in out.iterdir()} == names
    images = json.loads((out / "images.json").read_text())
    assert [Path(image["file_name"]).name for image in images["images"]] == [
        "a.jpg",
        "c.png",
        "d.mp4",
        "d.mp4",
    ]
    assert images["categories"] == [{"id": 0, "name": "apple"}, {"id": 1, "name": "nut"}]
    results = json.loads((out / "coco_instances_results.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3, 4}
    assert cv2.imread(str(out / "a.jpg")).shape == (40, 60, 3)
    with VideoReader(out / "d.mp4") as video:
        assert len(list(video)) == 2


def test_overrides_may_follow_the_inputs(tool, model, photos, tmp_path, monkeypatch):
    overrides = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", 48]
    assert (
        _call(tool, monkeypatch, *model, "--output", tmp_path, "--input", photos / "a.jpg", *overrides) == 0
    )
    assert (tmp_path / "a.jpg").is_file()


def test_help_shows_examples_and_formats(tool, monkeypatch, capsys):
    assert _call(tool, monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for word in ("--annotations", "examples:", "coco_instances_results.json", "predict.py --config-file"):
        assert word in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--weights", "", "--input", "a.jpg"], "no weights"),
        (["--weights", "missing.pth", "--input", "a.jpg"], "missing.pth"),
        (["--input", "missing.jpg"], "missing.jpg: no such file"),
        (["--input", "empty"], "empty: the folder holds no image"),
        (["--input", "a.jpg", "--output", "."], "would replace an input"),
        (["--input", "a.jpg", "--output", "notes.txt"], "notes.txt: cannot be made a folder"),
        (["--input", "a.jpg", "--confidence-threshold", "2"], "a score from 0 to 1"),
        (["--input", "a.jpg", "--annotations", "missing.json"], "missing.json: file does not exist"),
    ],
)
def test_bad_input_is_one_line(tool, model, photos, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir()
    assert _call(tool, monkeypatch, *model, "--output", "out", *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (photos / "out" / "coco_instances_results.json").exists()


def test_what_is_predicted_before_an_interruption_is_saved(tool, model, photos, tmp_path, monkeypatch):
    process = tool.PredictionFiles.process

    def process_until_c(self, path, target):
        if path.name == "c.png":
            raise KeyboardInterrupt
        process(self, path, target)

    monkeypatch.setattr(tool.PredictionFiles, "process", process_until_c)
    arguments = ["--confidence-threshold", 0, "--input", photos / "*.*g", "--output", tmp_path / "out"]
    assert _call(tool, monkeypatch, *model, *arguments) == 130
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 1
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())


def test_segments_and_labels(tool, segmenter, photos, tmp_path, monkeypatch, capsys):
    out, is_panoptic = tmp_path / "out", "PanopticFPN" in segmenter
    inputs = ["--input", photos / "a.jpg", photos / "d.mp4", "--output", out]
    assert _call(tool, monkeypatch, *segmenter[:4], *inputs, *segmenter[4:]) == 0
    kind = "panoptic_predictions" if is_panoptic else "semantic_predictions"
    names = {"a.jpg", "d.mp4", "images.json", kind, f"{kind}.json"}
    assert {path.name for path in out.iterdir()} == names | (
        {"coco_instances_results.json"} if is_panoptic else set()
    )
    content = json.loads((out / f"{kind}.json").read_text())
    assert sorted(path.name for path in (out / kind).iterdir()) == ["a.png", "d_000000.png", "d_000001.png"]
    assert [entry["image_id"] for entry in content["annotations"]] == [1, 2, 3]
    stuff = ["apple", "nut"] if is_panoptic else ["things"]
    assert [category["name"] for category in content["categories"]] == [*stuff, "table", "wall"]
    with VideoReader(out / "d.mp4") as video:
        assert len(list(video)) == 2


def test_what_a_threshold_is_for(tool, segmenter, photos, tmp_path, monkeypatch, capsys):
    """Of a panoptic model it is the score that things need to be merged; a semantic model has no objects."""
    arguments = [*segmenter[:4], "--confidence-threshold", "0.25", "--input", photos / "a.jpg"]
    arguments += ["--output", tmp_path / "out", *segmenter[4:]]
    if "SemanticSegmentor" in segmenter:
        assert _call(tool, monkeypatch, *arguments) == 1
        assert "a semantic model gives every pixel its best class" in capsys.readouterr().err
        return
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    args = tool.parse_arguments()
    cfg = tool.build_config(args)
    assert cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH == 0.25
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.25
    args.confidence_threshold = None
    args.opts += ["MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", "0.7"]
    assert tool.build_config(args).MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.7


def test_annotations_without_the_models_stuff_are_refused_at_once(
    tool, segmenter, photos, tmp_path, monkeypatch, capsys
):
    if "SemanticSegmentor" in segmenter:
        pytest.skip("its labels need no ids of categories")
    categories = [{"id": i, "name": name, "isthing": 1} for i, name in enumerate(["apple", "nut"])]
    images = [{"id": 9, "file_name": "a.jpg"}]
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "categories": categories}))
    arguments = ["--annotations", tmp_path / "truth.json", "--input", photos / "a.jpg"]
    arguments += ["--output", tmp_path / "out", *segmenter[4:]]
    assert _call(tool, monkeypatch, *segmenter[:4], *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "truth.json: lacks the model's things or stuff ['table', 'wall']" in line
    assert not (tmp_path / "out" / "a.jpg").exists()


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        ("MODEL.META_ARCHITECTURE GeneralizedRCNN", "ROI_HEADS.SCORE_THRESH_TEST"),
        ("MODEL.META_ARCHITECTURE RetinaNet", "RETINANET.SCORE_THRESH_TEST"),
        ("MODEL.META_ARCHITECTURE FCOS", "FCOS.INFERENCE_TH_TEST"),
        (
            "MODEL.META_ARCHITECTURE FCOS MODEL.MASK_ON True MODEL.ROI_HEADS.NAME GivenBoxROIHeads",
            "FCOS.INFERENCE_TH_TEST",
        ),
        # What FCOS finds are proposals here, whose scores mean something else.
        (
            "MODEL.META_ARCHITECTURE FCOS MODEL.MASK_ON True MODEL.ROI_HEADS.NAME StandardROIHeads",
            "ROI_HEADS.SCORE_THRESH_TEST",
        ),
    ],
)
def test_the_threshold_goes_to_what_scores_detections(tool, opts, key):
    cfg = get_cfg()
    cfg.merge_from_list(opts.split())
    node, name = tool.score_threshold(cfg)
    group, _, field = key.partition(".")
    assert (node is cfg.MODEL[group], name) == (True, field)
