"""Atomic files: types of columns, rows against the header, values, encodings, quotation marks; each fault in one line
that names its place, and what is left out said aloud."""

import bz2
import gzip
import logging
import lzma
import os
import sys

import numpy as np
import pytest

from recbole_contrec.cli import main
from recbole_contrec.data.atomic import AtomicFile, read_header
from recbole_contrec.data.loading import load_data
from recbole_contrec.data.prepare import prepare
from recbole_contrec.data.values import single_precision_ties
from recbole_contrec.errors import LONGEST, UserError, bounded
from tests.helpers.files import write_atomic_files
from tests.helpers.independent import histories, histories_of_run, read_events
from tests.helpers.options import TINY

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
FEATURES = "--load_col={'inter': ['user_id', 'item_id', 'timestamp'], 'item': '*'}"
ALL = "--load_col={'inter': '*', 'item': '*', 'user': '*'}"
PARTS = "--benchmark_filename=['train', 'valid', 'test']"


@pytest.fixture
def files(config_of, tiny, caplog):
    """A function that changes files of the tiny data set and reads them: (changes by suffix, *arguments) -> RunData."""
    folder = tiny / "tiny"

    def read(changes=(), *arguments, model="SASRec"):
        for suffix, change in dict(changes).items():
            path = folder / f"tiny.{suffix}"
            content = change(path.read_bytes().decode()) if callable(change) else change
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        caplog.set_level(logging.INFO, "recbole_contrec")
        return load_data(config_of(model, *arguments))

    return read


def line(number, *cells):
    """A change: this line holds these cells instead."""

    def change(text):
        lines = text.split("\n")
        lines[number - 1] = "\t".join(cells)
        return "\n".join(lines)

    return change


def refused(files, changes, *arguments, **options):
    with pytest.raises(UserError) as caught:
        files(changes, *arguments, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and "Loosen" not in text
    return text


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


# values


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


# encodings and quotation marks


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "latin-1", "cp1252", "utf-8-sig"]
)
def test_encodings_are_read_where_they_are_named_and_else_said(files, tiny, encoding):
    def change(text):
        return text.replace("u1\t", "ü1\t").encode(encoding)

    if encoding == "utf-8-sig":
        data = files({"inter": change})
    else:
        text = refused(files, {"inter": change})
        assert "tiny.inter" in text and f"--encoding={'latin-1' if encoding == 'cp1252' else encoding}" in text
        data = files({"item": lambda text: text.encode(encoding)}, f"--encoding={encoding}")
    assert "ü1" in data.dataset.field2token_id["user_id"] and data.dataset.item_texts["title"][1].startswith("Title of")


def test_encodings_that_are_none(files):
    assert "encoding='utf-88' is no text encoding (did you mean utf-8" in refused(files, {}, "--encoding=utf-88")
    assert "no text encoding" in refused(files, {}, "--encoding=rot13")


@pytest.mark.parametrize("pack, kind", [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_packed_files_are_told_from_other_encodings(files, tiny, pack, kind, encoding):
    text = refused(files, {"inter": lambda text: pack(text.encode())}, f"--encoding={encoding}")
    assert f"tiny.inter is a {kind} file" in text and "--encoding" not in text


def test_bytes_that_are_no_text(files):
    assert "damaged, or of another kind" in refused(files, {"inter": lambda text: bytes(range(256)) * 9})


@pytest.mark.parametrize("suffix", ["inter", "item"])
@pytest.mark.parametrize(
    "make, what",
    [
        (os.mkdir, "a folder"),
        (lambda path: os.symlink(path, path), "a link that leads nowhere"),
        (os.mkfifo, "no regular file"),
        (lambda path: os.symlink("/dev/zero", path), "no regular file"),
    ],
)
def test_what_has_the_name_of_a_file_and_is_none(files, tiny, suffix, make, what):
    path = tiny / "tiny" / f"tiny.{suffix}"
    path.unlink()
    make(path)
    assert f"tiny.{suffix} is {what}" in refused(files, {})


def test_files_whose_names_are_nearly_right(config_of, tiny):
    for name in ("tiny.inter.gz", "Tiny.inter"):
        os.rename(next((tiny / "tiny").glob("*iny.inter*")), tiny / "tiny" / name)
        with pytest.raises(UserError, match=rf"has no file tiny\.inter \(did you mean {name}"):
            config_of("SASRec")


@pytest.mark.parametrize(
    "change, number", [(lambda text: text.replace("u2\t", "u\0\t"), 17), (lambda text: bytes(20_000), 1)]
)
def test_nul_characters_are_named_briefly(files, tiny, change, number):
    text = refused(files, {"inter": change})
    assert "NUL character" in text and "tiny.inter, line" in text and len(text) < 300


@pytest.mark.parametrize(
    "suffix, change, said",
    [
        (
            "item",
            line(6, "i4", '"Title 4', "even"),
            "tiny.item, line 6, column 'title': the quotation mark that begins '\"Title 4'",
        ),
        ("item", line(6, "i4", '"Title 4', 'even\ni5\tTitle 5"', "odd"), "tiny.item, line 6, column 'title'"),
        ("item", line(6, "i4", '"Title" 4', "even"), "tiny.item, line 6, column 'title'"),
        ("inter", line(6, '"u1', "i4", "3", "4"), "tiny.inter, line 6, column 'user_id'"),
        ("inter", line(6, "u1", '"i4', "3", '4\nu1"', "i5", "3", "5"), "tiny.inter, line 6, column 'item_id'"),
        ("inter", line(6, "u1", "i4", "3", '"4'), "tiny.inter, line 6, column 'timestamp'"),
    ],
)
def test_quotation_marks_that_are_not_closed(files, suffix, change, said):
    assert said in refused(files, {suffix: change}, FEATURES)


def test_quotation_marks_that_are_closed_hold_a_field_together(files):
    data = files(
        {"item": line(6, "i4", '"A ""b""\tc"', "even"), "inter": lambda text: text.replace("\tu", '\t"u"')}, FEATURES
    )
    assert data.dataset.item_texts["title"][data.dataset.field2token_id["item_id"]["i4"]] == 'A "b"\tc'


def test_ends_of_lines_and_empty_lines(files, tiny):
    plain = histories_of_run(files({}, "--MAX_ITEM_LIST_LENGTH=50"))
    text = (tiny / "tiny" / "tiny.inter").read_text()
    for other in (
        text.replace("\n", "\r\n"),
        text.replace("\n", "\r"),
        text.replace("\n", "\n\n"),
        text.rstrip("\n"),
        "\ufeff" + text,
        "\ufeff\ufeff" + text,
    ):
        assert histories_of_run(files({"inter": other}, "--MAX_ITEM_LIST_LENGTH=50")) == plain


def test_separators_of_several_characters(files, tiny):
    plain = histories_of_run(files({}, "--MAX_ITEM_LIST_LENGTH=50"))
    for separator in (",", "::", "||", "，"):
        changes = dict.fromkeys(("inter", "item"), lambda text, new=separator: text.replace("\t", new))
        files_of = files(changes, f"--field_separator={separator}", "--MAX_ITEM_LIST_LENGTH=50")
        assert histories_of_run(files_of) == plain
        for suffix in changes:
            path = tiny / "tiny" / f"tiny.{suffix}"
            path.write_text(path.read_text().replace(separator, "\t"))


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
