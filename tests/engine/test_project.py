"""Projects: found by the config's place, imported, their keys added; and what is refused."""

import re
import sys
from pathlib import Path

import pytest

from panomask.config import check_supported, get_cfg
from panomask.engine import add_project, load_config
from panomask.engine.project import PROJECTS_FOLDER, project_folder_of
from panomask.errors import InputError

CODE = """
from panomask.config import CfgNode
from .names import WIDTH

def add_config(cfg):
    cfg.MODEL.NEW_HEAD = CfgNode({"WIDTH": WIDTH})
"""


@pytest.fixture
def projects(tmp_path, monkeypatch):
    """A folder for projects whose imports are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path / "projects"
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")) or not hasattr(
            sys.modules[name], "__file__"
        ):
            del sys.modules[name]


def make(projects: Path, name: str, code: str = CODE, config: str = "MODEL: {NEW_HEAD: {WIDTH: 3}}") -> Path:
    folder = projects / name
    (folder / "configs" / "deep").mkdir(parents=True)
    (folder / "project.py").write_text(code)
    (folder / "names.py").write_text("WIDTH = 64\n")
    path = folder / "configs" / "deep" / "a.yaml"
    path.write_text(config)
    return path


def test_the_project_of_a_config_is_the_nearest_folder_with_code(projects):
    path = make(projects, "found_by_place")
    assert project_folder_of(path) == (projects / "found_by_place").resolve()
    cfg = load_config(path)
    assert (cfg.MODEL.NEW_HEAD.WIDTH, cfg.PROJECT) == (3, "found_by_place")
    assert load_config(path, ["MODEL.NEW_HEAD.WIDTH", "5"]).MODEL.NEW_HEAD.WIDTH == 5
    check_supported(cfg)
    assert "NEW_HEAD" not in get_cfg().MODEL  # of this run alone


def test_a_config_elsewhere_has_no_project(tmp_path):
    (tmp_path / "a.yaml").write_text("SEED: 3")
    cfg = load_config(tmp_path / "a.yaml", ["SEED", "4"])
    assert (cfg.SEED, cfg.PROJECT) == (4, "")


def test_a_saved_config_takes_its_project_from_the_command_line(projects, tmp_path):
    saved = tmp_path / "config.yaml"
    saved.write_text(load_config(make(projects, "found_again")).dump())
    with pytest.raises(InputError, match=r"config.yaml: PROJECT is 'found_again'.*PROJECT path/to/NAME"):
        load_config(saved)
    cfg = load_config(saved, ["PROJECT", str(projects / "found_again")])
    assert (cfg.MODEL.NEW_HEAD.WIDTH, cfg.PROJECT) == (3, "found_again")


def test_a_project_of_the_checkout_goes_by_its_name(tmp_path):
    (tmp_path / "a.yaml").write_text("PROJECT: roi_ablation\nMODEL: {ROI_MASK_HEAD: {NUM_FC: 3}}")
    assert (PROJECTS_FOLDER / "roi_ablation" / "project.py").is_file()
    assert load_config(tmp_path / "a.yaml").MODEL.ROI_MASK_HEAD.NUM_FC == 3
    (tmp_path / "b.yaml").write_text("SEED: 3")
    cfg = load_config(tmp_path / "b.yaml", ["PROJECT", "roi_ablation"])
    assert cfg.MODEL.ROI_MASK_HEAD.NUM_FC == 2
    with pytest.raises(InputError, match="nearest: roi_ablation"):
        load_config(tmp_path / "b.yaml", ["PROJECT", "roi_ablations"])


def test_a_file_cannot_choose_code_by_a_path(projects, tmp_path):
    make(projects, "not_asked_for", code="raise SystemExit('this ran')")
    for value in (str(projects / "not_asked_for"), "../projects/not_asked_for", "."):
        (tmp_path / "a.yaml").write_text(f"PROJECT: {value}")
        with pytest.raises(InputError, match="no project with code"):
            load_config(tmp_path / "a.yaml")


def test_two_projects_are_refused(projects):
    path = make(projects, "first_of_two")
    make(projects, "second_of_two")
    with pytest.raises(InputError, match="cannot be"):
        load_config(path, ["PROJECT", str(projects / "second_of_two")])
    assert load_config(path, ["PROJECT", str(projects / "first_of_two")]).PROJECT == "first_of_two"


def test_a_name_is_no_folder_that_happens_to_lie_here(tmp_path, monkeypatch):
    (tmp_path / "roi_ablation").mkdir()
    (tmp_path / "b.yaml").write_text("SEED: 3")
    monkeypatch.chdir(tmp_path)
    assert load_config("b.yaml", ["PROJECT", "roi_ablation"]).MODEL.ROI_MASK_HEAD.NUM_FC == 2
    with pytest.raises(InputError, match=r"it has no project.py"):
        load_config("b.yaml", ["PROJECT", "./roi_ablation"])


def test_a_projects_folder_hides_no_installed_package(projects):
    path = make(projects, "beside_a_package")
    (projects / "tabulate").mkdir()
    (projects / "tabulate" / "__init__.py").write_text("raise SystemExit")
    load_config(path)
    for name in [name for name in sys.modules if name.split(".")[0] == "tabulate"]:
        del sys.modules[name]
    import tabulate

    assert "site-packages" in tabulate.__file__


@pytest.mark.parametrize("code", ["def add_config(): pass", "add_config = 3"])
def test_an_add_config_that_cannot_be_called(projects, code):
    with pytest.raises(InputError, match=r"project.py: add_config takes the config alone"):
        load_config(make(projects, f"bad_add_config_{len(code)}", code=code))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("__main__", "another package of that name"),
        ("with-dash", "rename 'with-dash'"),
        ("torch", "another package of that name"),
    ],
)
def test_names_that_python_cannot_import(projects, name, message):
    path = make(projects, name)
    with pytest.raises(InputError, match=re.escape(message)):
        load_config(path)


def test_a_folder_without_code(tmp_path):
    with pytest.raises(InputError, match=r"no project.py"):
        add_project(get_cfg(), tmp_path)


def test_errors_of_a_projects_code_keep_their_traceback(projects):
    with pytest.raises(ZeroDivisionError):
        load_config(make(projects, "broken_code", code="1 / 0"))
