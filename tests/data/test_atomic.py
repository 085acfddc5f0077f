"""Atomic files: types of columns, rows against the header, values, encodings, quotation marks; each fault in one line
that names its place, and what is left out said aloud."""

import sys

import pandas as pd
import pytest

from recbole_contrec.cli import main
from recbole_contrec.data import atomic, encoding, loading
from recbole_contrec.data.atomic_header import read_header
from recbole_contrec.errors import LONGEST, UserError, bounded
from tests.helpers.atomic import ALL, FEATURES, HEADER, PARTS, line, refused
from tests.helpers.files import write_atomic_files
from tests.helpers.options import TINY

# columns


@pytest.mark.parametrize(
    "column, kind, key, right",
    [
        ("timestamp", "token", "TIME_FIELD", "float"),
        ("timestamp", "float_seq", "TIME_FIELD", "float"),
        ("user_id", "float", "USER_ID_FIELD", "token"),
        ("user_id", "token_seq", "USER_ID_FIELD", "token"),
        ("item_id", "token_seq", "ITEM_ID_FIELD", "token"),
        ("item_id", "float_seq", "ITEM_ID_FIELD", "token"),
    ],
)
@pytest.mark.parametrize("way", ["command line", "config file", "data set's YAML", "RecBole's own model"])
def test_columns_of_another_type_than_their_part_needs(files, workplace, column, kind, key, right, way):
    arguments = [f"--{key}={column}"] if way in ("command line", "RecBole's own model") else []
    if way == "config file":
        (workplace / "own.yaml").write_text(f"{key}: {column}\n")
        arguments = ["--config_files=own.yaml"]
    elif way == "data set's YAML":
        (workplace / "properties" / "dataset").mkdir(parents=True)
        (workplace / "properties" / "dataset" / "tiny.yaml").write_text(
            f"{key}: {column}\nload_col: {{inter: [user_id, item_id, timestamp]}}\n"
        )
    kinds = {
        "inter": lambda text: text.replace(
            next(part for part in HEADER.split("\t") if part.startswith(column)), f"{column}:{kind}", 1
        )
    }
    text = refused(files, kinds, *arguments, model="SASRec" if way == "RecBole's own model" else "ContRec")
    assert f"'{column}' is of type {kind} and must be {right}" in text and "tiny.inter" in text


def test_the_item_column_of_the_item_file_and_the_user_column_of_the_user_file(files):
    text = refused(
        files, {"item": lambda text: text.replace("item_id:token", "item_id:float", 1).replace("\ni", "\n")}, FEATURES
    )
    assert "tiny.item: the item column 'item_id' is of type float and must be token" in text
    files({"item": "item_id:token\ttitle:token_seq\ni1\tx\n"}, "--text_fields=[]")
    text = refused(files, {"user": "user_id:float\tage:token\n1\t2\n"}, ALL)
    assert "tiny.user: the user column 'user_id' is of type float" in text


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("rating:float", "rating:int", "column 'rating' has the unknown type 'int'"),
        ("rating:float", "rating:flaot", "did you mean float"),
        ("rating:float", "timestamp:float", "names the column 'timestamp' twice"),
        ("rating:float", "rating", "column 'rating' must read name:type"),
        ("rating:float", ":float", "must read name:type"),
        ("\ttimestamp:float", "\ttimestamp:float\t", "column '' must read name:type"),
    ],
)
def test_headers_that_say_nothing_or_too_much(files, old, new, said):
    assert said in refused(files, {"inter": lambda text: text.replace(old, new, 1)})


def test_a_threshold_and_a_label_need_numbers(files):
    inter = {"inter": lambda text: text.replace("rating:float", "rating:token", 1)}
    assert "'rating' is of type token; it must be float" in refused(
        files, inter, "--threshold={'rating': 3}", model="LR"
    )
    named = {"inter": lambda text: text.replace("rating:token", "label:token", 1)}
    assert "the label column 'label' is of type token" in refused(files, named, "--load_col={'inter': '*'}", model="LR")


# rows


def trailing(text):
    return "".join(f"{row}\t\n" if number else f"{row}\n" for number, row in enumerate(text.splitlines()))


@pytest.mark.parametrize(
    "suffix, change, arguments, said",
    [
        ("inter", trailing, [], "tiny.inter, line 2 has 5 fields, the header has 4"),
        ("inter", line(3, "u1", "i1", "5"), [], "tiny.inter, line 3 has 3 fields, the header has 4"),
        ("inter", line(3, "u1", "i1", "5", "6\n\nu1", "i2", "7"), [], "tiny.inter, line 5 has 3 fields"),
        ("item", line(3, "i1", "x", "kind", ""), [FEATURES], "tiny.item, line 3 has 4 fields, the header has 3"),
        ("item", line(3, "i1", "x"), [], "tiny.item, line 3 has 2 fields, the header has 3"),
        (
            "user",
            "user_id:token\tage:token\nu1\t5\nu2\t6\t7\n",
            [ALL],
            "tiny.user, line 3 has 3 fields, the header has 2",
        ),
        ("inter", "", [], "tiny.inter is empty"),
        ("inter", HEADER, [], "a header and no rows"),
        ("inter", HEADER + "\n\n", [], "no rows"),
        ("item", "item_id:token\ttitle:token_seq\n", [FEATURES], "tiny.item has a header and no rows"),
    ],
)
def test_rows_that_do_not_fit_their_header(files, suffix, change, arguments, said):
    assert said in refused(files, {suffix: change}, *arguments)


def test_every_part_of_a_split_data_set_is_looked_at(files, tiny):
    rows = (tiny / "tiny" / "tiny.inter").read_text()
    parts = {f"{part}.inter": rows for part in ("train", "valid", "test")}
    files(parts, PARTS, model="BPR")
    assert "tiny.valid.inter, line 9 has 3 fields" in refused(
        files, {"valid.inter": line(9, "u1", "i1", "3")}, PARTS, model="BPR"
    )
    files({"valid.inter": line(9, "u1", "i1", "3", "4")}, PARTS, model="BPR")
    text = refused(
        files, {"test.inter": lambda text: text.replace("timestamp:float", "timestamp:token")}, PARTS, model="BPR"
    )
    assert "tiny.test.inter: column 'timestamp' is of type token, in tiny.train.inter it is float" in text
    text = refused(
        files, {"test.inter": lambda text: text.replace("timestamp:token", "time:float")}, PARTS, model="BPR"
    )
    assert "tiny.test.inter lacks timestamp" in text
    data = files({"test.inter": rows.replace("\nu3\t", "\n\t", 1)}, PARTS, model="BPR")
    assert any("tiny.test.inter: 1 of " in note for note in data.dataset.notes)


# items


def test_rows_of_one_item_and_items_that_nobody_has(files, caplog):
    again = {"item": lambda text: text + "i3\tanother\tkind\ni3\tmore\tkind\n"}
    texts = files(again).dataset
    assert (
        "item_id 'i3' and others stand there more than once: the first row counts, not lines 67 and 68" in caplog.text
    )
    assert texts.item_texts["title"][texts.field2token_id["item_id"]["i3"]] == "Title of 3"
    caplog.clear()
    data = files({}, FEATURES).dataset
    assert data.item_num - 1 == 65 and "5 of 65 items occur in no interaction" in caplog.text
    assert sum("more than once" in note for note in data.notes) == 1  # the file is read once


@pytest.mark.parametrize("model", ["ContRec", "SASRec", "BPR"])
def test_interactions_that_stand_there_twice_are_told_of(files, caplog, model):
    """The same item at another time is no copy."""
    data = files({"inter": lambda text: text + "u1\ti1\t3\t7001\nu1\ti1\t3\t7002\nu2\ti1\t3\t7002\n"}, model=model)
    assert not any("more than once" in note for note in data.dataset.notes)
    data = files({"inter": lambda text: text + "u1\ti1\t3\t7002\n" * 2}, model=model)
    assert any("tiny: 2 interactions stand there more than once" in note for note in data.dataset.notes)


def test_interactions_of_items_without_a_row(files, caplog):
    data = files({"item": line(5, "j3", "x", "odd")}, FEATURES).dataset
    [note] = [note for note in data.notes if "are left out" in note]
    assert note.startswith("tiny.item: ") and "their item_id, for instance 'i3'" in note
    item = "item_id:token\ttitle:token_seq\n1\tx\n"
    assert "no item_id of an interaction has a row there" in refused(files, {"item": item}, FEATURES)
    files({})
    assert "none of its items occurs in an interaction, so no item has a text; its first is '1'" in caplog.text
    assert "none of its items" in refused(files, {}, "--text_fields=['title']")


# what errors look like


def test_texts_of_errors_are_short_and_printable():
    assert str(UserError("\0" * 20_000)).startswith("\\x00") and len(str(UserError("\0" * 20_000))) <= LONGEST + 20
    text = str(UserError("beginning " + "x" * 9000 + " what to change"))
    assert len(text) <= LONGEST + 20 and text.startswith("beginning") and text.endswith("what to change")
    assert str(UserError("two\nlines\x1b[31m")) == "two\nlines\\x1b[31m" and bounded("ü") == "ü"


def test_a_header_that_never_ends(tmp_path):
    (tmp_path / "x.inter").write_bytes(b"a" * 3_000_000)
    with pytest.raises(UserError) as caught:
        read_header(tmp_path / "x.inter")
    assert len(str(caught.value)) < 300


def test_a_progress_bar_is_ended_before_an_error(workplace, monkeypatch, capsys):
    from tqdm import tqdm

    from recbole_contrec import quick_start

    write_atomic_files(workplace / "data")

    def fail(*_):
        fail.bar = tqdm(total=9, file=sys.stderr)
        fail.bar.update(3)
        raise UserError("in the middle")

    monkeypatch.setattr(quick_start, "assemble", fail)
    assert main(["--model=SASRec", "--dataset=tiny", "--data_path=data", *TINY]) == 2
    assert "\nerror: in the middle\n" in capsys.readouterr().err


def test_advice_fits_the_cause(files):
    text = refused(files, {}, "--additional_feat_suffix=['foo']")
    assert "there is no file" in text and "tiny.foo" in text
    with pytest.raises(UserError, match="Loosen the filters"):
        files({}, "--item_inter_num_interval=[1000,inf)")


# large files, in pieces


def test_a_file_in_pieces_is_the_table_of_the_whole(tmp_path, monkeypatch):
    file = tmp_path / "made.inter"
    rows = [f"u{row % 7}\t{'' if row == 5 else f'ü{row % 3}'}\t{'' if row == 9 else row / 3}" for row in range(40)]
    rows[11] = '"u,1"\tü1\t2'
    file.write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")

    def table():
        return atomic.AtomicFile(file).table(["user_id", "item_id", "timestamp"])

    whole, many = table(), []
    monkeypatch.setattr(atomic, "_BLOCK", 100)
    monkeypatch.setattr(atomic, "_ROWS", 6)
    monkeypatch.setattr(encoding, "_PIECE", 5)
    parse = atomic.AtomicFile._read_csv
    monkeypatch.setattr(
        atomic.AtomicFile, "_read_csv", lambda *given, **more: many.append(more) or parse(*given, **more)
    )
    pieces = table()
    assert many == [{"chunksize": 6}]
    pd.testing.assert_frame_equal(pieces, whole)
    assert pieces["user_id"][0] is pieces["user_id"][35]  # equal texts are one object
    file.write_text(file.read_text().replace("\t2\n", "\tlate\n"))
    with pytest.raises(UserError, match="line 13: column 'timestamp' is of type float and holds 'late'"):
        table()


@pytest.mark.parametrize("piece", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize("name", [None, "utf-8", "UTF_8"])
def test_utf8_is_looked_at_in_pieces(tmp_path, monkeypatch, piece, name):
    monkeypatch.setattr(encoding, "_PIECE", piece)
    data = "aü€😀\n".encode()
    assert encoding.utf8(data, tmp_path / "f", name) is data
    for broken in (data[:-2], data.replace(b"a", b"\xff"), b"\xed\xa0\x80\n"):
        with pytest.raises(UserError, match="is not written in"):
            encoding.utf8(broken, tmp_path / "f", name)
    with pytest.raises(UserError, match="NUL"):
        encoding.utf8(data + b"\0\n", tmp_path / "f", name)


def test_ascii_is_no_more_than_that(tmp_path):
    assert encoding.utf8(b"a\n", tmp_path / "f", "ascii") == b"a\n"
    with pytest.raises(UserError, match="is not written in ascii"):
        encoding.utf8("ü\n".encode(), tmp_path / "f", "ascii")


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_repeated_rows_are_counted_some_users_at_a_time(files, monkeypatch, rows):
    monkeypatch.setattr(loading, "_ROWS", rows)
    data = files({"inter": lambda text: text + "".join(text.splitlines(keepends=True)[1:3])})
    assert any("tiny: 2 interactions stand there more than once" in note for note in data.dataset.notes)
