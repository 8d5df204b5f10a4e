"""A sweep on one HTML page that needs nothing but itself: no network, no other file."""

import base64
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from panomask.ablation.metric_names import metric_headings
from panomask.ablation.outcomes import RunOutcome, SweepOutcome
from panomask.ablation.plot import ABOVE, BELOW, GRID, INK, MUTED, PLAIN
from panomask.ablation.tables import cost_table, one_line, score_table

_DARK = {
    INK: "#e8ebf0",
    MUTED: "#a3adba",
    GRID: "#39414d",
    PLAIN: "#98a3b1",
    ABOVE: "#6cb2f7",
    BELOW: "#f2a365",
}
"""The plot's colours on a dark page."""


def render_page(outcome: SweepOutcome, svg: bytes) -> str:
    """The page as HTML: what was run and how, scores, plot, cost, overrides, and every run.

    Everything that comes from outside is escaped. Links to runs are relative to the sweep's folder.

    Args:
        svg: the plot, of `plot_scores`.

    Raises:
        InputError: scipy is missing.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    return environment.from_string(template).render(
        outcome=outcome,
        title=one_line(outcome.title),
        counts=_counts(outcome),
        scores=score_table(outcome),
        cost=cost_table(outcome),
        plot=base64.b64encode(_with_dark_colors(svg)).decode(),
        plot_text=_plot_text(outcome),
        headings=metric_headings(outcome.metrics),
        runs=[
            _run_row(outcome, variant.name or "as configured", run)
            for variant in outcome.variants
            for run in variant.runs
        ],
    )


def _counts(outcome: SweepOutcome) -> str:
    statuses = Counter(run.status for variant in outcome.variants for run in variant.runs)
    num_variants, num_seeds = len(outcome.variants), len(outcome.seeds)
    text = f"{num_variants} variant{'s' * (num_variants != 1)}, {num_seeds} seed{'s' * (num_seeds != 1)}; "
    text += f"{statuses.pop('done', 0)} of {num_variants * num_seeds} runs done"
    return text + "".join(f", {count} {status}" for status, count in sorted(statuses.items()))


def _plot_text(outcome: SweepOutcome) -> str:
    """What somebody hears who does not see the plot."""
    names = ", ".join(metric_headings(outcome.metrics))
    return f"Scores of every seed and their means, a row for each variant, a panel for each of: {names}."


def _run_row(outcome: SweepOutcome, name: str, run: RunOutcome) -> dict[str, Any]:
    return {
        "name": name,
        "seed": run.seed,
        "status": run.status,
        "scores": [run.scores.get(metric) for metric in outcome.metrics],
        "folder": run.folder.as_posix(),
        "href": _address(run.folder),
        "error": one_line(run.error),
    }


def _address(folder: Path) -> str:
    """Of a folder, as a link that can be nothing else: "./" and quotes leave no room for "javascript:"."""
    return folder.as_uri() if folder.is_absolute() else f"./{quote(folder.as_posix())}/"


def _with_dark_colors(svg: bytes) -> bytes:
    """The plot with a rule for dark pages: each of its colours gives way to a lighter one.

    matplotlib writes colours into `style` attributes, which a rule overrides with `!important` alone. Only
    the page's copy has the rule: the file is for papers, and a viewer may be dark around white paper.
    """
    rules = "".join(
        f'[style*="{key}: {light}"]{{{key}:{dark} !important}}'
        for light, dark in _DARK.items()
        for key in ("fill", "stroke")
    )
    style = f"<style>@media screen and (prefers-color-scheme: dark){{{rules}}}</style>".encode()
    start = svg.index(b">", svg.index(b"<svg")) + 1
    return svg[:start] + style + svg[start:]
