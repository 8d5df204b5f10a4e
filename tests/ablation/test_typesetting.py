import dataclasses

import pytest

from panomask.ablation.tables import Cell, Row, Table, score_table
from panomask.ablation.typesetting import escape_latex, latex, markdown

TABLE = Table(
    axes=("a|b",),
    headings=("Δ x_1",),
    rows=(
        Row(("plain",), (Cell("1.0 ± 0.5"),), True),
        Row(("[1] & 2",), (Cell("-3.4 [-5.6, -1.2]", -3.4, True),), False),
    ),
    notes=("Scores in percent: 5 %.",),
    gaps=("x, seed 2: failed (*bad*)",),
)


def test_markdown_by_hand():
    assert markdown(TABLE, "A <title>").splitlines() == [
        r"# A \<title\>",
        "",
        r"| a\|b             |                 Δ x_1 |",
        r"|:-----------------|----------------------:|",
        r"| plain (baseline) |             1.0 ± 0.5 |",
        r"| \[1\] & 2        | **-3.4 [-5.6, -1.2]** |",
        "",
        "Scores in percent: 5 %.",
        "",
        "Runs that are not done:",
        "",
        r"- x, seed 2: failed (\*bad\*)",
    ]


def test_markdown_escapes_what_means_something(sweep_outcome):
    line = markdown(score_table(sweep_outcome)).splitlines()[3]
    assert line.startswith(r"| \<b\>Öl_1\</b\> & 5%, \*x\*\|\$y\$ | 28 ")
    unescaped = line.replace(r"\|", "").count("|")
    assert unescaped == 8  # seven columns


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("roi_align", "roi_align"),
        ("_x_", r"\_x\_"),
        ("a & b", "a & b"),
        ("&lt;", r"\&lt;"),
        ("a\\b", r"a\\b"),
    ],
)
def test_markdown_escapes_no_more_than_it_must(text: str, escaped: str):
    table = dataclasses.replace(TABLE, notes=(text,), gaps=())
    assert markdown(table).splitlines()[-1] == escaped


def test_latex_by_hand():
    assert latex(TABLE, "made by: x\ny").splitlines() == [
        "% made by: x y",
        "% Scores in percent: 5 %.",
        "% x, seed 2: failed (*bad*)",
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\textbar{}b & $\Delta$ x\_1 \\",
        r"\midrule",
        r"plain \textit{(baseline)} & 1.0 $\pm$ 0.5 \\",
        r"{[}1{]} \& 2 & \textbf{$-$3.4 [$-$5.6, $-$1.2]} \\",
        r"\bottomrule",
        r"\end{tabular}%",
    ]


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("50 % & #1_a $x$ {y}", r"50 \% \& \#1\_a \$x\$ \{y\}"),
        (r"\input~^", r"\textbackslash{}input\textasciitilde{}\textasciicircum{}"),
        ("<b>|`", r"\textless{}b\textgreater{}\textbar{}\textasciigrave{}"),
        ("* [a]", "{*} {[}a{]}"),
        ("--opt ''", "-{}-opt '{}'"),
        ("Öl, straße", "Öl, straße"),
        ("two\nlines", "two lines"),
    ],
)
def test_latex_escapes(text: str, escaped: str):
    assert escape_latex(text) == escaped


def test_every_latex_row_has_every_column(sweep_outcome):
    lines = latex(score_table(sweep_outcome)).splitlines()
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 4
    assert {row.replace(r"\&", "").count("&") for row in rows} == {6}


def test_same_table_same_text(sweep_outcome):
    other = dataclasses.replace(sweep_outcome, commit="other", command="other")
    for typeset in (markdown, latex):
        assert typeset(score_table(sweep_outcome)) == typeset(score_table(other))
