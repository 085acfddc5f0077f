"""One table of all models and data sets: groups, methods that differ between data sets, rows that mask."""

import json

import pytest

from benchmarks.report import overview
from benchmarks.report.rows import rows
from tests.helpers.results import write_result

RANKS = [1, 1, 2, 1, 3, 1]
SASREC = {"repeat_bias": True, "hidden_dropout_prob": 0.1, "MAX_ITEM_LIST_LENGTH": 10}


def write(folder, name, model=None, settings=None, **result):
    write_result(folder, name, 1, RANKS, model=model or name, **result)
    if settings:
        path = folder / name / "seed1.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "settings": settings}))


def overview_of(*folders):
    return overview.overview_table({folder.name: rows(folder) for folder in folders})


def test_models_stand_in_groups_in_the_order_of_validation(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "SASRec", score=0.5)
    write(first, "ContRec-paper", score=0.4)
    write(first, "SASRecAll", score=0.3, settings=SASREC)
    write(first, "TIGER", score=0.1)
    write(first, "ContRec", score=0.2)
    write(first, "ContRec,item_tokens=4", "ContRec", score=0.9)  # a variant: not one of the lines
    write(second, "SASRecAll-texts", score=0.1)
    write(second, "Pop", score=0.1)
    cells = [line.split(" | ") for line in overview_of(first, second).splitlines()[2:]]
    assert [name.removeprefix("| ") for name, *_ in cells] == [
        f"**{overview.OURS}**",
        "ContRec",
        "TIGER",
        f"**{overview.CONTROLS}**",
        "SASRecAll",
        "SASRecAll-texts",
        f"**{overview.RECIPES}**",
        "ContRec-paper",
        f"**{overview.RECBOLE}**",
        "SASRec",
        "Pop",
    ]
    assert cells[1][2:] == [".2100", " |"] and cells[5][2:] == ["", ".1100 |"]
    assert cells[4][1] == "SASRec, loss at every position, repeat bias" and cells[9][1] == "as in RecBole"


def test_other_rows_than_models_with_their_own_settings_are_left_out(tmp_path):
    folder = tmp_path / "data"
    write(folder, "ContRec")
    write(folder, "ContRec,big", "ContRec", first_interactions_only=101)  # as --name gives it, measured otherwise
    write(folder, "SASRec,repeat", "SASRec")
    write(folder, "MyRec", "MyRec")  # of a YAML file that is not there any more
    names = [line.split(" | ")[0].removeprefix("| ") for line in overview_of(folder).splitlines()[2:]]
    assert names == [f"**{overview.OURS}**", "ContRec", f"**{overview.RECBOLE}**", "SASRec,repeat"]


def test_a_data_set_without_such_rows_has_an_empty_column(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "ContRec")
    write(second, "ContRec,big", "ContRec")
    assert "| .1100 |  |" in overview_of(first, second)


def test_at_a_glance_a_model_of_recbole_has_one_variant_more(tmp_path):
    """That which validates best on the first data set that has any, whatever the test says."""
    first, second = tmp_path / "first", tmp_path / "second"
    for score, name in enumerate(["SASRec", "GRU4Rec", "SASRec-200,repeat", "SASRec-200", "SASRec,repeat"]):
        write(first, name, name.removesuffix(",repeat"), score=0.1 + score / 100)
    for score, name in enumerate(["SASRec,repeat", "SASRec-200", "GRU4Rec-200", "SASRecAll-svd", "SASRecAll"]):
        write(second, name, name.removesuffix(",repeat"), score=0.1 + score / 100)
    tables = {folder.name: rows(folder) for folder in (first, second)}
    shown, every = (
        [line.split(" | ")[0].removeprefix("| ") for line in overview.overview_table(tables, of_all).splitlines()[2:]]
        for of_all in (False, True)
    )
    controls, models = ["**controls**", "SASRecAll", "SASRecAll-svd"], ["**RecBole**", "SASRec,repeat"]
    assert shown == [*controls, *models, "GRU4Rec", "SASRec", "GRU4Rec-200"]
    assert every == [
        *controls,
        *models,
        *("SASRec-200", "SASRec-200,repeat", "GRU4Rec", "SASRec", "GRU4Rec-200"),
    ]


def test_there_are_marks_for_any_number_of_methods(tmp_path):
    folders = [tmp_path / f"d{number:02}" for number in range(13)]
    for length, folder in enumerate(folders):
        write(folder, "SASRec", max_history=50 + length)
    text = overview_of(*folders)
    assert "| .1100 ⁹ | .1100 ¹⁰ | .1100 ¹¹ | .1100 ¹² |" in text and "\n¹² with histories of 62" in text


def test_a_data_set_with_another_method_is_marked(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write(first, "SASRecAll", settings=SASREC)
    write(second, "SASRecAll", settings={**SASREC, "text_similarity": 4.0})
    write(third, "SASRecAll", settings={**SASREC, "text_similarity": 4.0, "repeat_bias": False})
    write(second, "SASRecAll-texts", settings={**SASREC, "text_similarity": 4.0})  # the same in its only data set
    text = overview_of(first, second, third)
    method = "SASRec, loss at every position"
    assert f"| SASRecAll | {method}, repeat bias | .1100 | .1100 ¹ | .1100 ² |" in text
    assert f"| SASRecAll-texts | {method}, text similarity, repeat bias |  | .1100 |  |" in text
    assert text.endswith("\n\n¹ with text similarity\n\n² with text similarity; without repeat bias")


def test_a_row_that_masks_is_marked_and_one_measured_otherwise_refused(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, "ContRec")
    write(first, "SASRec", masked=True)
    write(second, "SASRec")
    text = overview_of(first, second)
    assert "| SASRec | as in RecBole | .1100 ‡ | .1100 |" in text and "\n‡ ranks no" in text
    write_result(first, "SASRec", 2, RANKS, model="SASRec")
    with pytest.raises(ValueError, match="not comparable.*seen_items_masked"):
        overview_of(first, second)
