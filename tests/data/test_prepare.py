"""recbole_contrec.data.prepare: what is downloaded, what is written, what is said when it goes wrong."""

import builtins
import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import socket
import sys
import tarfile
import threading
import types
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from recbole_contrec.cli.prepare import prepare as main
from recbole_contrec.data import convert, download, tables
from recbole_contrec.data import prepare as command
from recbole_contrec.data.prepare import PrepareError, known_datasets, prepare
from recbole_contrec.errors import UserError
from tests.helpers.files import ROOT

# ------------------------------------------------------------------------------ a small internet


class Site:
    """Files behind http://127.0.0.1; ``cuts`` says after how many bytes the next answers break off."""

    def __init__(self):
        self.files, self.ranges, self.cuts, self.log, self.etags = {}, True, [], [], True
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, asked = self.path[1:].split("?")[0], self.headers.get("Range")
                site.log.append((name, asked))
                if name in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[name])
                    return self.end_headers()
                if name not in site.files:
                    return self.send_error(404)
                body, start = site.files[name], 0
                etag = f'"{hashlib.md5(body).hexdigest()}"'
                if site.ranges and asked and self.headers.get("If-Range") in (None, etag):
                    start = int(asked[len("bytes=") : -1])
                    if start >= len(body):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                if site.etags:
                    self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                cut = site.cuts.pop(0) if site.cuts and not name.endswith(".md5") else None
                self.wfile.write(body[start:][:cut])

            def log_message(self, *_):
                pass

        self.redirects = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def ranges_asked(self, name):
        return [asked for path, asked in self.log if path == name]


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_WAIT", 0)
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


# ------------------------------------------------------------------------------ small archives


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file.getvalue()


ML_1M = {
    "ml-1m/": "",
    "ml-1m/ratings.dat": "2::10::5::978300760\n1::20::3::978302109\n1::10::4::978301968\n1::30::1::978301968\n",
    "ml-1m/movies.dat": (
        "10::Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)::Drama\n"
        "20::Misérables, Les (1995)::Drama|Children's\n"
        "30::Star Wars: Episode IV :-) (1977)::Sci-Fi\n"
        "99::Nobody Saw It (2000)::Horror\n"
    ).encode("latin-1"),
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::02460\n3::M::25::15::55117\n",
}

LATEST = {
    "ml-latest-small/ratings.csv": (
        "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,3.5,964981247\n2,4,0.5,964981247\n"
    ),
    "ml-latest-small/movies.csv": (
        "movieId,title,genres\n"
        "1,Toy Story (1995),Adventure|Comedy\n"
        '3,"American President, The\t""Q""  (2009–2012)",Drama\n'
        "4,Babylon 5,(no genres listed)\n"
    ),
    "ml-latest-small/links.csv": "movieId,imdbId\n1,0114709\n",
}

LASTFM = {
    "user_taggedartists-timestamps.dat": (
        "userID\tartistID\ttagID\ttimestamp\n"
        "2\t52\t13\t1238536800000\n2\t52\t15\t1230764400000\n2\t63\t13\t1233442800000\n2\t7\t13\t1233442800000\n"
        "9\t63\t1\t1230764400000\n"
    ),
    "user_artists.dat": "userID\tartistID\tweight\n2\t52\t13883\n2\t51\t11690\n9\t63\t7\n",
    "artists.dat": ('id\tname\turl\tpictureURL\n51\tUnheard\tu\tp\n52\t"Weird Al" Yankovic\tu\tp\n63\tCafé\tu\t\n'),
}

REVIEWS = "".join(
    json.dumps({"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time}) + "\n"
    for user, item, rating, time in [
        ("A2", "B001", 5.0, 1390000000),
        ("A1", "B001", 3.0, 1380000000),
        ("A1", "B002", 4.0, 1370000000),
        ("A1", "B003", 1.0, 1370000000),
    ]
)
META = (
    "{'asin': 'B999', 'title': 'never reviewed', 'categories': [['Beauty']], 'bad': __import__}\n"
    "{'asin': 'B002', 'title': 'Nail\\tPolish &amp; \"Red\"', 'brand': 'OPI', 'price': 3.1,"
    " 'categories': [['Beauty', 'Makeup', 'Nails'], ['Beauty', 'Makeup', 'Gift']]}\n"
    "{'asin': 'B001', 'categories': [['Beauty']]}\n"
)


def lines(done, suffix):
    file = done.path / f"{done.path.name}{suffix}"
    assert file in done.files
    return file.read_text(encoding="utf-8").split("\n")


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def fails(*args, **keywords):
    with pytest.raises(PrepareError) as caught:
        prepare(*args, progress=False, **keywords)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


@pytest.fixture
def archive(tmp_path):
    """Write the members into a zip outside of the data path; return its path."""

    def make(members, name="source.zip"):
        path = tmp_path / "given" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zipped(members))
        return path

    return make


# ------------------------------------------------------------------------------ conversions


def test_ml_1m(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    assert (done.users, done.items, done.interactions) == (2, 3, 4)
    assert [file.name for file in done.files] == ["ml-1m.inter", "ml-1m.item", "ml-1m.user"]
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "2\t10\t5\t978300760",
        "1\t10\t4\t978301968",  # two ratings of one second: as in the file
        "1\t30\t1\t978301968",
        "1\t20\t3\t978302109",
        "",
    ]
    assert lines(done, ".item") == [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq",
        "10\tShanghai Triad (Yao a yao yao dao waipo qiao)\t1995\tDrama",
        "20\tMisérables, Les\t1995\tDrama Children's",
        "30\tStar Wars: Episode IV :-)\t1977\tSci-Fi",
        "",
    ]
    assert lines(done, ".user") == [
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        "1\t1\tF\t10\t48067",
        "2\t56\tM\t16\t02460",
        "",
    ]


@pytest.mark.parametrize("name", ["ml-latest-small", "ml-20m"])
def test_movielens_csv(archive, tmp_path, name):
    done = prepare(name, tmp_path / "d", archive(LATEST), progress=False)
    assert lines(done, ".inter")[1:] == ["1\t3\t3.5\t964981247", "1\t1\t4.0\t964982703", "2\t4\t0.5\t964981247", ""]
    assert lines(done, ".item")[1:] == [
        "1\tToy Story\t1995\tAdventure Comedy",
        "3\tAmerican President, The ''Q''\t2009\tDrama",
        "4\tBabylon 5\t\t",
        "",
    ]


def test_lastfm_is_ordered_by_the_first_tag(archive, tmp_path):
    done = prepare("lastfm", tmp_path / "d", archive(LASTFM), progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\tweight:float\ttimestamp:float",
        "2\t52\t13883\t1230764400",  # the second of its two tags is the earlier one
        "2\t63\t0\t1233442800",
        "2\t7\t0\t1233442800",
        "9\t63\t7\t1230764400",
        "",
    ]
    # artist 7 has no name but has an interaction; artist 51 has a name only
    assert lines(done, ".item")[0] == "item_id:token\tname:token_seq"
    assert lines(done, ".item")[1:] == ["52\t''Weird Al'' Yankovic", "63\tCafé", "7\t", ""]


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_amazon(tmp_path, pack):
    suffix = ".json.gz" if pack is gzip.compress else ".json"
    (tmp_path / f"reviews_Beauty_5{suffix}").write_bytes(pack(REVIEWS.encode()))
    (tmp_path / f"meta_Beauty{suffix}").write_bytes(pack(META.encode()))
    source = tmp_path / f"reviews_Beauty_5{suffix}"
    done = prepare("amazon-beauty", tmp_path / "d", source, progress=False)
    assert lines(done, ".inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "A2\tB001\t5\t1390000000",
        "A1\tB002\t4\t1370000000",
        "A1\tB003\t1\t1370000000",
        "A1\tB001\t3\t1380000000",
        "",
    ]
    assert lines(done, ".item") == [
        "item_id:token\ttitle:token_seq\tcategory:token_seq",
        "B002\tNail Polish & ''Red''\tOPI, Makeup, Nails, Gift",
        "B001\t\t",
        "B003\t\t",
        "",
    ]


def test_amazon_needs_the_companion_file(tmp_path):
    (tmp_path / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress(REVIEWS.encode()))
    text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json.gz")
    assert str(tmp_path / "meta_Beauty.json.gz") in text and "https://snap.stanford.edu" in text


def test_amazon_executes_nothing_and_names_the_line(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text("{'asin': 'B001', 'title': open('/etc/passwd').read()}\n")
    assert "meta_Beauty.json, line 1" in fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")


def test_amazon_without_a_field(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS.replace("unixReviewTime", "unixreviewtime"))
    (tmp_path / "meta_Beauty.json").write_text(META)
    text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
    assert "'unixReviewTime'" in text and "did you mean unixreviewtime" in text


CSV = (
    "\ufeffuid,iid,ts,stars,junk\n"
    '007,"a ""b""",2024-01-02 00:00:10,4.5,x\n'
    "u2,NA,2024-01-02,1,x\n"
    "u2,c,2024-01-02T00:00:00+01:00,,x\n"
    "007,c,2024-01-01,3,x\n"
)
COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}


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
    monkeypatch.setattr(convert, "ROWS_AT_ONCE", 2)
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
        (CSV, {**COLUMNS, "items": "i.csv"}, ["--text="]),
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


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("'brand': 'OPI'", "'brand': ['OPI']", ["line 2", "brand", "['OPI']"]),
        ("'brand': 'OPI'", "'brand': None", None),
        ("'brand': 'OPI'", "'brand': 7", None),
        ("'title': 'Nail", "'title': {}, 'else': 'Nail", ["line 2", "title", "{}"]),
        (
            "'categories': [['Beauty', 'Makeup', 'Nails']",
            "'categories': {'a': 1}, 'else': [['x']",
            ["line 2", "categories"],
        ),
        (
            "'categories': [['Beauty', 'Makeup', 'Nails']",
            "'categories': 'Beauty', 'else': [['x']",
            ["line 2", "categories", "'Beauty'"],
        ),
    ],
)
def test_odd_fields_of_amazons_products(tmp_path, old, new, said):
    assert old in META
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text(META.replace(old, new))
    if said is None:
        prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
    else:
        text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
        assert "meta_Beauty.json" in text and all(part in text for part in said)


def test_categories_in_a_single_list_are_one_branch(tmp_path):
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS)
    (tmp_path / "meta_Beauty.json").write_text(
        '{"asin": "B002", "title": "Polish", "categories": ["Beauty", "Makeup"]}\n'
    )
    done = prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
    assert lines(done, ".item")[1] == "B002\tPolish\tMakeup"


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("overall", "[5]", ["overall", "[5]", "no number"]),
        ("unixReviewTime", '"soon"', ["'soon'", "no number"]),
        ("reviewerID", "[1]", ["reviewerID", "[1]"]),
        ("unixReviewTime", "null", None),
        ("reviewerID", '""', None),
        ("unixReviewTime", "Infinity", None),
    ],
)
def test_odd_fields_of_amazons_reviews(tmp_path, field, value, said):
    review = {"reviewerID": '"A9"', "asin": '"B001"', "overall": "5.0", "unixReviewTime": "1380000000", field: value}
    line = "{" + ", ".join(f'"{name}": {part}' for name, part in review.items()) + "}\n"
    (tmp_path / "reviews_Beauty_5.json").write_text(REVIEWS + line)
    (tmp_path / "meta_Beauty.json").write_text(META)
    number = (REVIEWS + line).count("\n")
    if said is None:
        done = prepare("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json", progress=False)
        assert done.interactions == 4 and f"line {number})" in done.notes[0]
    else:
        text = fails("amazon-beauty", tmp_path / "d", tmp_path / "reviews_Beauty_5.json")
        assert f"line {number}" in text and all(part in text for part in said)


def test_a_table_that_is_not_utf8(tmp_path):
    (tmp_path / "r.csv").write_bytes("uid,iid,ts\ncaf\xe9,1,2\n".encode("latin-1"))
    assert "UTF-8" in fails("mine", tmp_path / "d", tmp_path / "r.csv", columns=COLUMNS)


def test_clean_text():
    assert convert.clean_text('  a\t"b"\r\nc\u2028d\xa0e\0f\ud800 ') == "a ''b'' c d ef"


@pytest.mark.parametrize(
    "title, split",
    [
        ("Toy Story (1995)", ("Toy Story", "1995")),
        ("Up (The Film) (2009) ", ("Up (The Film)", "2009")),
        ("Series (2007-2010)", ("Series", "2007")),
        ("Series (2009– )", ("Series", "2009")),
        ("2001 (A)", ("2001 (A)", "")),
    ],
)
def test_split_title(title, split):
    assert convert.split_title(title) == split


# ------------------------------------------------------------------------------ downloads


@pytest.fixture
def mirror(site, monkeypatch):
    """The catalogue points to the local site, where the archives of ml-1m, with its checksum, and Amazon lie."""
    body = zipped({**ML_1M, "ml-1m/README": os.urandom(300_000)})
    site.files["ml-1m.zip"] = body
    site.files["reviews_Beauty_5.json.gz"] = gzip.compress(REVIEWS.encode())
    site.files["meta_Beauty.json.gz"] = gzip.compress(META.encode())
    for name in ("ml-1m", "amazon-beauty"):
        recipe = command.CATALOGUE[name]
        urls = tuple(site.url + url.rsplit("/", 1)[-1] for url in recipe.urls)
        md5 = recipe.md5 and hashlib.md5(body).hexdigest()
        monkeypatch.setitem(command.CATALOGUE, name, replace(recipe, urls=urls, md5=md5))
    return site


def test_download_convert_and_tidy_up(mirror, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", progress=False)
    assert done.interactions == 4
    assert everything_below(tmp_path / "d") == ["ml-1m", "ml-1m/ml-1m.inter", "ml-1m/ml-1m.item", "ml-1m/ml-1m.user"]
    assert mirror.log == [("ml-1m.zip", None)]  # the checksum is known: nothing else is asked


def test_amazon_from_the_net(mirror, tmp_path):
    assert prepare("amazon-beauty", tmp_path / "d", progress=False).items == 3
    assert {name for name, _ in mirror.log} == {"reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"}

    for name in ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"):
        mirror.files["mirror/" + name] = mirror.files.pop(name)
    mirror.log.clear()
    source = mirror.url + "mirror/reviews_Beauty_5.json.gz"  # the companion is looked for beside it
    assert prepare("amazon-beauty", tmp_path / "e", source, progress=False).items == 3
    assert mirror.log == [("mirror/reviews_Beauty_5.json.gz", None), ("mirror/meta_Beauty.json.gz", None)]


def test_a_cut_connection_is_resumed(mirror, tmp_path):
    mirror.cuts = [100_000]
    assert prepare("ml-1m", tmp_path / "d", progress=False).users == 2  # and the checksum was right
    assert mirror.ranges_asked("ml-1m.zip") == [None, "bytes=100000-"]


def test_the_bytes_of_a_resumed_file(site, tmp_path):
    site.files["x.bin"] = os.urandom(500_000)
    site.cuts = [1, 200_000]
    download.download(site.url + "x.bin", tmp_path / "x.bin", progress=False)
    assert (tmp_path / "x.bin").read_bytes() == site.files["x.bin"]
    assert site.ranges_asked("x.bin") == [None, "bytes=1-", "bytes=200001-"]
    assert everything_below(tmp_path) == ["x.bin"]


def test_the_next_run_resumes(mirror, tmp_path):
    mirror.cuts = [100_000, 50_000, 7]
    text = fails("ml-1m", tmp_path / "d")
    assert "150,007 of " in text and "again to go on" in text and "--from=" in text
    assert not (tmp_path / "d" / "ml-1m").exists()
    assert [Path(name).name for name in everything_below(tmp_path / "d") if name.endswith((".part", ".zip"))] == [
        "ml-1m.zip.part"
    ]
    mirror.log.clear()
    assert prepare("ml-1m", tmp_path / "d", progress=False).users == 2
    assert mirror.log == [("ml-1m.zip", "bytes=150007-")]
    assert not (tmp_path / "d" / ".downloads").exists()


@pytest.mark.parametrize("without", ["ranges", "etags"])
def test_clean_restart_without_range(mirror, tmp_path, without):
    setattr(mirror, without, False)
    mirror.cuts = [100_000]
    assert prepare("ml-1m", tmp_path / "d", progress=False).users == 2
    # a server that does not say which version of the file it has is not asked for the rest of one
    second = "bytes=100000-" if without == "ranges" else None
    assert mirror.ranges_asked("ml-1m.zip") == [None, second]


def test_a_file_that_changed_meanwhile_is_not_glued(site, tmp_path):
    site.files["x.bin"] = b"a" * 100_000
    site.cuts = [50_000, 0, 0]
    with pytest.raises(PrepareError):
        download.download(site.url + "x.bin", tmp_path / "x.bin", progress=False)
    site.files["x.bin"] = b"b" * 100_000
    download.download(site.url + "x.bin", tmp_path / "x.bin", progress=False)
    assert (tmp_path / "x.bin").read_bytes() == b"b" * 100_000


def test_a_partial_file_that_is_too_long(site, tmp_path):
    site.files["x.bin"] = b"abc"
    (tmp_path / "x.bin.part").write_bytes(b"abcdef")
    (tmp_path / "x.bin.part.version").write_text(f'"{hashlib.md5(b"abc").hexdigest()}"')
    download.download(site.url + "x.bin", tmp_path / "x.bin", progress=False)
    assert (tmp_path / "x.bin").read_bytes() == b"abc"


def test_wrong_checksum(mirror, tmp_path):
    right = hashlib.md5(mirror.files["ml-1m.zip"]).hexdigest()
    text = fails("ml-1m", tmp_path / "d", md5="0" * 32)
    assert "0" * 32 in text and right in text and "removed" in text
    assert everything_below(tmp_path) == []
    assert "32 hexadecimal" in fails("ml-1m", tmp_path / "d", md5="abc")


def test_wrong_checksum_of_a_given_file_leaves_it(archive, tmp_path):
    source = archive(ML_1M)
    assert "expected md5" in fails("ml-1m", tmp_path / "d", source, md5="0" * 32)
    assert source.exists()
    assert prepare("ml-1m", tmp_path / "d", source, md5=download.md5_of(source).upper(), progress=False).users == 2


@pytest.mark.parametrize("form", ["{}  ml-latest-small.zip\n", "MD5 (ml-latest-small.zip) = {}\n", "{}"])
def test_the_published_checksum_is_asked_for(site, tmp_path, form):
    site.files["ml-latest-small.zip"] = zipped(LATEST)
    site.files["ml-latest-small.zip.md5"] = form.format("f" * 32).encode()
    source = site.url + "ml-latest-small.zip"
    assert "expected md5 " + "f" * 32 in fails("ml-latest-small", tmp_path / "d", source)
    md5 = hashlib.md5(site.files["ml-latest-small.zip"]).hexdigest()
    site.files["ml-latest-small.zip.md5"] = form.format(md5).encode()
    assert prepare("ml-latest-small", tmp_path / "d", source, progress=False).users == 2


def test_an_error_page_is_no_checksum(site):
    site.files["a.zip.md5"] = b"<html>" + b"f" * 32 + b"</html>"
    assert download.published_md5(site.url + "a.zip") is None
    assert download.published_md5(site.url + "missing.zip") is None


def test_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/ml-1m.zip"
        text = fails("ml-1m", tmp_path / "d", url)
    assert f"download ml-1m.zip from {url} by hand" in text and "--from=FILE" in text
    assert everything_below(tmp_path) == []


def test_http_error_status(site, tmp_path):
    text = fails("ml-1m", tmp_path / "d", site.url + "gone/ml-1m.zip")
    assert "404" in text and site.url + "gone/ml-1m.zip" in text
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x.zip"])
def test_only_http_https_and_files(site, tmp_path, place):
    assert "only http, https and files" in fails("ml-1m", tmp_path / "d", place)
    site.redirects["x.zip"] = place
    text = fails("ml-1m", tmp_path / "d", site.url + "x.zip")
    assert ("unknown url type: ftp" if place.startswith("ftp") else "is not allowed") in text
    assert everything_below(tmp_path) == []


def test_downloads_survive_a_full_disk_but_not_a_bad_archive(mirror, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "_write_one", full)
        assert "no space left" in fails("ml-1m", tmp_path / "d")
    kept = everything_below(tmp_path / "d")
    assert kept[-1].endswith("/ml-1m.zip") and len(kept) == 3
    mirror.log.clear()
    prepare("ml-1m", tmp_path / "d", progress=False)
    assert mirror.log == []

    mirror.files["ml-1m.zip"] = zipped({"ml-1m/README": "nothing"})
    assert "no ratings.dat" in fails("ml-1m", tmp_path / "e", mirror.url + "ml-1m.zip?again")
    assert everything_below(tmp_path / "e") == []


def test_no_space_while_downloading(mirror, tmp_path, monkeypatch):
    def full(path, mode="r", *args, **keywords):
        if str(path).endswith(".part") and "b" in mode and "r" not in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return builtins.open(path, mode, *args, **keywords)

    monkeypatch.setattr(download, "open", full, raising=False)
    assert "no space left" in fails("ml-1m", tmp_path / "d")
    assert everything_below(tmp_path) == []


def test_interrupt_leaves_nothing_that_looks_complete(archive, tmp_path, monkeypatch):
    source = archive(ML_1M)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_put_in_place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare("ml-1m", tmp_path / "d", source, progress=False)
    assert not (tmp_path / "d").exists()


# ------------------------------------------------------------------------------ bad archives


def test_truncated_archive(archive, tmp_path):
    source = archive({**ML_1M, "ml-1m/README": os.urandom(10_000)})
    source.write_bytes(source.read_bytes()[:-5_000])
    text = fails("ml-1m", tmp_path / "d", source)
    assert "source.zip" in text and "cut off" in text
    assert not (tmp_path / "d").exists()


def test_damaged_member(archive, tmp_path):
    source = archive(ML_1M)
    content = bytearray(source.read_bytes())
    place = content.index(b"ml-1m/ratings.dat") + len("ml-1m/ratings.dat") + 8
    content[place] ^= 0xFF
    source.write_bytes(content)
    assert "source.zip" in fails("ml-1m", tmp_path / "d", source)


def test_truncated_gzip(tmp_path):
    reviews = tmp_path / "reviews_Beauty_5.json.gz"
    reviews.write_bytes(gzip.compress(REVIEWS.encode())[:-20])
    (tmp_path / "meta_Beauty.json.gz").write_bytes(gzip.compress(META.encode()))
    assert "cut off" in fails("amazon-beauty", tmp_path / "d", reviews)


def test_not_a_zip(tmp_path):
    (tmp_path / "ml-1m.zip").write_text("<html>log in to the hotel's network</html>")
    assert "not the archive" in fails("ml-1m", tmp_path / "d", tmp_path / "ml-1m.zip")
    assert "no file" in fails("ml-1m", tmp_path / "d", tmp_path / "ml-2m.zip")
    assert "is a folder" in fails("ml-1m", tmp_path / "d", tmp_path)


@pytest.mark.parametrize("name, members", [("ml-1m", ML_1M), ("ml-20m", LATEST), ("lastfm", LASTFM)])
def test_missing_member(archive, tmp_path, name, members):
    used = [member for member in members if not member.endswith(("/", "links.csv"))]
    for missing in used:
        source = archive({member: text for member, text in members.items() if member != missing})
        text = fails(name, tmp_path / "d", source)
        assert f"no {missing.rsplit('/', 1)[-1]} in source.zip" in text


def test_missing_column_of_a_member(archive, tmp_path):
    members = {name: text.replace("movieId", "movieID") for name, text in LATEST.items()}
    text = fails("ml-20m", tmp_path / "d", archive(members))
    assert "'movieId'" in text and "ratings.csv" in text and "did you mean movieID" in text


def test_a_line_with_too_few_fields(archive, tmp_path):
    text = fails("ml-1m", tmp_path / "d", archive({**ML_1M, "ml-1m/users.dat": "1::F::1::10::48067\n2::M\n"}))
    assert "users.dat, line 2" in text


# ------------------------------------------------------------------------------ the folder


def test_refuses_to_overwrite(archive, tmp_path, site):
    first = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    before = first.files[0].read_text()
    text = fails("ml-1m", tmp_path / "d", site.url + "ml-1m.zip")
    assert "exists already" in text and "--force" in text
    assert site.log == []  # said before anything is downloaded

    shorter = archive({**ML_1M, "ml-1m/ratings.dat": "2::10::5::978300760\n"}, "shorter.zip")
    broken = tmp_path / "broken.zip"
    broken.write_text("no")
    fails("ml-1m", tmp_path / "d", broken, force=True)
    assert first.files[0].read_text() == before  # the old one stays until the new one is complete
    assert prepare("ml-1m", tmp_path / "d", shorter, force=True, progress=False).interactions == 1
    assert len(first.files[0].read_text().splitlines()) == 2
    assert everything_below(tmp_path / "d") == ["ml-1m", "ml-1m/ml-1m.inter", "ml-1m/ml-1m.item", "ml-1m/ml-1m.user"]


@pytest.mark.parametrize(
    "name, columns, files, said",
    [
        ("mine", COLUMNS, {}, "no file"),
        ("mine", {**COLUMNS, "time": "tss"}, {"source": CSV}, "did you mean ts"),
        (
            "mine",
            {**COLUMNS, "items": "items", "text": "name"},
            {"source": CSV, "items": "iid,title\n"},
            "'name' in items",
        ),
        ("mine", {**COLUMNS, "items": "items", "text": "name"}, {"source": CSV}, "no file"),
        ("mine", COLUMNS, {"source": ""}, "source is empty"),
        ("ml-1m", {}, {"source": "<html>log in</html>"}, "not the archive"),
        ("lastfm", {}, {"source": "<html>log in</html>"}, "not the archive"),
        ("amazon-beauty", {}, {"source": REVIEWS}, "no file"),
        ("amazon-beauty", {}, {"source": "{}", "meta_Beauty.json.gz": META}, "'reviewerID'"),
    ],
)
def test_a_wrong_file_is_named_before_a_data_set_that_stands_in_its_way(
    tmp_path, monkeypatch, name, columns, files, said
):
    monkeypatch.chdir(tmp_path)
    for file, content in files.items():
        Path(file).write_text(content)
    older = Path("d", name, f"{name}.inter")
    older.parent.mkdir(parents=True)
    older.write_text("older")
    text = fails(name, "d", "source", columns=columns)
    assert said in text and "exists already" not in text
    assert older.read_text() == "older"


def test_force_keeps_what_is_not_its_own(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    (done.path / "vectors.npy").write_text("days of work")
    assert "vectors.npy" in fails("ml-1m", tmp_path / "d", archive(ML_1M), force=True)
    assert (done.path / "vectors.npy").read_text() == "days of work"


def test_an_empty_folder_is_in_nobodys_way(archive, tmp_path):
    (tmp_path / "d" / "ml-1m").mkdir(parents=True)  # as an interrupted RecBole leaves it
    assert prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False).files[0].exists()


def test_unwritable_folder(archive, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    text = fails("ml-1m", tmp_path / "file" / "d", archive(ML_1M))
    assert "cannot write in" in text and "--data_path" in text

    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "Permission denied" in fails("ml-1m", tmp_path / "d", tmp_path / "given" / "source.zip")


def test_the_folder_can_be_read_by_others(archive, tmp_path):
    done = prepare("ml-1m", tmp_path / "d", archive(ML_1M), progress=False)
    (tmp_path / "plain").mkdir()
    assert done.path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# ------------------------------------------------------------------------------ names and the command


def test_unknown_data_set(tmp_path):
    text = fails("ml-1n", tmp_path / "d")
    assert "did you mean ml-1m" in text and "--help" in text and "--from=" in text
    assert max(map(len, text.splitlines())) < 160  # the list of all stands elsewhere
    assert "comes with RecBole" in fails("ml-100k", tmp_path / "d")
    assert "--from" in fails("mine", tmp_path / "d", columns=COLUMNS)
    for name in ("../x", "a/b", "", ".hidden"):
        assert "name of a data set" in fails(name, tmp_path / "d", tmp_path)
    assert not (tmp_path / "d").exists()


def test_known_datasets_and_their_properties():
    known = known_datasets()
    folder = ROOT / "properties" / "dataset"
    for name in ("ml-1m", "ml-20m", "ml-latest-small", "lastfm", "amazon-beauty", "amazon-video-games"):
        assert name in known and (folder / f"{name}.yaml").exists()
    assert known["amazon-beauty"] == "Amazon reviews 2014, Beauty, 5-core"
    urls = [url for recipe in command.CATALOGUE.values() for url in recipe.urls]
    assert all(url.startswith("https://") for url in urls)
    assert command.AMAZON + "meta_Clothing_Shoes_and_Jewelry.json.gz" in urls


def test_properties_name_the_columns_that_are_written(archive, tmp_path):
    yaml = pytest.importorskip("yaml")
    folder = ROOT / "properties" / "dataset"
    for name, members in [("ml-1m", ML_1M), ("ml-latest-small", LATEST), ("lastfm", LASTFM)]:
        done = prepare(name, tmp_path / "d", archive(members), progress=False)
        for suffix, columns in yaml.safe_load((folder / f"{name}.yaml").read_text())["load_col"].items():
            header = [column.split(":")[0] for column in lines(done, f".{suffix}")[0].split("\t")]
            assert set(columns) <= set(header)


def test_command(archive, tmp_path, capsys):
    source = archive(ML_1M)
    words = ["--dataset=ml-1m", f"--from={source}", f"--data_path={tmp_path / 'd'}"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "ml-1m: 2 users, 3 items, 4 interactions"
    assert "ml-1m.inter" in printed[2]
    for line, model in zip(printed[-2:], ("ContRec", "SASRec")):
        assert line.endswith(f"--model={model} --dataset=ml-1m --data_path={tmp_path / 'd'}")
    assert len(printed) == 5
    with pytest.raises(PrepareError, match="--force"):
        main(words)
    assert main([*words, "--force"]) == 0


def test_command_for_a_table(tmp_path, capsys):
    (tmp_path / "r.csv").write_text(CSV, encoding="utf-8")
    (tmp_path / "i.csv").write_text("iid,title,genre\nc,T,G\n")
    words = f"--dataset=mine --from={tmp_path}/r.csv --user=uid --item=iid --time=ts --rating=stars".split()
    words += f"--items={tmp_path}/i.csv --item_id=iid --text=title,genre --data_path={tmp_path}/d".split()
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[3].startswith("note: rows left out")
    assert printed[4].startswith("note: missing ratings")
    assert printed[5].endswith(f"--dataset=mine --data_path={tmp_path}/d")


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "--dataset=NAME"),
        (["--dataset", "ml-1m"], "--dataset=ml-1m"),
        (["ml-1m"], "--dataset=ml-1m"),
        (["--datset=ml-1m"], "did you mean --dataset"),
        (["--dataset=ml-1m", "--force=perhaps"], "--force"),
    ],
)
def test_bad_words(words, said):
    with pytest.raises(UserError) as caught:
        main(words)
    assert said in str(caught.value) and len(str(caught.value)) < 200


# ------------------------------------------------------------------------------ RecBole reads it

TRICKY = {
    **LATEST,
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{user},{item},4.0,{1_700_000_000 + 10 * item}\n" for user in (1, 2, 3) for item in (4, 3, 1)),
}


def test_pandas_reads_it_as_recbole_does(archive, tmp_path):
    done = prepare("ml-latest-small", tmp_path / "d", archive(TRICKY), progress=False)
    for file in done.files:
        header = file.read_text().split("\n")[0].split("\t")
        assert all(column.split(":")[1] in ("token", "token_seq", "float") for column in header)
        types = {column: float if column.endswith(":float") else str for column in header}
        frame = pd.read_csv(file, delimiter="\t", usecols=header, dtype=types, encoding="utf-8", engine="python")
        assert len(frame) == len(file.read_text().split("\n")) - 2
    assert frame["movie_title:token_seq"].tolist() == ["Toy Story", "American President, The ''Q''", "Babylon 5"]


def test_recbole_reads_it(archive, tmp_path, monkeypatch):
    module = pytest.importorskip("recbole_contrec.settings.config")
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.chdir(tmp_path)
    done = prepare("ml-latest-small", tmp_path / "d", archive(TRICKY), progress=False)
    from recbole.data import create_dataset

    settings = {"data_path": str(tmp_path / "d"), "gpu_id": "", "state": "ERROR",
                "load_col": {"inter": ["user_id", "item_id", "timestamp"],
                             "item": ["item_id", "movie_title", "release_year", "genre"]},
                "user_inter_num_interval": "[1,inf)", "item_inter_num_interval": "[1,inf)"}  # fmt: skip
    config = module.Config(model="SASRec", dataset="ml-latest-small", config_dict=settings)
    data = create_dataset(config)
    assert (data.user_num - 1, data.item_num - 1, data.inter_num) == (done.users, done.items, done.interactions)
    data.build()
    # 10 seconds apart: one and the same time in single precision, so the order of the file decides
    assert len(set(data.inter_feat["timestamp"].tolist())) == 1
    rows = data.inter_feat["user_id"] == 1
    assert data.id2token("item_id", data.inter_feat["item_id"][rows]).tolist() == ["3", "4"]
    assert data.id2token("item_id", data.inter_feat["item_id_list"][rows][-1][:2]).tolist() == ["1", "3"]
    title = data.item_feat["movie_title"][data.token2id("item_id", "3")]
    assert " ".join(data.id2token("movie_title", title[title > 0])) == "American President, The ''Q''"
