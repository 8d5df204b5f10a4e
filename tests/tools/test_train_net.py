"""The whole path from a command line to results, on six images."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from panomask.engine import run_tool

TOOL = Path(__file__).parents[2] / "tools" / "train_net.py"


@pytest.fixture
def call(tool, monkeypatch, capfd, tiny_run):
    """Runs the tool in this process; returns exit status and the lines on standard error."""

    def run(*arguments: str, config: str = str(tiny_run)) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", [str(TOOL), "--config-file", config, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            run_tool(tool.run)
        except SystemExit as caught:
            status = caught.code
        return status, capfd.readouterr().err.splitlines()

    return run


def command(tiny_run: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(TOOL), "--config-file", str(tiny_run), *map(str, arguments)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_trains_evaluates_draws_and_evaluates_again(call, tmp_path):
    out = tmp_path / "out"
    assert call("TEST.SHEET_IMAGES", "2", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0") == (0, [])
    expected = {
        *("config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_final.pth", "predictions.jpg"),
        *("results.json", "results.md", "inference", "model_0000002.pth", "model_0000005.pth"),
    }
    assert expected <= {path.name for path in out.iterdir()}
    results = json.loads((out / "results.json").read_text())
    (out / "results.json").unlink()
    config = out / "config.yaml"
    status, errors = call("--eval-only", "MODEL.WEIGHTS", out / "model_final.pth", config=str(config))
    assert (status, errors) == (0, [])
    assert json.loads((out / "results.json").read_text()) == results
    assert call("--eval-only", "--resume", config=str(config))[0] == 0


def test_fast_rcnn_on_the_proposals_of_an_rpn(call, tmp_path):
    rpn = tmp_path / "rpn"
    short = ("SOLVER.MAX_ITER", 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    assert call(*short, "MODEL.META_ARCHITECTURE", "ProposalNetwork", "OUTPUT_DIR", rpn) == (0, [])
    scores = json.loads((rpn / "results.json").read_text())["tiny"]["box_proposals"]
    assert {"AR@100", "ARs@100", "ARl@1000"} <= set(scores)
    proposals = rpn / "inference" / "tiny" / "box_proposals.pkl"
    fast = (
        *("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "MODEL.LOAD_PROPOSALS", True),
        *("DATASETS.PROPOSAL_FILES_TRAIN", proposals, "DATASETS.PROPOSAL_FILES_TEST", proposals),
    )
    assert call(*short, *fast) == (0, [])
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["tiny"]) == {"bbox", "segm"}
    assert not any(name.startswith("proposal_generator") for name in weights(tmp_path / "out"))
    new = ("OUTPUT_DIR", tmp_path / "new")
    missing = tmp_path / "none.pkl"
    fails_with_one_line(call(*new, *fast, "DATASETS.PROPOSAL_FILES_TEST", missing), missing)
    fails_with_one_line(call(*new, *fast, "TEST.AUG.ENABLED", True), "TEST.AUG.ENABLED")
    assert not (tmp_path / "new" / "metrics.json").exists()


def test_test_time_augmentation(call, tmp_path):
    out = tmp_path / "out"
    opts = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "[48,64]")
    opts += ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    expected = ("TEST.EXPECTED_RESULTS", "[['bbox_TTA', 'AP', 50, 50], ['segm', 'AP', 50, 50]]")
    assert call("SOLVER.MAX_ITER", 2, *opts, *expected) == (0, [])
    results = json.loads((out / "TTA" / "results.json").read_text())
    assert set(results["tiny"]) == {"bbox", "segm"}
    assert (out / "TTA" / "inference" / "tiny" / "coco_instances_results.json").exists()
    last = json.loads((out / "metrics.json").read_text().splitlines()[-1])
    assert {"bbox/AP", "bbox_TTA/AP", "segm_TTA/AP50"} <= set(last)
    (out / "TTA" / "results.json").unlink()
    assert call("--eval-only", *opts, *expected, "MODEL.WEIGHTS", out / "model_final.pth") == (0, [])
    assert json.loads((out / "TTA" / "results.json").read_text()) == results
    rpn = ("MODEL.META_ARCHITECTURE", "ProposalNetwork", "OUTPUT_DIR", tmp_path / "rpn")
    fails_with_one_line(call(*opts, *rpn), "TEST.AUG.ENABLED", "ProposalNetwork")


def fails_with_one_line(result: tuple[int, list[str]], *words: str) -> None:
    status, errors = result
    assert status == 1
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    for word in words:
        assert str(word) in errors[0]


def test_bad_command_lines(call, tmp_path):
    fails_with_one_line(call(config=""), "--config-file is missing")
    fails_with_one_line(call(config=str(tmp_path / "none.yaml")), tmp_path / "none.yaml")
    fails_with_one_line(call("SOLVER.BASE_LRR", "1"), "SOLVER.BASE_LRR", "SOLVER.BASE_LR")
    fails_with_one_line(call("--num-gpus", "0"), "--num-gpus 0")
    fails_with_one_line(call("DATASETS.TRAIN", "tinny"), "tinny", "tiny")
    fails_with_one_line(call("--eval-only", "DATASETS.TEST", "()"), "DATASETS.TEST is empty")
    fails_with_one_line(call("--eval-only"), "MODEL.WEIGHTS is empty")
    fails_with_one_line(call("--eval-only", "--resume"), "no checkpoint")


def test_class_count_that_disagrees_with_the_data(call):
    fails_with_one_line(call("MODEL.ROI_HEADS.NUM_CLASSES", "80"), "80", "tiny has 2 classes")


def test_bad_annotation_files(call, tmp_path):
    annotations = tmp_path / "tiny.json"
    text = annotations.read_text()
    annotations.write_text(text[: len(text) // 2])
    fails_with_one_line(call(), annotations)
    annotations.unlink()
    fails_with_one_line(call(), annotations)


def test_bad_images(call, tmp_path):
    image = tmp_path / "images" / "3.png"
    image.write_bytes(image.read_bytes()[:200])
    fails_with_one_line(call(), image)
    image.unlink()
    fails_with_one_line(call("OUTPUT_DIR", tmp_path / "out2"), image)


def test_bad_checkpoints(call, tmp_path):
    out = tmp_path / "out"
    assert call("SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()")[0] == 0
    whole = out / "model_final.pth"
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:-1000])
    new = ("OUTPUT_DIR", tmp_path / "new")
    fails_with_one_line(call(*new, "MODEL.WEIGHTS", cut), cut, "truncated")
    fails_with_one_line(call(*new, "--eval-only", "MODEL.WEIGHTS", cut), cut, "truncated")
    fails_with_one_line(call(*new, "MODEL.WEIGHTS", tmp_path / "none.pth"), "no such file")
    deeper = ("MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32")
    fails_with_one_line(call(*new, *deeper, "MODEL.WEIGHTS", whole), whole, "another model")
    other = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), other)
    fails_with_one_line(call(*new, "MODEL.WEIGHTS", other), other, "another model")


def test_a_damaged_run_is_not_resumed_and_not_lost(call, tmp_path):
    out = tmp_path / "out"
    assert call("DATASETS.TEST", "()")[0] == 0
    last = out / "model_final.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    before = {path.name: path.read_bytes() for path in out.glob("m*")}
    fails_with_one_line(call("--resume"), last, "truncated", out / "last_checkpoint")
    fails_with_one_line(call(), "--resume")
    assert before == {path.name: path.read_bytes() for path in out.glob("m*")}
    (out / "last_checkpoint").write_text("model_0000002.pth")  # the remedy: an earlier one
    assert call("--resume")[0] == 0


def test_a_refused_resume_leaves_the_config_of_the_run(call, tmp_path):
    config = tmp_path / "out/config.yaml"
    assert call("SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()")[0] == 0
    before = config.read_bytes()
    fails_with_one_line(call("--resume", "MODEL.FPN.OUT_CHANNELS", 24), "resume")
    assert config.read_bytes() == before
    assert call("--resume", "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()")[0] == 0
    assert "MAX_ITER: 3" in config.read_text()


def test_a_diverged_training_is_one_line(call):
    fails_with_one_line(call("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 1e30), "SOLVER.BASE_LR")


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_bit_equal_to_uninterrupted(tiny_run, tmp_path):
    opts = "SEED 7 SOLVER.MAX_ITER 24 SOLVER.CHECKPOINT_PERIOD 1 DATALOADER.NUM_WORKERS 2 TEST.EVAL_PERIOD 5"
    opts = opts.split()
    whole = command(tiny_run, *opts, "OUTPUT_DIR", tmp_path / "whole")
    subprocess.run(whole, check=True, capture_output=True, timeout=300)
    moments = random.Random()
    out = tmp_path / "killed"
    resumed = command(tiny_run, "--resume", *opts, "OUTPUT_DIR", out)
    for _ in range(3):
        process = subprocess.Popen(resumed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        known = (out / "last_checkpoint").read_text() if (out / "last_checkpoint").exists() else ""
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "last_checkpoint").exists() and (out / "last_checkpoint").read_text() != known:
                break  # it has come further than the process before
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(resumed, check=True, capture_output=True, timeout=300)
    expected, found = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    iterations = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert iterations == sorted(set(iterations))


@pytest.mark.slow
def test_two_processes_train_evaluate_and_resume(tiny_run, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        result = subprocess.run(
            command(tiny_run, "--num-gpus", "2", *arguments), capture_output=True, text=True, timeout=300
        )
        return result

    result = run("MODEL.DEVICE", "cuda")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finds no GPU") == (not torch.cuda.is_available())
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["tiny"]) == {"bbox", "segm"}
    expected = weights(tmp_path / "out")
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000002.pth")
    result = run("--resume")
    assert result.returncode == 0, result.stderr
    found = weights(tmp_path / "out")
    assert all(torch.allclose(expected[key].float(), found[key].float(), atol=1e-6) for key in expected)
    result = run("--eval-only", "MODEL.WEIGHTS", str(tmp_path / "none.pth"))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@pytest.mark.slow
def test_under_torchrun(tiny_run, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launcher, *command(tiny_run, "SEED", "1")[1:]], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "results.json").exists()
    assert (tmp_path / "out" / "model_final.pth").exists()


def test_help_is_readable():
    result = subprocess.run(
        [sys.executable, str(TOOL), "--help"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0
    for word in ("--resume", "examples:", "DATASETS.REGISTER", "torchrun"):
        assert word in result.stdout
