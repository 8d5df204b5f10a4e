"""Projects add themselves: the ten lines of projects/README.md, and every sweep and config that is there."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from panomask.ablation import read_sweep
from panomask.config import check_supported
from panomask.engine import load_config

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(path.parent for path in (ROOT / "projects").glob("*/README.md"))
SWEEPS = sorted(path for project in PROJECTS for path in project.glob("*.yaml"))
CONFIGS = sorted(path for project in PROJECTS for path in project.glob("configs/*.yaml"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT / "projects"))


def _files_of_readme() -> dict[str, str]:
    """File name -> content: each block of code behind a line that begins with the file's name."""
    text = (ROOT / "projects" / "README.md").read_text()
    return dict(re.findall(r"^`(projects/mean_head/[\w./]+)`[^\n]*\n\n```\w+\n(.*?)```$", text, re.M | re.S))


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A folder with the project of the README; `configs` beside it is the checkout's."""
    for name, content in _files_of_readme().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def _run(tool: str, *words: object, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, words)]
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_readmes_project_is_ten_lines():
    files = _files_of_readme()
    assert sorted(files) == [
        f"projects/mean_head/{name}" for name in ("configs/mean_head.yaml", "heads.yaml", "project.py")
    ]
    assert len([line for line in files["projects/mean_head/project.py"].splitlines() if line]) == 10


@pytest.mark.slow
def test_a_project_adds_itself_in_a_folder_of_its_own(added, tiny_run):
    """Trained, evaluated again by the saved config, and swept; the core and the checkout are as they were."""
    tiny = tiny_run.parent
    config = "projects/mean_head/configs/mean_head.yaml"
    data = [
        *(
            "DATASETS.REGISTER.tiny.ANNOTATIONS",
            tiny / "tiny.json",
            "DATASETS.REGISTER.tiny.IMAGES",
            tiny / "images",
        ),
        *("DATASETS.TRAIN", "tiny", "DATASETS.TEST", "tiny", "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2),
        *("TEST.SHEET_IMAGES", 0, "DATALOADER.NUM_WORKERS", 0, "MODEL.DEVICE", "cpu"),
    ]
    _run("train_net.py", "--config-file", config, *data, cwd=added)
    saved = added / "output" / "mean_head" / "config.yaml"
    assert "PROJECT: mean_head" in saved.read_text()
    assert "MeanBoxHead" in saved.read_text()
    weights = ("MODEL.WEIGHTS", saved.with_name("model_final.pth"))
    again = ("PROJECT", added / "projects" / "mean_head")
    _run("train_net.py", "--config-file", saved, "--eval-only", *weights, *again, cwd=added)
    _run("ablate.py", "projects/mean_head/heads.yaml", "--seeds", 1, "--output", "out", *data, cwd=added)
    table = (added / "out" / "scores.md").read_text()
    assert "fully connected" in table
    assert "mean" in table


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["torchrun --standalone --nproc-per-node 2", "srun --gpus 8 python"])
def test_a_sweep_under_other_launchers(added, tiny_run, prefix, monkeypatch):
    """torchrun itself, with two processes on the CPU; and an `srun` that runs what it is told to."""
    srun = added / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(f'#!/bin/sh\necho "srun $1 $2" >> {added}/srun.txt\nshift 2\nexec "$@"\n')
    srun.chmod(0o755)
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{srun.parent}:{folder}:{os.environ['PATH']}")
    sweep = tiny_run.parent / "s.yaml"
    sweep.write_text("base: tiny.yaml\naxes: {a: {one: {SOLVER.MAX_ITER: 2}}}\nseeds: [1]")
    command = f"{prefix} {ROOT / 'tools' / 'train_net.py'}"
    _run("ablate.py", sweep, "--command", command, "--output", "out", cwd=added)
    assert (added / "out" / "scores.md").is_file()
    log = (added / "out" / "runs" / "one" / "seed_1" / "log.txt").read_text()
    assert ("2 processes" in log) == prefix.startswith("torchrun")
    assert (added / "srun.txt").is_file() == prefix.startswith("srun")


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_every_config_of_a_project(config):
    check_supported(load_config(config))
    assert config.read_text().startswith("# python tools/train_net.py --config-file "), "say how it is run"


@pytest.mark.parametrize("sweep", SWEEPS, ids=_name)
def test_every_row_of_a_sweep(sweep):
    assert f"tools/ablate.py projects/{_name(sweep)}" in sweep.read_text().splitlines()[0], (
        "say how it is run"
    )
    for variant in read_sweep(sweep).variants():
        words = [word for pair in variant.overrides.items() for word in pair]
        check_supported(load_config(variant.base, words))


@pytest.mark.parametrize("project", PROJECTS, ids=_name)
def test_a_project_knows_no_other(project):
    others = {path.name for path in PROJECTS} - {project.name}
    for path in project.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & others, path


def test_the_index_names_every_project():
    text = (ROOT / "projects" / "README.md").read_text()
    assert all(f"[{project.name}]({project.name}/README.md)" in text for project in PROJECTS)
