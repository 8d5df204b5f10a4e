import pytest

from panomask.config.arithmetic import MAX_LENGTH, evaluate_arithmetic


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3", 3),
        (" -2.5 ", -2.5),
        ("1 + 2 * 3", 7),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("-(1 - +4)", 3),
        ("[1, (2, 3), []]", [1, (2, 3), []]),
        ("[x * x for x in (1, 2, 3)]", [1, 4, 9]),
        ("[[x, y] for x in [1, 2] for y in [x, 5]]", [[1, 1], [1, 5], [2, 2], [2, 5]]),
        ("[[x + y for y in [1, 2]] for x in [10, 20]]", [[11, 12], [21, 22]]),
        ("[x for x in [[1, 2], [3]]]", [[1, 2], [3]]),
    ],
)
def test_arithmetic(expression, value):
    assert evaluate_arithmetic(expression) == value
    assert type(evaluate_arithmetic(expression)) is type(value)


def test_anchor_sizes_of_base_retinanet():
    sizes = evaluate_arithmetic("[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]")
    assert sizes[0] == [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
    assert [row[0] for row in sizes] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "x",
        "abs(1)",
        "__import__('os').system('true')",
        "(1).__class__",
        "[1][0]",
        "'text'",
        "True",
        "1j",
        "(-1) ** 0.5",
        "1 / 0",
        "1 if 1 else 2",
        "lambda: 1",
        "{1: 2}",
        "{x for x in [1]}",
        "(x for x in [1])",
        "[x for x in [1] if x]",
        "[x for x in 3]",
        "[x for x, y in [(1, 2)]]",
        "(y := 1)",
        "[0] * 9",
        "[1] + [2]",
        "9 ** 9 ** 9 ** 9",
        "10.0 ** 64 * 10.0 ** 64",
        "2 ** 63 * 2",
        "1e999",
        "(" * 400 + "1" + ")" * 400,
        "1\x00",
        "1" * (MAX_LENGTH + 1),
        "[a for a in [1,2,3,4,5,6,7,8,9] for b in [1,2,3,4,5,6,7,8,9] for c in [1,2,3,4,5,6,7,8,9]"
        " for d in [1,2,3,4,5,6,7,8,9] for e in [1,2,3,4,5,6,7,8,9]]",
    ],
)
def test_anything_else_is_refused(expression):
    with pytest.raises(ValueError):
        evaluate_arithmetic(expression)
