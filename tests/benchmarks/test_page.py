"""report.html of a comparison: its numbers, and the page in a browser."""

import json

import numpy as np
import pytest

from benchmarks.lib import significance
from benchmarks.report import figures, page
from benchmarks.report.rows import rows
from tests.helpers.browser import Browser, find_browser
from tests.helpers.results import write_result


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2, 3):
        write_result(tmp_path, "ContRec", seed, [1, 1, 2, 1, 3, 1], score=0.2, versions={"torch": "2.9"})
        write_result(tmp_path, "SASRec", seed, [9, 2, 20, 2, 5, 1], model="SASRec", versions={"torch": "2.13"})
    write_result(tmp_path, "GRU4Rec", 1, [8, 2, 20, 2, 5, 1], model="GRU4Rec", score=0.05, versions={"torch": "2.13"})
    write_result(tmp_path, "BPR", 1, [30] * 6, model="BPR", score=0.3, masked=True, versions={"torch": "2.13"})
    return tmp_path


def test_the_interval_over_seeds_is_student_s():
    low, high = significance.interval_over_seeds([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert significance.interval_over_seeds([1.0]) is None and significance.interval_over_seeds([1.0, 1.0]) == (1, 1)


def test_the_table_of_models_has_intervals_where_there_are_seeds(folder):
    text = page.models(rows(folder))
    low, high = significance.interval_over_seeds([0.21, 0.22, 0.23])
    assert f"{low:.4f} to {high:.4f}".replace("0.", ".") in text and text.count("one seed") == 1
    masked = next(line for line in text.splitlines() if "BPR" in line)
    assert "‡" in masked and masked.count("<td></td>") == 5  # neither validation nor a ranking of its own
    assert ">.3100<" in masked


def test_differences_are_user_by_user_against_the_best_baseline(folder):
    baseline, reference, others = page.against_best(rows(folder))
    assert baseline.name == "SASRec" and [each.row.name for each in others] == ["ContRec", "GRU4Rec"]
    ours, theirs = (significance.ndcg(np.array(ranks), 0) for ranks in ([1, 1, 2, 1, 3, 1], [9, 2, 20, 2, 5, 1]))
    assert others[0].differences == pytest.approx(ours - theirs) and reference == pytest.approx(theirs)
    figure = figures.differences(["ContRec"], [ours - theirs], "SASRec")
    line = np.array(figure.data[0].y)
    assert line[0] == pytest.approx((ours - theirs).max(), abs=1e-4) and (np.diff(line) <= 0).all()
    text = page.compare_page(rows(folder))
    assert "83.3%" in text and "16.7%" in text  # of six users five are served better, one alike


def test_what_few_cards_have_is_marked(folder):
    lines = page.cards(rows(folder)).splitlines()
    torch = next(line for line in lines if "versions: torch" in line)
    assert "≠ versions: torch" in torch and torch.count("differs") == 1 and '<td class="text differs">2.9</td>' in torch
    assert "≠" not in next(line for line in lines if ">dataset<" in line)
    models = next(line for line in lines if "≠ model<" in line)
    assert "differs" not in models  # every row has its own
    assert lines.index(next(line for line in lines if "seen_items_masked" in line)) < lines.index(torch)


def test_a_row_without_ranks_or_curve_is_still_shown(folder):
    for path in (folder / "GRU4Rec").glob("*.npz"):
        path.unlink()
    for path in folder.glob("*/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "curve": []}))
    text = page.compare_page(rows(folder))
    assert "GRU4Rec" in text and "<h2>User by user" not in text and "<h2>Validation by epoch" not in text


def test_names_are_no_markup(folder):
    write_result(folder, "<b>&", 1, [1] * 6)
    assert "<b>&" not in page.compare_page(rows(folder))


def test_the_cost_axis_has_what_runs_tell(folder):
    figure = figures.accuracy_against_cost(rows(folder, ["ContRec", "SASRec"]))
    assert [trace.name for trace in figure.data] == ["ContRec", "SASRec"] and figure.layout.xaxis.type == "log"
    assert figure.data[0].x == (22.0,) and figure.data[0].error_y.array[0] == pytest.approx(0.0248, abs=1e-4)
    buttons = figure.layout.updatemenus[0].buttons
    assert buttons[3].label == "parameters" and buttons[3].args[0]["x"] == [[9999], [9999]]


@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_shows_it_without_a_fault(width, folder):
    if (program := find_browser()) is None:
        pytest.skip("no Chromium here: nothing can look at the page")
    path = page.write_page(folder, rows(folder))
    with Browser(program) as browser:
        browser.open(path, width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run('document.querySelectorAll(".plotly-graph-div .main-svg").length') >= 3
        first = 'document.querySelector("tbody th").innerText'
        assert browser.run(first) == "ContRec"
        browser.run('document.querySelectorAll("th button")[9].click()')  # seen items masked
        assert browser.run(first) == "BPR ‡"
        assert browser.faults == []
