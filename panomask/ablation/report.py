"""Everything that people look at after a sweep, as files."""

from pathlib import Path

from panomask.ablation.outcomes import SweepOutcome
from panomask.ablation.page import render_page
from panomask.ablation.plot import plot_scores
from panomask.ablation.raw_numbers import runs_csv, scores_csv
from panomask.ablation.statistics import require_ablation_packages
from panomask.ablation.tables import cost_table, score_table
from panomask.ablation.typesetting import latex, markdown
from panomask.atomic_file import write_atomically


def write_report(outcome: SweepOutcome, folder: Path) -> list[Path]:
    """Write index.html, scores.md/.tex/.csv, cost.md/.tex, runs.csv and plot.svg/.png.

    The files of scores and the plot are the same, byte for byte, for the same scores and command. Each file
    is written whole or not at all.

    Args:
        folder: the sweep's, which the runs' folders are relative to; made where it does not exist.

    Returns:
        the files, the page first.

    Raises:
        InputError: scipy or matplotlib is missing; nothing is written then.
    """
    require_ablation_packages()
    scores, cost, plot = score_table(outcome), cost_table(outcome), plot_scores(outcome)
    how = f"made by: {outcome.command}" if outcome.command else ""
    contents: dict[str, str | bytes] = {
        "index.html": render_page(outcome, plot.svg),
        "scores.md": markdown(scores, outcome.title),
        "scores.tex": latex(scores, how),
        "scores.csv": scores_csv(outcome),
        "cost.md": markdown(cost, f"{outcome.title}: cost"),
        "cost.tex": latex(cost, how),
        "runs.csv": runs_csv(outcome),
        "plot.svg": plot.svg,
        "plot.png": plot.png,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with write_atomically(folder / name) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    return [folder / name for name in contents]
