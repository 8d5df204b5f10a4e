"""Tables as Markdown that GitHub shows, and as LaTeX that a paper takes in with \\input."""

import re

from tabulate import tabulate

from panomask.ablation.tables import Cell, Table, one_line

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",  # babel makes it a shorthand in some languages
    # A row that begins with [ or * would be an argument of the \\ that ends the row before.
    **{character: f"{{{character}}}" for character in "[]*"},
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "\N{EN DASH}": r"\textendash{}",
    "\N{MINUS SIGN}": "$-$",
}


def markdown(table: Table, title: str = "") -> str:
    """The table in GitHub's Markdown, below its title and above its notes; ends with a line break."""
    body = [
        [*map(_escape_markdown, row.choices), *(_markdown_cell(cell) for cell in row.cells)]
        for row in table.rows
    ]
    for row, line in zip(table.rows, body, strict=True):
        line[0] += " (baseline)" if row.is_baseline else ""
    headings = [_escape_markdown(heading) for heading in (*table.axes, *table.headings)]
    alignment = (*("left" for _ in table.axes), *("right" for _ in table.headings))
    text = tabulate(body, headings, tablefmt="pipe", colalign=alignment, disable_numparse=True)
    parts = [f"# {_escape_markdown(one_line(title))}"] if title else []
    parts += [text, *map(_escape_markdown, table.notes)]
    if table.gaps:
        parts.append(
            "\n".join(["Runs that are not done:", "", *(f"- {_escape_markdown(gap)}" for gap in table.gaps)])
        )
    return "\n\n".join(parts) + "\n"


def _escape_markdown(text: str) -> str:
    """Text that shows as it is. A "_" inside a word and an "&" that begins no entity need no escape."""
    text = re.sub(r"([\\`*\[\]<>|~$])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return re.sub(r"&(?=#?\w+;)", r"\\&", text)


def _markdown_cell(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.is_strong else cell.text


def latex(table: Table, comment: str = "") -> str:
    """The table as a `tabular` in booktabs' style, to \\input into a `table` with a caption of your own.

    The document loads booktabs; it needs no other package.

    Args:
        comment: how the table was made, a line above it that LaTeX skips. The notes and the runs that are not
            done are such lines too, so that a caption can be written from them.
    """
    lines = [f"% {one_line(line)}" for line in (comment, *table.notes, *table.gaps) if line]
    lines.append(r"% \usepackage{booktabs}")
    lines.append(rf"\begin{{tabular}}{{{'l' * len(table.axes)}{'r' * len(table.headings)}}}")
    headings = [escape_latex(heading) for heading in (*table.axes, *table.headings)]
    lines += [r"\toprule", _latex_line(headings), r"\midrule"]
    for row in table.rows:
        choices = [escape_latex(choice) for choice in row.choices]
        choices[0] += r" \textit{(baseline)}" if row.is_baseline else ""
        lines.append(_latex_line([*choices, *(_latex_cell(cell) for cell in row.cells)]))
    # A line break after \end{tabular} would be a space; the comment eats it.
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}%"]) + "\n"


def _latex_line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is: no commands, no ligatures of dashes and quotes."""
    text = "".join(_LATEX.get(character, character) for character in one_line(text))
    return re.sub(r"(?<=[-'])(?=[-'])", "{}", text)


def _latex_cell(cell: Cell) -> str:
    """A number's hyphen is a minus; its brackets stand inside a row, where they are harmless."""
    text = re.sub(r"-(?=\d)", "$-$", cell.text)
    text = "".join(_LATEX[character] if character in "±\N{EN DASH}" else character for character in text)
    return rf"\textbf{{{text}}}" if cell.is_strong else text
