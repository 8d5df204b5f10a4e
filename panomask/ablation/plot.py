"""The scores of a sweep as one figure: a panel a metric, a row a variant, a dot a seed.

The same outcome gives the same bytes, whatever the user's matplotlibrc says.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from panomask.ablation.metric_names import metric_headings
from panomask.ablation.outcomes import SweepOutcome, VariantOutcome
from panomask.ablation.statistics import (
    difference_to_baseline,
    require_ablation_packages,
    scores_by_seed,
    summarize,
)
from panomask.ablation.tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1c2430", "#5b6675", "#dfe3e8"
PLAIN, ABOVE, BELOW = "#6b7787", "#1668b8", "#b8500f"
"""Colours of a row by its interval: around 0 (or none), above 0, below 0; distinct to the colour-blind."""

_COLUMNS = 3
_PANEL_WIDTH, _ROW_HEIGHT, _PANEL_MARGIN = 2.9, 0.30, 0.85  # inches
_LABEL_WIDTH, _CHARACTER = 46, 0.078  # characters, inches
_SETTINGS: Any = {  # matplotlib types each key
    "svg.hashsalt": "panomask.ablation",
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
}


class ScorePlot(NamedTuple):
    """One figure in two formats; the SVG's background is transparent, the PNG's white."""

    svg: bytes
    png: bytes


def plot_scores(outcome: SweepOutcome) -> ScorePlot:
    """Draw each seed's score as a ring, the mean as a bar, and the baseline's mean as a dashed line.

    A seed has its height within each row, so that pairs can be followed. Rows whose difference to the
    baseline has a confidence interval without 0 are coloured: blue above, orange below.

    Raises:
        InputError: scipy or matplotlib is missing.
    """
    require_ablation_packages()
    with _own_settings():
        figure = _draw(outcome)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return ScorePlot(svg.getvalue(), png.getvalue())


@contextmanager
def _own_settings() -> Iterator[None]:
    """matplotlib's defaults and ours inside the block; what the caller had set after it."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _draw(outcome: SweepOutcome) -> "Figure":
    from matplotlib.figure import Figure

    labels = [_label(outcome, variant) for variant in outcome.variants]
    lines = max(label.count("\n") + 1 for label in labels)
    label_width = _CHARACTER * max(len(line) for label in labels for line in label.split("\n"))
    num_columns = max(1, min(_COLUMNS, len(outcome.metrics)))
    num_rows = max(1, -(-len(outcome.metrics) // num_columns))  # an empty figure while nothing is measured
    row_height = max(_ROW_HEIGHT, 0.17 * lines + 0.08)
    height = num_rows * (row_height * len(labels) + _PANEL_MARGIN) + 0.35
    figure = Figure(figsize=(label_width + num_columns * _PANEL_WIDTH + 0.3, height), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for panel in panels.flat[len(outcome.metrics) :]:
        panel.set_visible(False)
    headings = metric_headings(outcome.metrics)
    for idx, (metric, heading) in enumerate(zip(outcome.metrics, headings, strict=True)):
        panel = panels.flat[idx]
        panel.set_title(one_line(heading), loc="left", fontweight="bold")
        _draw_panel(panel, outcome, metric)
        panel.set_yticks(range(len(labels)), labels if idx % num_columns == 0 else [""] * len(labels))
        for variant, tick in zip(outcome.variants, panel.get_yticklabels(), strict=True):
            tick.set_fontweight("bold" if variant.choices == outcome.baseline else "normal")
    key = _KEY + (_KEY_OF_COLORS if len(outcome.seeds) > 1 else "")
    figure.supxlabel(key, fontsize=8, color=MUTED)
    return figure


_KEY = "ring: one seed    bar: mean    dashed: baseline's mean"
_KEY_OF_COLORS = "\nblue, orange: 95 % interval of the difference above, below 0"


def _label(outcome: SweepOutcome, variant: VariantOutcome) -> str:
    """The variant's name in up to two lines."""
    name = one_line(variant.name) or "as configured"
    name += " (baseline)" if variant.choices == outcome.baseline else ""
    lines = textwrap.wrap(name, _LABEL_WIDTH)
    return "\n".join(lines if len(lines) <= 2 else [lines[0], lines[1][: _LABEL_WIDTH - 1] + "…"])


def _draw_panel(panel: "Axes", outcome: SweepOutcome, metric: str) -> None:
    baseline = outcome.baseline_variant()
    reference = summarize(list(scores_by_seed(baseline, metric).values()))
    if reference is not None:
        panel.axvline(reference.mean, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    num_scores = 0
    for row, variant in enumerate(outcome.variants):
        scores = scores_by_seed(variant, metric)
        num_scores += len(scores)
        summary = summarize(list(scores.values()))
        if summary is None:
            # in axes' width, rows' height: the scores say nothing of where
            panel.text(0.02, row, "no score", transform=panel.get_yaxis_transform(), **_NO_SCORE)
            continue
        color = _color(variant, baseline, metric)
        heights = [row + _offset(outcome.seeds.index(seed), len(outcome.seeds)) for seed in scores]
        panel.plot([summary.mean] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2.6, zorder=3)
        panel.plot(
            list(scores.values()), heights, "o", markersize=4.2, markerfacecolor="none", color=color, zorder=2
        )
    panel.set_ylim(len(outcome.variants) - 0.4, -0.6)  # the first variant on top
    panel.grid(axis="both")
    panel.margins(x=0.08)
    panel.locator_params(axis="x", nbins=5)
    if not num_scores:
        panel.set_xticks([])


_NO_SCORE: Mapping[str, Any] = {"va": "center", "color": MUTED, "fontsize": 8, "style": "italic"}


def _offset(seed_idx: int, num_seeds: int) -> float:
    """Of a seed's ring from the middle of its row, in rows: within ±0.2."""
    return 0.4 * (seed_idx / (num_seeds - 1) - 0.5) if num_seeds > 1 else 0.0


def _color(variant: VariantOutcome, baseline: VariantOutcome, metric: str) -> str:
    difference = difference_to_baseline(variant, baseline, metric)
    if difference is None or not difference.excludes_zero:
        return PLAIN
    return ABOVE if difference.mean > 0 else BELOW
