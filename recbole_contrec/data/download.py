r"""
recbole_contrec.data.download
#############################
The files that a data set is made of: from this machine, or over http or https - then resumed
where they broke off, checked, and under their names only when they are complete.
"""

import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from recbole_contrec.errors import UserError

ATTEMPTS = 3  # a connection that breaks is taken up again so many times before giving up
RETRY_WAIT = 1.0  # seconds between two attempts
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16


class PrepareError(UserError):
    """What the user can change, in one or two lines; the command line turns it into exit code 2."""


class DiskError(PrepareError):
    """Nothing is wrong with the source: it need not be fetched again."""


class _Interrupted(Exception):
    """The connection ended before the file did."""


@contextmanager
def disk_errors(folder: str | Path) -> Iterator[None]:
    """Say in words that a file below ``folder`` cannot be written, and what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise DiskError(f"no space left for {folder}: free some or choose another --data_path") from error
        reason = error.strerror or error
        raise DiskError(f"cannot write in {folder}: {reason}; choose another --data_path") from error


@contextmanager
def source_files(locations: Sequence[str], cache: Path, md5: str | None, progress: bool) -> Iterator[list[Path]]:
    """The files of a data set; ``md5`` belongs to the first of ``locations``.

    Downloads lie in ``cache`` until the body of the ``with`` is through, and go when it cannot
    read them; after any other failure (no space left, Ctrl-C) the next run finds them there.
    """
    folders = [cache / sha1(location.encode()).hexdigest()[:12] for location in locations]
    try:
        checksums = [md5] + [None] * len(locations)
        paths = [_file(*each, progress) for each in zip(locations, folders, checksums)]
        try:
            yield paths
        except DiskError:
            raise
        except PrepareError:
            _remove(folders)
            raise
        _remove(folders)
    finally:
        for folder in [*folders, cache]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def is_url(location: str) -> bool:
    scheme = urlsplit(location).scheme.lower() if "://" in location else ""
    if scheme not in ("", "http", "https"):
        raise PrepareError(f"{location}: only http, https and files can be read")
    return bool(scheme)


def local_files(locations: Sequence[str]) -> list[Path | None]:
    """Those files of a data set that are on this machine, None for addresses.

    Raises:
        PrepareError: there is no such file.
    """
    return [None if is_url(location) else _local(Path(location)) for location in locations]


def _file(location: str, folder: Path, md5: str | None, progress: bool) -> Path:
    if not is_url(location):
        path = _local(Path(location))
        check_md5(path, md5, location)
        return path
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(location).path).rsplit("/", 1)[-1])
    path = folder / (name.lstrip(".") or "download")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if md5 is None and name.endswith(".zip"):
        md5 = published_md5(location)
    if path.is_file():  # from a run that ended before the data set was written
        check_md5(path, md5, location, remove=True)
        return path
    return download(location, path, md5, progress)


def _local(path: Path) -> Path:
    """A file on this machine, packed or already unpacked."""
    if path.suffix == ".gz" and not path.exists() and path.with_suffix("").is_file():
        return path.with_suffix("")
    if path.is_dir():
        raise PrepareError(f"{path} is a folder: pass the downloaded file itself, --from=FILE")
    if not path.is_file():
        raise PrepareError(f"no file {path}")
    return path


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def by_hand(url: str) -> str:
    """The way around a download that does not work."""
    return f"download {url.rsplit('/', 1)[-1]} from {url} by hand and pass --from=FILE"


def md5_of(path: str | Path) -> str:
    digest = hashlib.md5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def published_md5(url: str) -> str | None:
    """The checksum that GroupLens keeps beside its archives as ``<url>.md5``; None without one."""
    try:
        with _open(url + ".md5", {}) as response:
            text = response.read(1024).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException, ValueError):  # a missing checksum is no reason to stop
        return None
    # `MD5 (ml-1m.zip) = HEX` or `HEX  ml-1m.zip`; an error page with status 200 is neither
    found = re.fullmatch(r"(?:MD5 \([^)\n]*\) = )?([0-9a-fA-F]{32})(?:\s+\*?\S+)?", text)
    return found.group(1).lower() if found else None


def download(url: str, target: str | Path, md5: str | None = None, progress: bool = True) -> Path:
    """Fetch ``url`` into ``target``; what is already there from an interrupted run is kept and used.

    Args:
        url (str): an http or https address.
        target (path): the file to make; its folder must exist.
        md5 (str): the expected checksum in hexadecimal digits; None for no check.
        progress (bool): show a progress bar in bytes.

    Returns:
        Path: ``target``.
    """
    target = Path(target)
    part = target.with_name(target.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part, progress)
            break
        except _Interrupted as error:
            broken = error
            if attempt + 1 < ATTEMPTS:
                time.sleep(RETRY_WAIT)
    else:
        raise PrepareError(
            f"the connection broke off: {broken}. Run the same command again to go on, or {by_hand(url)}"
        )
    with disk_errors(target.parent):
        check_md5(part, md5, url, remove=True)
        os.replace(part, target)
        _validator(part).unlink(missing_ok=True)
    return target


def check_md5(path: str | Path, md5: str | None, name: str, remove: bool = False) -> None:
    """Raise :class:`PrepareError` when the file is not the expected one; ``remove`` it then."""
    if md5 is None:
        return
    got = md5_of(path)
    if got != md5.lower():
        if remove:
            Path(path).unlink()
            _validator(Path(path)).unlink(missing_ok=True)
        raise PrepareError(
            f"wrong checksum of {name}: expected md5 {md5.lower()}, got {got}"
            + ("; the file was removed, run the command again" if remove else "")
        )


def _transfer(url: str, part: Path, progress: bool) -> None:
    """One connection: append to ``part`` where the server can do that, else start it anew."""
    have = part.stat().st_size if part.exists() else 0
    seen = _validator(part).read_text() if have and _validator(part).exists() else ""
    # without If-Range a file that changed on the server would be glued to the old beginning
    headers = {"Range": f"bytes={have}-", "If-Range": seen} if seen else {}
    with _response(url, headers, part) as response:
        resumed = response.status == 206
        start = have if resumed else 0
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _Interrupted("the server sent another part than the one asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        received = _save(response, part, start, total, progress)
    if total is not None and received < total:
        raise _Interrupted(f"{received:,} of {total:,} bytes of {url} arrived")


def _save(response: Any, part: Path, start: int, total: int | None, progress: bool) -> int:
    """Write the body behind the first ``start`` bytes of ``part``; return the size of ``part``."""
    etag = response.headers.get("ETag", "")
    validator = response.headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag
    received, bar = start, None
    try:
        with disk_errors(part.parent):
            file = open(part, "ab" if start else "wb")
            _validator(part).write_text(validator)
        bar = tqdm(
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=part.stem,
            disable=not progress,
        )
        with file:
            while True:
                try:
                    chunk = response.read(CHUNK)
                except http.client.IncompleteRead as error:
                    chunk = error.partial
                except (OSError, http.client.HTTPException) as error:
                    raise _Interrupted(f"{error or type(error).__name__} ({url_of(response)})") from error
                if not chunk:
                    return received
                with disk_errors(part.parent):
                    file.write(chunk)
                    file.flush()
                received += len(chunk)
                bar.update(len(chunk))
    finally:
        if bar is not None:
            bar.close()
        if received == 0:
            part.unlink(missing_ok=True)
            _validator(part).unlink(missing_ok=True)


def _response(url: str, headers: dict, part: Path) -> Any:
    """Open ``url``, with every failure in words."""
    try:
        return _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and headers:  # the partial file is longer than the file itself
            part.unlink()
            raise _Interrupted("the server has nothing behind the part that is here") from error
        raise PrepareError(f"the server answered {error.code} ({error.reason}) for {url}: {by_hand(url)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PrepareError(f"no connection to {url} ({reason}): {by_hand(url)}") from error


def _open(url: str, headers: dict) -> Any:
    """Open an http or https address; the handlers for ftp, file and data are left out, so that
    neither a setting nor a redirect can name anything else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    headers = {"User-Agent": "recbole_contrec", "Accept-Encoding": "identity", **headers}
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def url_of(response: Any) -> str:
    return getattr(response, "url", "") or "unknown address"


def _validator(part: Path) -> Path:
    """Where the ETag or date stands that says which version of the file the part belongs to."""
    return part.with_name(part.name + ".version")
