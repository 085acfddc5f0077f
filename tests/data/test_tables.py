"""recbole_contrec.data.tables: tables of one's own, packed or not, and what is said of bad ones."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import types
import zipfile

import pandas as pd
import pytest

from recbole_contrec.data import tables, writing
from recbole_contrec.data.prepare import prepare
from tests.helpers.published import COLUMNS, CSV, everything_below, fails, lines


def test_csv_with_named_columns_and_item_texts(tmp_path):
    (tmp_path / "r.csv").write_text(CSV, encoding="utf-8")
    (tmp_path / "i.csv").write_text('code;my title\nc;"He said ""hi"";\n\t bye"\nc;again\nz;never\n')
    columns = {**COLUMNS, "rating": "stars", "items": tmp_path / "i.csv", "item_id": "code", "text": "my title"}
    done = prepare("mine", tmp_path / "d", tmp_path / "r.csv", columns=columns, progress=False)
    assert (done.users, done.items, done.interactions) == (2, 2, 3)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "007\tc\t3.0\t1704067200",
        "007\ta ''b''\t4.5\t1704153610",
        "u2\tc\t\t1704150000",
        "",
    ]
    assert lines(done, ".item") == ["item_id:token\tmy_title:token_seq", "c\tHe said ''hi''; bye", "a ''b''\t", ""]
    assert done.notes == (
        "rows left out for want of a user, an item or a time: 1 (line 3)",
        "missing ratings, left empty: 1 (line 4); a run that loads ratings refuses such rows",
    )


def test_a_table_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(writing, "ROWS_AT_ONCE", 2)
    rows = [f"{user},0{item},{10 - item}" for user in ("b", "a", "c") for item in range(3)]
    (tmp_path / "r.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    done = prepare("mine", tmp_path / "d", tmp_path / "r.csv", progress=False)
    expected = [f"{user}\t0{item}\t{10 - item}" for user in ("b", "a", "c") for item in (2, 1, 0)]
    assert lines(done, ".inter")[1:-1] == expected


def test_texts_may_stand_with_the_interactions(tmp_path):
    (tmp_path / "r.tsv").write_text("user_id\titem_id\ttimestamp\tname\nu\ti\t5\tone\nu\tj\t4\ttwo\nv\ti\t1\tother\n")
    done = prepare("mine", tmp_path / "d", tmp_path / "r.tsv", columns={"text": ["name"]}, progress=False)
    assert lines(done, ".inter")[1:] == ["u\tj\t4", "u\ti\t5", "v\ti\t1", ""]
    assert lines(done, ".item")[1:] == ["i\tone", "j\ttwo", ""]


def test_parquet_with_named_columns(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "uid": [3.0, None, 3.0],  # integers with a gap are floats in pandas
            "iid": [2**53 + 1, 5, 6],
            "ts": pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-01"]),
        }
    )
    frame.to_parquet(tmp_path / "r.parquet")
    done = prepare("mine", tmp_path / "d", tmp_path / "r.parquet", columns=COLUMNS, progress=False)
    assert lines(done, ".inter")[1:] == ["3\t6\t1704067200", "3\t9007199254740993\t1704153600", ""]
    pd.DataFrame({"uid": ["a", "NA", "b"], "iid": ["x", "y", None], "ts": [1, 2, 3]}).to_parquet(tmp_path / "s.parquet")
    done = prepare("mine2", tmp_path / "d", tmp_path / "s.parquet", columns=COLUMNS, progress=False)
    assert lines(done, ".inter")[1:] == ["a\tx\t1", ""]  # RecBole would read the id NA as none at all
    text = fails("mine3", tmp_path / "d", tmp_path / "r.parquet", columns={**COLUMNS, "user": "udi"})
    assert "'udi'" in text and "did you mean uid" in text


def test_parquet_without_pyarrow_names_the_package(tmp_path, monkeypatch):
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "needs pyarrow: pip install 'recbole_contrec[parquet]'" in fails(
        "mine", tmp_path / "d", tmp_path / "r.parquet", columns=COLUMNS
    )


@pytest.mark.parametrize(
    "content, columns, said",
    [
        (CSV, {**COLUMNS, "time": "tss"}, ["'tss'", "did you mean ts", "--time="]),
        (CSV, {**COLUMNS, "text": "jnuk"}, ["'jnuk'", "did you mean junk", "--text="]),
        (CSV, {**COLUMNS, "rating": "junk"}, ["'junk'", "'x'", "no number"]),
        (CSV, {**COLUMNS, "time": "junk"}, ["'junk'", "'x'", "ISO 8601"]),
        (CSV, {**COLUMNS, "usr": "uid"}, ["'usr'", "did you mean user"]),
        (CSV, {**COLUMNS, "items": "i.csv"}, ["no file i.csv"]),
        (CSV, {**COLUMNS, "text": "junk", "item_id": "junk"}, ["--item_id=junk", "--items="]),
        ("uid,iid,ts\nu,1,01/02/2020\n", COLUMNS, ["'01/02/2020'", "ISO 8601"]),
        ("uid,iid,ts\n", COLUMNS, ["no interaction"]),
        ("uid,iid,ts\nNA,1,2\n", COLUMNS, ["no interaction"]),
        ("uid,iid,ts\nu,1,2\nu,1,2,3,4\n", COLUMNS, ["r.csv", "line 3"]),
        ("uid,iid,ts\nu,1,2,3\nu,1,2,3\n", COLUMNS, ["r.csv", "more fields"]),
        ("uid,iid,ts\na b,1,2\na  b,1,2\n", COLUMNS, ["user ids", "'a b'"]),
        ("", COLUMNS, ["r.csv"]),
        (
            "uid,iid,ts\nu,1,1600000000\n\nu,2,soon\nu,3,1600000001\n",
            COLUMNS,
            ["'soon' in line 4", "others are numbers"],
        ),
        (
            "uid,iid,ts\nu,1,2024-01-01\nu,2,1600000000\nu,3,2024-01-02\n",
            COLUMNS,
            ["'1600000000' in line 3", "ISO 8601"],
        ),
        ('uid,iid,ts,junk\nu,1,5,"a\nb"\nu,2,"soon",c\n', COLUMNS, ["'soon' in line 4"]),
        ("uid,iid,ts,stars\nu,1,5,4\nu,2,5,inf\n", {**COLUMNS, "rating": "stars"}, ["'stars'", "inf", "in line 3"]),
        ("uid,iid,ts,ts\nu,1,5,6\n", COLUMNS, ["2 columns 'ts'"]),
        ("uid,iid,ts\n[PAD],1,5\n", COLUMNS, ["[PAD] in line 2"]),
        ("uid,iid,ts\nu,1,True\n", COLUMNS, ["True and False"]),
        ("", COLUMNS, ["r.csv is empty"]),
        ("uid,iid,ts\nu,1,5\nu\0x,2,6\n", COLUMNS, ["r.csv, line 3 holds a NUL character"]),
        ("uid,iid,ts\nu,1,5\nu,1\u200b,6\n", COLUMNS, ["two item ids", "invisible characters"]),
        ("uid,iid,ts\nu,caf\u00e9,5\nu,cafe\u0301,6\n", COLUMNS, ["two item ids", "accents"]),
    ],
)
def test_bad_tables(tmp_path, content, columns, said):
    (tmp_path / "r.csv").write_text(content, encoding="utf-8")
    text = fails("mine", tmp_path / "d", tmp_path / "r.csv", columns=columns)
    for part in said:
        assert part in text
    assert everything_below(tmp_path) == ["r.csv"]


@pytest.mark.parametrize("times", ["", " ", "nan", "inf", "-inf", "1e39"])
def test_rows_without_a_finite_time_are_left_out_and_named(tmp_path, times):
    (tmp_path / "r.csv").write_text(f"uid,iid,ts\nu,1,7\nu,2,{times}\nu,null,3\nv,3,4\n")
    done = prepare("mine", tmp_path / "d", tmp_path / "r.csv", columns=COLUMNS, progress=False)
    assert lines(done, ".inter")[1:] == ["u\t1\t7", "v\t3\t4", ""]
    assert done.notes == ("rows left out for want of a user, an item or a time: 2 (lines 3, 4)",)


def in_tar(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def in_zip(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


PACKED = b"user_id,item_id,timestamp\nu,1,7\nu,2,5\n"


@pytest.mark.parametrize(
    "suffix, pack",
    [
        ("xz", lzma.compress),
        ("bz2", bz2.compress),
        ("gz", gzip.compress),
        ("tar", lambda data: in_tar(data, "folder/r.csv")),
        ("tar.gz", lambda data: in_tar(data, "._r.csv", "r.csv")),
        ("zip", lambda data: in_zip(data, "r.csv")),
        ("csv", gzip.compress),
        ("gz", lambda data: gzip.compress(lzma.compress(data))),
    ],
)
def test_packed_tables_are_read_by_their_first_bytes(tmp_path, suffix, pack):
    source = tmp_path / f"r.{suffix}"
    source.write_bytes(pack(PACKED))
    done = prepare("mine", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter")[1:] == ["u\t2\t5", "u\t1\t7", ""]


@pytest.mark.parametrize(
    "suffix, content, said",
    [
        ("tar", in_tar(PACKED, "a.csv", "b.csv"), ["2 files (a.csv, b.csv)", "unpack"]),
        ("zip", in_zip(PACKED), ["no file"]),
        ("zip", in_zip(PACKED, "a.csv", "b.csv"), ["2 files (a.csv, b.csv)"]),
        ("7z", b"7z\xbc\xaf\x27\x1c" + bytes(90), ["7z", "unpack"]),
        ("xz", lzma.compress(PACKED)[:-20], ["r.xz", "cut off"]),
        ("bz2", bz2.compress(PACKED)[:-20], ["r.bz2"]),
        ("xz", lzma.compress(PACKED)[:30] + bytes(40), ["r.xz", "cut off"]),
        ("tar", in_tar(PACKED, "a.csv")[:60], ["r.tar", "cut off"]),
    ],
    # archives hold the time they were made at, which must not name a test
    ids=["two in a tar", "empty zip", "two in a zip", "7z", "short xz", "short bz2", "damaged xz", "short tar"],
)
def test_archives_that_cannot_be_read_are_said_in_a_line(tmp_path, suffix, content, said):
    (tmp_path / f"r.{suffix}").write_bytes(content)
    text = fails("mine", tmp_path / "d", tmp_path / f"r.{suffix}")
    assert len(text.splitlines()) == 1 and all(part in text for part in said), text


def test_zstd_is_read_or_names_the_package(tmp_path, monkeypatch):
    frame = (
        bytes.fromhex("28b52ffd") + bytes([0x20, len(PACKED)]) + (len(PACKED) << 3 | 1).to_bytes(3, "little") + PACKED
    )
    (tmp_path / "r.zst").write_bytes(frame)  # one raw block
    monkeypatch.setitem(sys.modules, "compression", None)
    reader = types.SimpleNamespace(
        ZstdError=ValueError,
        ZstdDecompressor=lambda: types.SimpleNamespace(
            stream_reader=lambda file, read_across_frames: io.BytesIO(file.read()[9:])
        ),
    )
    monkeypatch.setitem(sys.modules, "zstandard", reader)
    done = prepare("mine", tmp_path / "d", tmp_path / "r.zst", progress=False)
    assert lines(done, ".inter")[1:] == ["u\t2\t5", "u\t1\t7", ""]
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install zstandard" in fails("other", tmp_path / "d", tmp_path / "r.zst")


def test_a_table_that_is_not_utf8(tmp_path):
    (tmp_path / "r.csv").write_bytes("uid,iid,ts\ncaf\xe9,1,2\n".encode("latin-1"))
    assert "UTF-8" in fails("mine", tmp_path / "d", tmp_path / "r.csv", columns=COLUMNS)
