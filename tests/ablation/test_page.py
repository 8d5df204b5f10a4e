import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from panomask.ablation.page import render_page
from panomask.ablation.plot import INK

SVG = (
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">' + f'<path style="fill: {INK}"/></svg>'
).encode()
VOID = {"meta", "img", "br", "hr", "link", "input"}


class _Page(HTMLParser):
    """Every tag with its attributes, text by tag, and whether tags close in the order they open."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def page(sweep_outcome) -> _Page:
    return _Page(render_page(sweep_outcome, SVG))


def test_text_from_outside_stays_text(page):
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"b", "i", "u", "memory", "tails", "sweep", "co"}
    assert page.text_of("h1") == ["Heads & <tails>"]
    assert "Why <i>?" in page.text_of("p")
    assert "<b>Öl_1</b> & 5%, *x*|$y$" in page.text_of("th")
    assert "MODEL.NAME <u>&" in page.text_of("code")
    assert page.text_of("pre") == ["python tools/ablate.py <sweep>.yaml"]
    assert "No <memory>, 1_2" in page.text_of("span")
    assert page.text_of("title") == ["Heads & <tails>"]


def test_page_needs_nothing_else(page):
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed"}
    assert all("src" not in attributes for attributes in page.attributes("script"))
    assert [source["src"][:26] for source in page.attributes("img")] == ["data:image/svg+xml;base64,"]
    (style,) = page.text_of("style")
    assert "url(" not in style
    assert "@import" not in style


def test_scores_stand_with_their_difference(page):
    cells = page.text_of("td")
    assert "33.0 ± 2.0" in cells
    assert "+2.0 [\N{MINUS SIGN}0.5, 4.5]" in cells
    assert page.text_of("strong") == ["+5.0 [5.0, 5.0]"]
    assert "1 of 3 runs (1 failed, 1 missing)" in cells
    assert "3 variants, 3 seeds; 7 of 9 runs done, 1 failed, 1 missing" in page.text_of("p")


def test_headings_and_rows_are_scoped_and_the_plot_has_words(page):
    scopes = [attributes.get("scope") for attributes in page.attributes("th")]
    # of scores, cost, overrides, runs
    assert scopes.count("col") == (2 + 5) + (2 + 4) + (2 + 1) + (3 + 2 + 1)
    assert scopes.count("row") == 3 * 2 * 3 + 9
    assert len(scopes) == scopes.count("col") + scopes.count("row")
    (image,) = page.attributes("img")
    assert "mask AP, box AP" in image["alt"]


def test_every_table_has_as_many_cells_as_headings(page):
    counts: list[list[int]] = []
    for tag, _ in page.tags:
        if tag == "table":
            counts.append([])
        elif tag == "tr":
            counts[-1].append(0)
        elif tag in ("td", "th"):
            counts[-1][-1] += 1
    assert [len(rows) for rows in counts] == [4, 4, 4, 10]
    assert all(len(set(rows)) == 1 for rows in counts)


def test_runs_link_to_their_folders(page):
    links = [attributes["href"] for attributes in page.attributes("a")]
    assert len(links) == 8  # the ninth has not begun: there is no folder
    assert links[0] == "./runs/plain/seed_1/"
    assert links[7] == "./runs/third%20%26%20%3Cco%3E/seed_2/"
    assert "runs/third & <co>/seed_2" in page.text_of("a")


@pytest.mark.parametrize(
    "folder, href",
    [("javascript:alert(1)", "./javascript%3Aalert%281%29/"), ("/runs/a b", "file:///runs/a%20b")],
)
def test_a_folder_is_never_a_script(sweep_outcome, folder: str, href: str):
    baseline = sweep_outcome.variants[0]
    runs = (dataclasses.replace(baseline.runs[0], folder=Path(folder)), *baseline.runs[1:])
    outcome = dataclasses.replace(sweep_outcome, variants=(dataclasses.replace(baseline, runs=runs),))
    assert _Page(render_page(outcome, SVG)).attributes("a")[0]["href"] == href


def test_numbers_to_sort_by_are_exact(sweep_outcome):
    baseline = sweep_outcome.variants[0]
    runs = (dataclasses.replace(baseline.runs[0], scores={"segm/AP": 100 / 3}),)
    outcome = dataclasses.replace(
        sweep_outcome, variants=(dataclasses.replace(baseline, runs=runs),), seeds=(1,)
    )
    values = [
        attributes.get("data-value") for attributes in _Page(render_page(outcome, SVG)).attributes("td")
    ]
    assert str(100 / 3) in values


def test_plot_turns_light_on_a_dark_page(page):
    (image,) = page.attributes("img")
    svg = base64.b64decode(image["src"].partition(",")[2])
    assert svg.startswith(b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><style>')
    assert re.search(rf'\[style\*="fill: {INK}"\]{{fill:#[0-9a-f]{{6}} !important}}'.encode(), svg)
    assert svg.endswith(SVG.partition(b'svg">')[2])


def test_what_is_not_known_is_not_made_up(sweep_outcome):
    outcome = dataclasses.replace(sweep_outcome, notes="", command="", commit="")
    page = _Page(render_page(outcome, SVG))
    assert "The commit of the code is not known." in page.text_of("p")
    assert not page.text_of("pre")
    assert all("notes" not in (attributes.get("class") or "") for attributes in page.attributes("p"))


def test_same_outcome_same_page(sweep_outcome):
    assert render_page(sweep_outcome, SVG) == render_page(sweep_outcome, SVG)


def test_what_all_runs_set_stands_above_what_each_sets(sweep_outcome):
    outcome = dataclasses.replace(sweep_outcome, overrides={"SOLVER.BASE_LR": "<0.5>"})
    page = _Page(render_page(outcome, SVG))
    codes = page.text_of("code")
    assert codes.index("SOLVER.BASE_LR <0.5>") < codes.index("MODEL.NAME <u>&")
    assert "all" in page.text_of("th")
