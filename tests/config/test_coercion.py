import pytest

from panomask.config.coercion import coerce, like_container, parse_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("(1, 2)", (1, 2)),
        ("None", None),
        ("'a'", "a"),
        ("coco_2017_val", "coco_2017_val"),
        ("a/b", "a/b"),
        ("", ""),
        ("{1, 2}", "{1, 2}"),
        ("b'x'", "b'x'"),
        ("1+2j", "1+2j"),
    ],
)
def test_parse_text(text, value):
    assert parse_text(text) == value
    assert type(parse_text(text)) is type(value)


@pytest.mark.parametrize(
    ("given", "current", "expected"),
    [
        (3, 1, 3),
        ("3", 1, 3),
        (3, 1.0, 3.0),
        ("1e-4", 1.0, 0.0001),
        (True, False, True),
        ("-inf", 1.0, float("-inf")),
        ("true", False, True),
        ("False", True, False),
        ("123", "x", "123"),
        ("None", "x", "None"),
        (None, 1, None),
        ("None", 1, None),
        (2.5, None, 2.5),
        ("1e-4", None, 0.0001),
        ([1, 2], (0,), (1, 2)),
        ((1, 2), [0], [1, 2]),
        ("(1, 2)", (0,), (1, 2)),
        ("1,2", (0,), (1, 2)),
        ("5", (0,), (5,)),
        ("shapes_train", (), ("shapes_train",)),
        ("a, b", (), ("a", "b")),
        ("(a,)", (), ("a",)),
        ("'a'", (), ("a",)),
        ("", ("x",), ()),
        ("()", ("x",), ()),
        ("p2,p3", ["p4"], ["p2", "p3"]),
        ("[[1], [2.5]]", [[0, 0]], [[1], [2.5]]),
    ],
)
def test_coerce(given, current, expected):
    value = coerce(given, current)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("given", "current", "expected"),
    [("123", "x", "123"), ("'q'", "x", "q"), ("None", "x", None), ("a b", "x", "a b"), ("{}", "x", "{}")],
)
def test_string_typed_on_the_command_line(given, current, expected):
    assert coerce(given, current, is_command_line=True) == expected


@pytest.mark.parametrize(
    ("given", "current", "reason"),
    [
        ("abc", 1, "takes an int like 1, not a str: 'abc'"),
        ("1.5", 1, "takes an int like 1, not a float: '1.5'"),
        (True, 1, "not a bool"),
        (1, True, "not an int"),
        (1, "x", "takes a str like 'x', not an int: 1"),
        ({"A": 1}, 1, "not a group of keys"),
        ({"A": 1}, None, "takes None like None, not a group of keys"),
        (3, (1,), "takes a tuple like (1,), not an int: 3"),
        ((1, 2), 3, "takes an int like 3, not a tuple"),
        ("a,b", (1,), "takes a list of numbers"),
        ([1, 2], ["p2"], "takes a list of strs"),
        ([[1, "x"]], [[1, 2]], "takes a list of numbers"),
        (10**400, 1.5, "takes a float like 1.5, not an int of this size"),
    ],
)
def test_value_of_a_wrong_type(given, current, reason):
    with pytest.raises(TypeError) as caught:
        coerce(given, current)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("value", "model", "expected"),
    [
        ([[1], [2]], ((0,), (0,)), ((1,), (2,))),
        ([[1], [2]], ((0,),), ((1,), (2,))),
        ([(1,)], [], [[1]]),
        ([[1], (2,)], ([0], (0,)), ([1], (2,))),
        ([[[1]]], ([(0,)],), ([(1,)],)),
        (3, (1,), 3),
    ],
)
def test_like_container(value, model, expected):
    assert like_container(value, model) == expected  # lists and tuples are never equal
