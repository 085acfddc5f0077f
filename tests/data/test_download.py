"""recbole_contrec.data.download: what is fetched, resumed, checked, and left behind."""

import builtins
import errno
import gzip
import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from recbole_contrec.data import download, writing
from recbole_contrec.data import prepare as command
from recbole_contrec.data.prepare import PrepareError, prepare
from tests.helpers.published import LATEST, META, ML_1M, REVIEWS, everything_below, fails, zipped


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
        patch.setattr(writing, "_write_one", full)
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
