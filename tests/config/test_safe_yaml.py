import pytest

from panomask.config.safe_yaml import MAX_FILE_BYTES, read_yaml, read_yaml_with_bases
from panomask.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="a.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file


def error_of(read, path):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_plain_values(write):
    path = write("A: {B: 1, C: [x, 2.5, true, null]}\nD: 2024-01-31\nE: (1, 2)\nF: 'q'\n")
    assert read_yaml(path) == {
        "A": {"B": 1, "C": ["x", 2.5, True, None]},
        "D": "2024-01-31",
        "E": "(1, 2)",
        "F": "q",
    }


def test_empty_file_is_an_empty_mapping(write):
    assert read_yaml(write("# nothing\n")) == {}


def test_small_alias_and_merge_key(write):
    path = write("A: &a {X: 1}\nB: *a\nC: {<<: *a, Y: 2}\n")
    assert read_yaml(path) == {"A": {"X": 1}, "B": {"X": 1}, "C": {"X": 1, "Y": 2}}


def test_python_tuple(write):
    assert read_yaml(write("A: !!python/tuple [1, [2, 3]]\n")) == {"A": (1, [2, 3])}


def test_eval_tag_around_arithmetic(write):
    text = """
MODEL:
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval
      ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512]]"]
"""
    sizes = read_yaml(write(text))["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]
    assert sizes == [[x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32, 64, 128, 256, 512)]


def test_eval_tag_runs_no_code(write, tmp_path):
    victim = tmp_path / "victim"
    path = write(f"A: 1\nB: !!python/object/apply:eval [\"open('{victim}', 'w')\"]\n")
    assert "line 2: cannot evaluate" in error_of(read_yaml, path)
    assert not victim.exists()


@pytest.mark.parametrize("value", ["[]", '["1", "2"]', '"1"', "{args: ['1']}", "[[1]]"])
def test_eval_tag_takes_one_expression(write, value):
    assert "one expression" in error_of(read_yaml, write(f"A: !!python/object/apply:eval {value}\n"))


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/object/new:os.system ['true']",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/dict {a: 1}",
        "!!binary 'aGk='",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!timestamp '2024-01-01'",
        "!own [1]",
    ],
)
def test_any_other_tag_is_refused_with_file_line_and_tag(write, tag):
    message = error_of(read_yaml, write(f"A: 1\n\nB: {tag}\n"))
    assert "line 3" in message
    assert f"tag {tag.split()[0]} is not allowed in a config; plain values, " in message


def test_python_tuple_needs_a_list(write):
    assert "needs a list" in error_of(read_yaml, write("A: !!python/tuple 3\n"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("A: 1\nB: [1, 2\n", "line 3: broken YAML"),
        ("A: 1\n  B: 2\n", "line 2: broken YAML"),
        ("A: *unknown\n", "line 1: broken YAML: found undefined alias"),
        ("A: 1\n---\nB: 2\n", "broken YAML"),
        ("{[1]: 2}\n", "broken YAML"),
        ("{!!python/tuple [[1]]: 2}\n", "broken YAML: unhashable"),
        (f"A: {'1:' * 1000}1.5\n", "broken YAML: int too large"),
        ("A: !!int x\n", "broken YAML"),
        ("A: !!int ''\n", "broken YAML"),
        ("A: !!bool maybe\n", "broken YAML"),
        ("A: \x01\n", "broken YAML"),
        ("- 1\n", "holds a list"),
        ("text\n", "holds a str"),
        (b"A: \xff\n", "UTF-8 (byte 3)"),
        ("A: " + "[" * 5000, "nested too deeply"),
        ("#" * (MAX_FILE_BYTES + 1), "at most"),
    ],
)
def test_broken_file(write, text, part):
    assert part in error_of(read_yaml, write(text))


def test_missing_file(tmp_path):
    assert "not found" in error_of(read_yaml, tmp_path / "none.yaml")


def test_folder_instead_of_file(tmp_path):
    assert "cannot read" in error_of(read_yaml, tmp_path)


@pytest.mark.parametrize("shape", ["[{0}]", "{{<<: [{0}]}}", "{{a: [{0}]}}"])
def test_alias_bomb_is_refused_at_once(write, shape):
    lines = ["v0: &v0 {lol: 1}"]
    lines += [f"v{i}: &v{i} " + shape.format(", ".join([f"*v{i - 1}"] * 10)) for i in range(1, 30)]
    assert "too large" in error_of(read_yaml, write("\n".join(lines)))


def test_alias_that_contains_itself(write):
    assert "contains itself" in error_of(read_yaml, write("A: &a [*a]\n"))


# ---- _BASE_ ----


def test_base_is_relative_to_the_file_and_overridden_by_it(write, monkeypatch, tmp_path):
    base = write("A: {X: 1, Y: 2}\nB: 3\n", "base.yaml")
    top = write("_BASE_: ../base.yaml\nA: {Y: 20}\nC: 4\n", "sub/top.yaml")
    monkeypatch.chdir("/")
    values, origins = read_yaml_with_bases(str(top))
    assert values == {"A": {"X": 1, "Y": 20}, "B": 3, "C": 4}
    assert origins["A.X"] == origins["B"] == str(base)
    assert origins["A.Y"] == origins["C"] == str(top)


def test_base_chain_list_absolute_and_home(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("A: 1\nB: 1\nC: 1\nD: 1\n", "one.yaml")
    two = write("_BASE_: ~/one.yaml\nB: 2\nC: 2\nD: 2\n", "two.yaml")
    write("C: 3\nD: 3\n", "three.yaml")
    top = write(f"_BASE_: ['{two}', three.yaml]\nD: 4\n", "top.yaml")
    assert read_yaml_with_bases(top)[0] == {"A": 1, "B": 2, "C": 3, "D": 4}


def test_same_base_twice_is_no_circle(write):
    write("A: 1\n", "root.yaml")
    write("_BASE_: root.yaml\n", "left.yaml")
    write("_BASE_: root.yaml\n", "right.yaml")
    assert read_yaml_with_bases(write("_BASE_: [left.yaml, right.yaml]\n"))[0] == {"A": 1}


@pytest.mark.parametrize("other", ["a.yaml", "b.yaml"])
def test_circle_of_bases(write, tmp_path, other):
    write("_BASE_: a.yaml\n", "b.yaml")
    message = error_of(read_yaml_with_bases, write(f"_BASE_: {other}\n", "a.yaml"))
    assert "circle" in message


def test_too_many_bases(write):
    for i in range(1, 12):
        write(f"_BASE_: [f{i - 1}.yaml, f{i - 1}.yaml]\n", f"f{i}.yaml")
    write("A: 1\n", "f0.yaml")
    with pytest.raises(InputError, match="more than 64 files"):
        read_yaml_with_bases(write("_BASE_: f11.yaml\n"))


@pytest.mark.parametrize("base", ["3", "[1]", "{a: 1}"])
def test_base_of_a_wrong_type(write, base):
    assert "takes a path or a list of paths" in error_of(read_yaml_with_bases, write(f"_BASE_: {base}\n"))


def test_missing_base_names_the_base(write, tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: config file not found"):
        read_yaml_with_bases(write("_BASE_: none.yaml\n"))


def test_group_against_value(write, tmp_path):
    base = write("A: {X: 1}\n", "base.yaml")
    message = error_of(read_yaml_with_bases, write("_BASE_: base.yaml\nA: 3\n"))
    assert f"a value here, but a group of keys in {base}" in message


def test_group_with_all_keys_commented_out(write):
    write("A: {X: 1}\n", "base.yaml")
    assert read_yaml_with_bases(write("_BASE_: base.yaml\nA:\n#  X: 2\n"))[0] == {"A": {"X": 1}}
