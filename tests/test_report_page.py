"""HTML reports: what is written, and what a browser makes of it."""

import pytest

from recbole_contrec import report_page
from recbole_contrec.report_page import Cell, Section, cell, page, picture, table
from tests.helpers.browser import Browser, find_browser


@pytest.fixture(scope="module")
def browser():
    if (program := find_browser()) is None:
        pytest.skip("no Chromium here: nothing can look at the page")
    with Browser(program) as found:
        yield found


def drawn(points=3):
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for number in range(12):
        figure.add_scatter(x=[*range(points)], y=[number] * points, name=f"a model of a long name {number}")
    return figure


def test_a_cell_is_sorted_by_its_value_and_shows_a_text():
    assert cell(0.125, ".1250") == Cell(".1250", 0.125) and cell(1234567) == Cell("1.2346e+06", 1234567.0)
    assert cell(None) == cell(float("nan")) == Cell("") and cell(float("inf"), "never") == Cell("never")
    assert cell("b") == Cell("b", "b") and cell(True) == Cell("True", "True")


def test_texts_are_no_markup():
    hostile = '</script><b onload="x">&'
    text = page(
        hostile,
        [Section(hostile, table([hostile], [[cell(hostile)]]) + picture(drawn().update_traces(name=hostile)))],
    )
    assert "<b onload" not in text and "&lt;b onload=&quot;x&quot;&gt;&amp;" in text


def test_the_program_that_draws_is_there_once_and_only_where_it_is_needed():
    two = page("two", [Section("one", picture(drawn(), 12)), Section("other", picture(drawn(), 12))])
    assert two.count("plotly.js v") == 1 and "<script src" not in two and '<link rel="stylesheet"' not in two
    assert len(page("none", [Section("one", "<p>words</p>"), Section("left out", "")])) < 10_000


def test_lines_differ_in_mark_or_dash_without_any_color():
    styles = [report_page.line_style(number) for number in range(60)]
    assert len({(style["marker"]["symbol"], style["line"]["dash"]) for style in styles}) == 60
    neighbours = [(one, other) for one, other in zip(styles, styles[1:])]
    assert all(one["marker"]["symbol"] != other["marker"]["symbol"] for one, other in neighbours)
    assert all(one["line"]["dash"] != other["line"]["dash"] for one, other in neighbours[:8])


def test_a_click_sorts_and_unknown_values_stay_last(browser, tmp_path):
    rows = [[cell("b"), cell(9.0)], [cell("a"), cell(None)], [cell("d"), cell(-1.0)], [cell("c"), cell(10.0)]]
    (tmp_path / "page.html").write_text(page("sorted", [Section("table", table(["name", "value"], rows))]))
    browser.open(tmp_path / "page.html")

    def names():
        return browser.run('[...document.querySelectorAll("tbody th")].map(cell => cell.innerText).join("")')

    def click(column):
        browser.run(f'document.querySelectorAll("th button")[{column}].click()')
        return names()

    assert names() == "badc"
    assert click(1) == "cbda" and click(1) == "dbca"
    assert click(0) == "dcba" and click(0) == "abcd"
    headings = browser.run('[...document.querySelectorAll("thead th")].map(cell => cell.getAttribute("aria-sort"))')
    assert headings == ["ascending", None] and browser.faults == []


@pytest.mark.parametrize("width", [1280, 360])
def test_no_page_is_wider_than_its_window(width, browser, tmp_path):
    wide = table([f"column {number}" for number in range(40)], [[cell(f"value{number}") for number in range(40)]])
    text = page("a title", [Section("table", wide), Section("picture", picture(drawn(), 12))], "<pre>" + "x" * 500)
    (tmp_path / "page.html").write_text(text)
    browser.open(tmp_path / "page.html", width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run('document.querySelector(".box").scrollWidth') > width
    picture_width, plot_height = browser.run(
        '[document.querySelector(".main-svg").clientWidth,'
        ' document.querySelector(".plotly-graph-div")._fullLayout._size.h]'
    )
    assert 0 < picture_width <= width and plot_height > 200  # the legend takes nothing of the picture
    assert browser.faults == []
