"""Sweep files: what is read from them, what comes of their axes, and what is refused."""

from dataclasses import replace

import pytest

from panomask.ablation.sweep import load_sweep, read_sweep, with_overrides, write_sweep
from panomask.errors import InputError

SWEEP = """
title: A title
notes: >
  Two
  lines.
base: configs/a.yaml
axes:
  pooling:
    RoIPool, max: {MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIPool}
    align: [MODEL.ROI_BOX_HEAD.POOLER_TYPE, ROIAlignV2, MODEL.ANCHOR_GENERATOR.SIZES, [[8, 16]]]
  depth:
    18: {MODEL.RESNETS.DEPTH: 18, MODEL.MASK_ON: True}
    other: {base: configs/b.yaml}
    as it is:
baseline: {depth: other}
seeds: [3, 1]
metrics: [segm/AP]
overrides: {SOLVER.BASE_LR: 0.5}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "study"
    (folder / "configs").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "configs" / f"{name}.yaml").write_text("SEED: 1")
    (folder / "s.yaml").write_text(SWEEP)
    return folder / "s.yaml"


def test_reading(file):
    sweep = read_sweep(file)
    assert (sweep.title, sweep.notes, sweep.base) == ("A title", "Two lines.", "study/configs/a.yaml")
    assert (sweep.seeds, sweep.metrics, sweep.project) == ((3, 1), ("segm/AP",), "")
    assert sweep.baseline == ("RoIPool, max", "other")  # the first where the file does not say
    variants = sweep.variants()
    names = [("RoIPool, max", depth) for depth in ("18", "other", "as it is")]
    assert [v.choices for v in variants] == [*names, *(("align", depth) for _, depth in names)]
    assert variants[0].folder == "RoIPool_max__18"
    assert variants[0].overrides == {
        **{"SOLVER.BASE_LR": "0.5", "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool"},
        **{"MODEL.RESNETS.DEPTH": "18", "MODEL.MASK_ON": "True"},
    }
    assert variants[3].overrides["MODEL.ANCHOR_GENERATOR.SIZES"] == "[[8, 16]]"
    assert [v.base for v in variants[:3]] == [
        "study/configs/a.yaml",
        "study/configs/b.yaml",
        "study/configs/a.yaml",
    ]


def test_names_are_taken_as_they_are_written(file):
    """YAML would make 62, 8, True, 1.1 and nothing of these."""
    names = ("1:2", "010", "on", "1.10", "~")
    choices = "".join(f"    {name}: {{SEED_{i}: 1}}\n" for i, name in enumerate(names))
    file.write_text(f'base: configs/a.yaml\naxes:\n  50:\n{choices}baseline: {{50: "1.10"}}')
    sweep = read_sweep(file)
    assert [choice.name for choice in sweep.axes[0].choices] == list(names)
    assert (sweep.axes[0].name, sweep.baseline) == ("50", ("1.10",))


def test_numbers_are_written_without_an_exponent(file):
    """A command line would take -1e-05 for an option."""
    file.write_text("base: configs/a.yaml\naxes: {x: {one: {A: -0.00001, B: 1.0e+20, C: .inf, D: 2.50}}}")
    (variant,) = read_sweep(file).variants()
    assert variant.overrides == {"A": "-0.00001", "B": "100000000000000000000", "C": "inf", "D": "2.5"}


def test_a_folder_has_one_sweep(file, tmp_path, caplog):
    write_sweep(read_sweep(file), tmp_path)
    other = file.with_name("other.yaml")
    other.write_text("base: configs/a.yaml\naxes: {x: {one: {}}}")
    with pytest.raises(
        InputError, match=r"holds the sweep of study/s.yaml; give study/other.yaml another folder"
    ):
        write_sweep(read_sweep(other), tmp_path)
    write_sweep(replace(read_sweep(file), seeds=(3, 1, 2)), tmp_path)
    assert not caplog.text
    write_sweep(replace(read_sweep(file), seeds=(3, 2)), tmp_path)
    assert "no longer part of the sweep" in caplog.text
    assert "RoIPool_max__18/seed_1" in caplog.text


def test_defaults(file):
    file.write_text("base: configs/a.yaml\naxes: {x: {one: {}}}")
    sweep = read_sweep(file)
    assert (sweep.title, sweep.seeds, sweep.metrics, sweep.baseline) == ("s", (1,), (), ("one",))


def test_written_and_loaded_it_is_the_same(file, tmp_path):
    sweep = replace(read_sweep(file), command="python tools/ablate.py s.yaml")
    write_sweep(sweep, tmp_path)
    assert load_sweep(tmp_path) == sweep


def test_overrides_of_the_command_line_come_last_but_before_the_choices(file):
    sweep = with_overrides(read_sweep(file), ["SOLVER.BASE_LR", "0.1", "MODEL.RESNETS.DEPTH", "50"])
    for key, reason in (
        ("SEED", "seeds in the file"),
        ("OUTPUT_DIR", "--output"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "every choice of the axis pooling sets it"),
    ):
        with pytest.raises(InputError, match=reason):
            with_overrides(sweep, [key, "1"])
    first, second, *_ = sweep.variants()
    assert (first.overrides["SOLVER.BASE_LR"], first.overrides["MODEL.RESNETS.DEPTH"]) == ("0.1", "18")
    assert second.overrides["MODEL.RESNETS.DEPTH"] == "50"
    with pytest.raises(InputError, match="3 words"):
        with_overrides(sweep, ["A", "1", "B"])


def test_the_project_of_a_sweep_goes_to_configs_outside_it(file):
    (file.parent / "project.py").write_text("")
    (file.parent.parent / "zoo.yaml").write_text("SEED: 1")
    sweep = read_sweep(file)
    assert sweep.project == "./study"
    assert "PROJECT" not in sweep.variants()[0].overrides  # the config's place says it
    outside = replace(sweep, base="zoo.yaml").variants()
    assert [v.overrides.get("PROJECT") for v in outside[:3]] == ["./study", None, "./study"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base: configs/a.yaml", "", "base is missing"),
        ("base: configs/a.yaml", "base: configs/c.yaml", "no such file"),
        ("configs/b.yaml", "configs/c.yaml", "no such file"),
        ("title: A title", "titel: A title", "unknown entry titel; nearest known: title"),
        ("seeds: [3, 1]", "seeds: 3", r"seeds is 3; it takes a list"),
        ("seeds: [3, 1]", "seeds: []", "whole numbers"),
        ("seeds: [3, 1]", "seeds: [1, 1]", "each once"),
        ("seeds: [3, 1]", "seeds: [-1]", "from 0 to"),
        ("seeds: [3, 1]", "seeds: [9999999999]", "from 0 to 2147483647"),
        ("seeds: [3, 1]", "seeds: [3]\nseeds: [1]", "'seeds' stands there twice"),
        ("    other: {", "    18: {", "'18' stands there twice"),
        ("    as it is:", "    as before: {base: configs/b.yaml}", "sets what other sets"),
        ("    as it is:", f"    {'long' * 30}:", "100 characters"),
        ("title: A title", "title: [A]", "title is .*; it takes text"),
        ("metrics: [segm/AP]", "metrics: [[segm]]", "it takes names"),
        ("    as it is:", "    [a, b]:", "a name is a word"),
        ("seeds: [3, 1]", "seeds: [True]", "whole numbers"),
        ("{depth: other}", "{depth: 19}", "its choices are 18, other, as it is"),
        ("{depth: other}", "{dept: 18}", "unknown entry baseline.dept; nearest known: depth"),
        ("SOLVER.BASE_LR: 0.5", "SEED: 5", "overrides.SEED: the sweep gives each run its seed"),
        ("MODEL.RESNETS.DEPTH: 18", "OUTPUT_DIR: x", "axes.depth.18.OUTPUT_DIR: .*--output"),
        ("MODEL.RESNETS.DEPTH: 18", "MODEL.ROI_BOX_HEAD.POOLER_TYPE: x", "pooling and depth both set"),
        ("ROIAlignV2, MODEL.ANCHOR_GENERATOR.SIZES, [[8, 16]]]", "ROIAlignV2, A]", "it has 3 items"),
        ("    as it is:", "    other!:", "would have one folder, RoIPool_max__other"),
        ("align: [MODEL", "align: {base: configs/a.yaml}\n    more: [MODEL", "two axes name a base config"),
        ("{base: configs/b.yaml}", "7", "axes.depth.other is 7; it takes a mapping"),
        ("    as it is:", "    as it is: !!python/object/apply:os.getcwd []", "python/object"),
    ],
)
def test_what_is_refused(file, old, new, message):
    assert old in SWEEP
    file.write_text(SWEEP.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_sweep(file)


def test_folders_without_a_sweep(tmp_path):
    with pytest.raises(InputError, match=r"sweep.json: no such file"):
        load_sweep(tmp_path)
    for text in ('{"axes": 3}', "[]", '{"axes": []}', '{"axes": [{"name": "a", "choices": [{"no": 1}]}]}'):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(InputError, match="not written by a sweep"):
            load_sweep(tmp_path)
