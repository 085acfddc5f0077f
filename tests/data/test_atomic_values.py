"""Values of atomic files: numbers, times and ids that are missing, odd or alike."""

import numpy as np
import pytest

from recbole_contrec.data.atomic import AtomicFile
from recbole_contrec.data.prepare import prepare
from recbole_contrec.data.values import single_precision_ties
from tests.helpers.atomic import FEATURES, HEADER, line, refused
from tests.helpers.independent import histories, histories_of_run, read_events


@pytest.mark.parametrize("value", ["", "nan", "NA", "null", "inf", "-inf", "1e400", "1e39"])
@pytest.mark.parametrize("model", ["ContRec", "SASRec"])
def test_rows_without_a_finite_time_are_left_out_and_named(files, tiny, caplog, value, model):
    def change(text):
        lines = text.split("\n")
        for number in (5, 9, 12):
            lines[number - 1] = "\t".join([*lines[number - 1].split("\t")[:3], value])
        return "\n".join(lines)

    data = files({"inter": change}, "--MAX_ITEM_LIST_LENGTH=50", model=model)
    assert "tiny.inter: 3 of " in caplog.text and "no timestamp in lines 5, 9 and 12" in caplog.text
    assert data.dataset.notes and data.dataset.notes[0] in caplog.text
    assert histories_of_run(data) == histories(read_events(tiny / "tiny" / "tiny.inter"))


@pytest.mark.parametrize("value", ["NA", "null", "None", "", "  ", "nan", "#N/A"])
@pytest.mark.parametrize("column", [0, 1])
def test_rows_without_a_user_or_an_item_are_left_out_and_named(files, tiny, caplog, column, value):
    cells = ["u1", "i1", "4", "77"]
    cells[column] = value
    data = files({"inter": line(7, *cells)}, "--MAX_ITEM_LIST_LENGTH=50")
    assert f"no {('user_id', 'item_id')[column]} in line 7" in caplog.text
    assert histories_of_run(data) == histories(read_events(tiny / "tiny" / "tiny.inter"))


def test_a_prepared_table_and_the_file_itself_give_the_same_histories(files, tiny, workplace):
    """Rows are left out alike, whichever way the data come in."""

    def change(text):
        lines = text.split("\n")
        for number, place, value in ((4, 3, "inf"), (8, 3, ""), (9, 0, "NA"), (11, 1, "null"), (15, 3, "nan")):
            lines[number - 1] = "\t".join(
                [*lines[number - 1].split("\t")[:place], value, *lines[number - 1].split("\t")[place + 1 :]]
            )
        return "\n".join(lines)

    read = histories_of_run(files({"inter": change}, "--MAX_ITEM_LIST_LENGTH=50"))
    inter = tiny / "tiny" / "tiny.inter"
    (workplace / "table.tsv").write_text(
        "\n".join(["user_id\titem_id\trating\ttimestamp", *inter.read_text().split("\n")[1:]])
    )
    done = prepare("other", workplace / "prepared", workplace / "table.tsv", progress=False)
    assert histories(read_events(workplace / "prepared" / "other" / "other.inter")) == read
    assert "5 (lines 4, 8, 9 and 2 more)" in done.notes[0]


@pytest.mark.parametrize("value", ["soon", "1,5", "0x10", "1_000", "--5", "٣", "True"])
def test_text_in_a_column_of_numbers_is_an_error(files, value):
    assert f"tiny.inter, line 6: column 'timestamp' is of type float and holds {value!r}" in refused(
        files, {"inter": line(6, "u1", "i1", "4", value)}
    )


def test_blanks_around_numbers_are_none_of_their_digits(tmp_path):
    (tmp_path / "x.inter").write_text("a:float\n 5\n6 \n1e3\n-.5\nNA\n")
    numbers = AtomicFile(tmp_path / "x.inter").table(["a"])["a"]
    assert numbers[:4].tolist() == [5, 6, 1000, -0.5] and np.isnan(numbers[4])


def test_other_numbers_of_interactions_are_never_made_up(files):
    inter = {"inter": line(6, "u1", "i1", "", "5")}
    assert "rating is missing in line 6" in refused(files, inter, "--load_col={'inter': '*'}")
    files({})  # it is not asked for


def test_features_that_are_missing_are_said_and_infinite_ones_refused(files, caplog):
    item = "item_id:token\tprice:float\tsize:float_seq\n" + "".join(f"i{k}\t{k}\t1 2\n" for k in range(60))
    files({"item": item.replace("i7\t7", "i7\t")}, FEATURES)
    assert "tiny.item: price is missing in line 9; RecBole puts the mean" in caplog.text
    assert "price is not finite in single precision in line 9" in refused(
        files, {"item": item.replace("i7\t7", "i7\tinf")}, FEATURES
    )
    for bad in ("1 nan", "1 x", "1 1e39"):
        assert f"tiny.item, line 9: column size is of type float_seq and holds '{bad}'" in refused(
            files, {"item": item.replace("i7\t7\t1 2", f"i7\t7\t{bad}")}, FEATURES
        )


def test_ids_that_cannot_be_told_apart(files):
    assert "tiny.inter, line 6: user_id is [PAD]" in refused(files, {"inter": line(6, "[PAD]", "i1", "4", "5")})
    assert "user_id is 'u1 ' and 'u1', which differ only in blanks" in refused(
        files, {"inter": line(6, "u1 ", "i1", "4", "5")}
    )
    for twin in ("u1\u200b", "\ufeffu1", "u1\x1a", "u\u00ad1", "u1\u3000"):
        assert "and 'u1', which differ only in" in refused(files, {"inter": line(6, twin, "i1", "4", "5")})
    for one, other in (("caf\u00e9", "cafe\u0301"), ("a b", "a  b"), ("a b", "a\u00a0b")):
        change = {"inter": lambda text: line(7, "u1", other, "4", "5")(line(6, "u1", one, "4", "5")(text))}
        assert "tiny.inter, lines 6 and 7: item_id is" in refused(files, change)
    known = files(
        {
            "inter": lambda text: line(8, "u1", "\U0001f468\u200d", "4", "5")(
                line(7, "u1", "\U0001f468", "4", "5")(line(6, "u1", "'u1'", "4", "5")(text))
            )
        }
    ).dataset.field2token_id["item_id"]
    assert {"'u1'", "\U0001f468", "\U0001f468\u200d"} <= {*known}


def test_values_that_look_like_others_are_said(files):
    change = {
        "inter": lambda text: line(8, "u1", "8.0", "4", "3")(
            line(7, "u1", "7.0", "4", "2")(line(6, "u1", "7", "4", "1")(text))
        )
    }
    [note] = files(change).dataset.notes
    assert note.startswith("tiny.inter: item_id '7' and '7.0' (lines 6 and 7), and 1 such pairs")
    change = {
        "inter": lambda text: line(7, "u1", "i2", "4", "1600000000000")(line(6, "u1", "i1", "4", "1600000000")(text))
    }
    [note] = files(change).dataset.notes
    assert "timestamp looks like seconds in 1 rows and like milliseconds or smaller units in 1 (lines 6 and 7" in note


def test_single_precision_is_said_where_it_changes_the_order(files, tiny, caplog):
    users = np.array([0, 0, 0, 0, 1, 1, 1])
    times = np.array([1.7e18, 1.7e18 + 1e9, 1.7e18 + 1e9, 1.7e18 - 1e9, 5, 4, 4])
    assert single_precision_ties(users, times) == (2, 2, 1, 1)
    data = files({"inter": lambda text: text.replace("\ttimestamp:float", "\ttimestamp:float", 1)})
    assert not data.dataset.notes
    rows = [f"u{user}\ti{item}\t3\t{1700000000000 - 10 * item}" for user in range(3) for item in range(40)]
    data = files({"inter": "\n".join([HEADER, *rows])}, "--MAX_ITEM_LIST_LENGTH=50")
    assert "single precision" in caplog.text and "in 117 places (in 0 they are in the file itself)" in caplog.text
    assert "117 of them, of 3 users, stand there against their times" in caplog.text
    assert histories_of_run(data) == histories(read_events(tiny / "tiny" / "tiny.inter"))
