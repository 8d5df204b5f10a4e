import dataclasses
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from panomask.ablation import plot
from panomask.ablation.outcomes import SweepOutcome, VariantOutcome
from panomask.ablation.plot import ABOVE, BELOW, PLAIN, plot_scores


def _panels(outcome: SweepOutcome) -> list:
    with plot._own_settings():
        return [panel for panel in plot._draw(outcome).axes if panel.get_visible()]


def _lines(panel, marker: str) -> list:
    return [line for line in panel.lines if line.get_marker() == marker]


def test_rings_bars_and_the_baseline_by_hand(sweep_outcome):
    mask, box = _panels(sweep_outcome)
    assert (mask.get_title(loc="left"), box.get_title(loc="left")) == ("mask AP", "box AP")
    rings = _lines(mask, "o")
    assert [list(ring.get_xdata()) for ring in rings] == [[30, 31, 32], [31, 33, 35], [30.5]]
    # seeds 1, 2, 3 at -0.2, 0, 0.2 around rows 0, 1, 2
    np.testing.assert_allclose(rings[1].get_ydata(), [0.8, 1.0, 1.2])
    np.testing.assert_allclose(rings[2].get_ydata(), [1.8])
    reference, *bars = _lines(mask, "None")
    assert list(reference.get_xdata()) == [31, 31]
    assert [bar.get_xdata()[0] for bar in bars] == [31, 33, 30.5]


def test_colours_follow_the_interval(sweep_outcome):
    mask, box = _panels(sweep_outcome)
    assert [ring.get_color() for ring in _lines(mask, "o")] == [PLAIN, PLAIN, PLAIN]
    assert [ring.get_color() for ring in _lines(box, "o")] == [PLAIN, ABOVE]
    # compared with the second variant, the first is 5 below
    other = dataclasses.replace(sweep_outcome, baseline=sweep_outcome.variants[1].choices)
    assert [ring.get_color() for ring in _lines(_panels(other)[1], "o")] == [BELOW, PLAIN]


def test_rows_are_named_on_the_left_and_run_downwards(sweep_outcome):
    mask, box = _panels(sweep_outcome)
    labels = [label.get_text() for label in mask.get_yticklabels()]
    assert labels == ["plain, 14 (baseline)", "<b>Öl_1</b> & 5%, *x*|$y$, 28", "third, 28"]
    assert not any(label.get_parse_math() for label in mask.get_yticklabels())  # "$y$" is no formula
    assert [label.get_text() for label in box.get_yticklabels()] == ["", "", ""]
    bottom, top = mask.get_ylim()
    assert bottom > top


def test_a_variant_without_a_score_says_so(sweep_outcome):
    mask, box = _panels(sweep_outcome)
    assert [text.get_text() for text in box.texts] == ["no score"]
    assert box.texts[0].get_position()[1] == 2
    assert not mask.texts


def test_no_score_at_all_is_drawn_too(sweep_outcome):
    (panel,) = _panels(dataclasses.replace(sweep_outcome, metrics=("sem_seg/mIoU",)))
    assert len(panel.texts) == 3
    assert not panel.lines


@pytest.mark.parametrize("num_metrics, grid", [(1, (1, 1)), (3, (1, 3)), (4, (2, 3)), (6, (2, 3))])
def test_panels_are_at_most_three_in_a_row(sweep_outcome, num_metrics: int, grid: tuple[int, int]):
    outcome = dataclasses.replace(sweep_outcome, metrics=tuple(f"segm/{idx}" for idx in range(num_metrics)))
    panels = _panels(outcome)
    assert len(panels) == num_metrics
    assert panels[0].get_gridspec().get_geometry() == grid


def test_many_variants_make_the_figure_higher(sweep_outcome):
    baseline, *_ = sweep_outcome.variants
    more = tuple(VariantOutcome((f"{idx}", "x" * 200), {}, baseline.runs) for idx in range(20))
    outcome = dataclasses.replace(sweep_outcome, variants=(baseline, *more))
    size = _panels(outcome)[0].figure.get_size_inches()
    few = _panels(sweep_outcome)[0].figure.get_size_inches()
    assert size[1] > few[1] + 18 * 0.3
    assert size[0] < 12  # long names are cut
    assert all(label.get_text().count("\n") <= 1 for label in _panels(outcome)[0].get_yticklabels())


def test_same_outcome_same_bytes_whatever_the_user_has_set(sweep_outcome):
    import matplotlib

    first = plot_scores(sweep_outcome)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "other", "axes.facecolor": "red"}):
        assert plot_scores(sweep_outcome) == first
        assert matplotlib.rcParams["font.size"] == 20
    shifted = dataclasses.replace(sweep_outcome, baseline=sweep_outcome.variants[1].choices)
    assert plot_scores(shifted).svg != first.svg


def test_files_are_an_svg_without_date_and_a_white_png(sweep_outcome):
    svg, png = plot_scores(sweep_outcome)
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in svg
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert image.width > 1000
