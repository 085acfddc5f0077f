"""
recbole_contrec.data.archives
#############################
Source files as they come, packed or not. What a file is packed with is read in its first bytes, whatever its name ends
in.
"""

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from recbole_contrec.data.download import PrepareError

_MARKS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, tarfile.TarError)


@contextmanager
def unpacked(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The bytes of an open file, or of the only file in an archive; ``name`` is for error texts.

    Raises:
        PrepareError: an archive of several files or of none, or one that Python cannot unpack.
    """
    with ExitStack() as stack:
        yield _unpacked(file, name, stack)


def _unpacked(file: Any, name: str, stack: ExitStack) -> BinaryIO:
    head = file.read(512)
    file.seek(0)
    kind = next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), None)
    if head[257:262] == b"ustar":
        tar = stack.enter_context(tarfile.open(fileobj=file))
        member = _only(name, [member.name for member in tar if member.isfile()])
        content = tar.extractfile(member)
        assert content is not None  # None is for what is no file
        return _unpacked(stack.enter_context(content), f"{name}:{member}", stack)
    if kind is None:
        return file
    if kind == "zip":
        archive = stack.enter_context(zipfile.ZipFile(file))
        member = _only(name, [member for member in archive.namelist() if not member.endswith("/")])
        return _unpacked(stack.enter_context(archive.open(member)), f"{name}:{member}", stack)
    if kind == "zstd":
        return _unpacked(_zstd(file, name, stack), name, stack)
    if kind in ("7z", "rar"):
        raise PrepareError(f"{name} is a {kind} archive, which cannot be read here: unpack it")
    opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind]
    return _unpacked(stack.enter_context(opener(file)), name, stack)


def _only(name: str, members: list[str]) -> str:
    members = [
        member for member in members if not member.rsplit("/", 1)[-1].startswith(".") and "__MACOSX" not in member
    ]
    if len(members) != 1:
        held = (
            f"{len(members):,} files ({', '.join(members[:5])}{', ...' if len(members) > 5 else ''})"
            if members
            else "no file"
        )
        raise PrepareError(f"{name} holds {held}: unpack it and name the one that is meant")
    return members[0]


def _zstd(file: BinaryIO, name: str, stack: ExitStack) -> BinaryIO:
    """Of the standard library since Python 3.14, else of a package."""
    try:
        from compression import zstd
    except ImportError:
        try:
            import zstandard
        except ImportError:
            raise PrepareError(f"reading {name} needs zstandard: pip install zstandard") from None
        whole = stack.enter_context(tempfile.TemporaryFile())  # its reader cannot go back to the start
        try:
            shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True), whole)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        whole.seek(0)
        return whole
    return stack.enter_context(zstd.open(file))
