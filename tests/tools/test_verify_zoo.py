"""The published scores against what train_net.py measures; its runs are tiny or played."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from panomask import model_zoo
from panomask.checkpoint import DetectionCheckpointer
from panomask.config import get_cfg
from panomask.engine import run_tool
from panomask.modeling import build_model

TOOL = Path(__file__).parents[2] / "tools" / "verify_zoo.py"
RPN = "COCO-Detection/rpn_R_50_FPN_1x.yaml"  # published: 58.0 AR@1000
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"  # published: 38.6 box AP, 35.2 mask AP


@pytest.fixture
def call(tool, monkeypatch, capfd, tmp_path):
    """Runs the tool in this process; returns exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        status = 0
        try:
            run_tool(tool.main)
        except SystemExit as caught:
            status = caught.code
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def train_net(monkeypatch):
    """Plays train_net.py: `train_net.scores` is what it measures; `.calls` are its command lines."""

    class TrainNet:
        def __init__(self):
            self.scores: dict | None = {}
            self.calls: list[list[str]] = []

        def run(self, command, **_):
            self.calls.append(command)
            if self.scores is None:
                return subprocess.CompletedProcess(command, 1, stderr="error: no such file\n")
            folder = Path(command[command.index("OUTPUT_DIR") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps({"some_val": self.scores}))
            return subprocess.CompletedProcess(command, 0, stderr="")

    played = TrainNet()
    monkeypatch.setattr(subprocess, "run", played.run)
    return played


def test_within_the_tolerance(call, train_net):
    train_net.scores = {"bbox": {"AP": 38.65, "AP50": 59.0}, "segm": {"AP": 35.1}}
    status, out, errors = call(MASK, "--json", "rows.json", "--num-gpus", "4")
    assert (status, errors) == (0, "")
    rows = json.loads(Path("rows.json").read_text())
    assert [(r["task"], r["metric"], r["published"], r["measured"], r["verdict"]) for r in rows] == [
        ("bbox", "AP", 38.6, 38.65, "ok"),
        ("segm", "AP", 35.2, 35.1, "ok"),  # 0.1 below, rounding aside
    ]
    assert rows[0]["difference"] == 0.05
    assert "38.65" in out
    (command,) = train_net.calls
    assert command[command.index("--num-gpus") + 1] == "4"
    weights = model_zoo.zoo_models()[MASK].checkpoint
    assert command[command.index("MODEL.WEIGHTS") + 1] == weights
    assert command[command.index("--config-file") + 1] == model_zoo.get_config_file(MASK)


def test_panoptic_models_by_pq_and_each_task_by_its_main_metric(call, train_net):
    name = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
    train_net.scores = {"panoptic_seg": {"PQ": 39.4, "SQ": 77.0}, "bbox": {"AP": 37.6}, "segm": {"AP": 34.7}}
    train_net.scores["sem_seg"] = {"mIoU": 41.0}
    assert call(name, "--json", "rows.json")[0] == 0
    rows = json.loads(Path("rows.json").read_text())
    assert {(r["task"], r["metric"]) for r in rows} == {
        ("panoptic_seg", "PQ"),
        ("bbox", "AP"),
        ("segm", "AP"),
    }
    # The zoo publishes nothing for this one.
    name = "Misc/semantic_R_50_FPN_1x.yaml"
    Path("own.pth").touch()
    assert call(f"{name}=own.pth", "--json", "rows.json")[0] == 0
    rows = json.loads(Path("rows.json").read_text())
    assert {(r["metric"], r["verdict"]) for r in rows} == {
        (metric, "nothing published") for metric in ("PQ", "AP", "mIoU")
    }


def test_beyond_the_tolerance(call, train_net):
    train_net.scores = {"bbox": {"AP": 38.9}, "segm": {"AP": None}}
    status, out, _ = call(MASK, "--tolerance", "0.2")
    assert status == 1
    assert "differs" in out
    assert "not measured" in out
    assert "2 of 2 scores are not within 0.2" in out
    assert call(MASK, "--tolerance", "0.3", "--output", "other")[0] == 1  # NaN is no score


def test_goes_on_where_it_was_stopped(call, train_net):
    train_net.scores = {"box_proposals": {"AR@1000": 58.0}, "bbox": {"AP": 38.6}, "segm": {"AP": 35.2}}
    assert call(RPN)[0] == 0
    status, out, _ = call(RPN, MASK)
    assert status == 0
    assert "evaluated before" in out
    assert len(train_net.calls) == 2  # the second time, only what was not there
    call(RPN, "--dataset", "other")  # other settings: measured anew
    assert train_net.calls[2][-2:] == ["DATASETS.TEST", "other"]
    own = Path("own.pth")
    for content in ("first", "other"):  # another file by the same name
        own.write_text(content)
        os.utime(own, ns=(0, len(train_net.calls)))
        call(f"{RPN}={own}")
        call(f"{RPN}={own}")
    assert len(train_net.calls) == 5


def test_a_failure_does_not_end_the_others(call, train_net):
    train_net.scores = None
    status, out, errors = call(RPN, MASK, "--json", "rows.json")
    assert status == 1
    assert len(train_net.calls) == 2
    assert f"{RPN} failed: no such file" in out
    assert "no such file" not in next(line for line in out.splitlines() if line.startswith(RPN))  # the table
    assert "error: no such file" in errors
    assert all(row["measured"] is None for row in json.loads(Path("rows.json").read_text()))
    train_net.scores = {"box_proposals": {"AR@1000": 58.0}}
    assert call(RPN)[0] == 0  # a failed one is tried again


def test_ways_to_name_a_model(tool, tmp_path):
    zoo = model_zoo.zoo_models()[MASK]
    file = model_zoo.get_config_file(MASK)
    assert tool.find_model(MASK) == tool.find_model(file) == (MASK, file, zoo.checkpoint, zoo.scores)
    assert tool.find_model(f"{MASK}=a=b.pth")[2:] == ("a=b.pth", zoo.scores)
    downloaded = "downloads/" + Path(zoo.checkpoint).name
    assert tool.find_model(downloaded) == (MASK, file, downloaded, zoo.scores)
    own = tmp_path / "own.yaml"
    own.write_text("")
    assert tool.find_model(f"{own}=own.pth") == (f"{tmp_path.name}/own.yaml", str(own), "own.pth", {})


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml"], "the zoo publishes no weights"),
        (["COCO-Detection/faster_rcnn_R_50_FPN_1.yaml"], "faster_rcnn_R_50_FPN_1x.yaml"),
        (["new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"], "mask_rcnn_R_50_FPN_100ep_LSJ.yaml in its place"),
        (["model_last.pth"], "CONFIG=CHECKPOINT"),
        ([RPN, "--tolerance", "-1"], "--tolerance"),
    ],
)
def test_bad_command_lines(call, arguments, part):
    status, _, errors = call(*arguments)
    assert status == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert part in errors


def test_a_real_evaluation(call, tiny_run, tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(tiny_run)
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", 2])
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("own")
    own = f"{tiny_run}={tmp_path / 'own.pth'}"
    status, out, errors = call(own, "--opts", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0")
    assert (status, errors) == (0, "")
    assert "nothing published" in out
    assert (tmp_path / "output" / "verify_zoo" / tmp_path.name / "tiny" / "own" / "results.json").is_file()
