"""Encodings, quotation marks, separators and ends of lines of atomic files."""

import bz2
import gzip
import lzma
import os

import pytest

from recbole_contrec.errors import UserError
from tests.helpers.atomic import FEATURES, line, refused
from tests.helpers.independent import histories_of_run


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
