"""Histories of a user on every line, as S3-Rec and SASRec publish them: recbole_contrec.data.sequences."""

import gzip

import pandas as pd
import pytest

from recbole_contrec.cli.prepare import prepare as main
from recbole_contrec.data.prepare import PrepareError, prepare


def prepared(folder, content, **options):
    """Lines of the ``.inter`` file without the header, and what :func:`prepare` says."""
    source = folder / "histories.txt"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = prepare("h", folder / "dataset", source, sequences=True, progress=False, **options)
    header, *rows = (done.path / "h.inter").read_text().splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    return [tuple(row.split("\t")) for row in rows], done


def test_a_history_on_every_line(tmp_path):
    rows, done = prepared(tmp_path, "u2 b a c\nu1 007 b\n")
    assert rows == [("u2", "b", "1"), ("u2", "a", "2"), ("u2", "c", "3"), ("u1", "007", "1"), ("u1", "b", "2")]
    assert (done.users, done.items, done.interactions) == (2, 4, 5)
    assert done.notes == (
        "times are places in the history of the user (1, 2, 3, ...): times of two users cannot be compared",
    )


def test_a_pair_on_every_line(tmp_path):
    """Lines of a user may be apart; the order of the file is the order of the history."""
    rows, _ = prepared(tmp_path, "1 10\n2 10\n1 9\n2 8\n1 10\n")
    assert rows == [("1", "10", "1"), ("1", "9", "2"), ("1", "10", "3"), ("2", "10", "1"), ("2", "8", "2")]


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"1 5 6\n2 7\n"),
        b"\xef\xbb\xbf1 5 6\r\n\r\n2 7\r\n",
        b"1\t5\t6\n2  7",
        b" 1 5 6 \n2 7 \n",
    ],
    ids=["packed", "byte order mark", "tabs", "blanks at the ends"],
)
def test_files_as_they_come(tmp_path, content):
    rows, _ = prepared(tmp_path, content)
    assert rows == [("1", "5", "1"), ("1", "6", "2"), ("2", "7", "1")]


def test_lines_without_an_item_and_missing_ids_are_told(tmp_path):
    rows, done = prepared(tmp_path, "1 5 NA 6\n2\n3 7\nnull 5 6\n")
    assert rows == [("1", "5", "1"), ("1", "6", "2"), ("3", "7", "1")]
    assert done.notes[1:] == (
        "lines with a user and no item, left out: 1 (line 2)",
        "rows left out for want of a user, an item or a time: 3 (histories.txt, lines 1, 4)",
    )


def test_texts_of_the_items(tmp_path):
    pd.DataFrame({"item_id": ["6", "5", "9"], "name": ["six", "five", "nine"]}).to_csv(tmp_path / "i.csv", index=False)
    columns = {"items": tmp_path / "i.csv", "text": "name"}
    _, done = prepared(tmp_path, "1 5 6\n2 7\n", columns=columns)
    assert (done.path / "h.item").read_text().splitlines() == [
        "item_id:token\tname:token_seq",
        "6\tsix",
        "5\tfive",
        "7\t",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("user,item\n1,2\n", "line 1 holds 'user,item': with --sequences a line has a user and items"),
        ("1 2 3\n2 b,c 3\n", "line 2 holds '2 b,c 3': .* no id holds a comma, semicolon or bar"),
        ("u;1 2 3\n", "rename such ids, or pass a table with named columns, without --sequences"),
        ("1 2|3 4\n", "no id holds a comma, semicolon or bar"),
        ("1 2 3\n2 1 \0\n", "line 2 holds a NUL character"),
        ("1 2 3\n2 [PAD] 3\n", r"holds the id \[PAD\] in line 2"),
        (b"1 2 3\n2 \xff 3\n", "is not UTF-8 text"),
        ("", "h has no interaction"),
        ("1\n", "h has no interaction"),
    ],
)
def test_bad_files(tmp_path, content, said):
    with pytest.raises(PrepareError, match=said):
        prepared(tmp_path, content)
    assert not (tmp_path / "dataset" / "h").exists()


@pytest.mark.parametrize(
    ("columns", "source", "said"),
    [
        ({"user": "u", "time": "t"}, "f.txt", "with --sequences the file has no columns: leave out --user, --time"),
        ({}, None, "name the file of the histories: --from"),
        ({"items": "i.csv"}, "f.txt", "--items=i.csv needs --text"),
        ({"text": "name,genre"}, "f.txt", "^--text=name,genre: columns of the table of the items, pass it as --items="),
        ({"item_id": "iid", "text": ["name"]}, "f.txt", "^--item_id=iid and --text=name: columns of the table"),
    ],
)
def test_bad_options(tmp_path, columns, source, said):
    with pytest.raises(PrepareError, match=said):
        prepare("h", tmp_path, source, columns=columns, sequences=True)


def test_a_table_that_is_none_names_the_option(tmp_path):
    (tmp_path / "f.txt").write_text("1 2 3\n2 3 4 5\n")
    with pytest.raises(PrepareError, match="is read with --sequences"):
        prepare("h", tmp_path / "dataset", tmp_path / "f.txt", columns={"user": "u"})


def test_the_command(tmp_path, capsys):
    (tmp_path / "f.txt").write_text("1 2 3\n2 3 4 5\n")
    assert main(["--dataset=lastfm", f"--from={tmp_path}/f.txt", "--sequences", f"--data_path={tmp_path}/d"]) == 0
    assert "lastfm: 2 users, 4 items, 5 interactions" in capsys.readouterr().out
