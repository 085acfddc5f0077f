"""
recbole_contrec.data.encoding
#############################
The bytes of a file as text, or one line that names the likely encoding and the setting for it.
"""

import re
from codecs import getincrementaldecoder
from pathlib import Path

import numpy as np

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.showing import show

_PIECE = 1 << 20  # bytes that are looked at together
_UTF8, _ASCII = ("utf-8", "utf8"), ("ascii", "us-ascii")
_MARK = b"\xef\xbb\xbf"  # of UTF-8; some programs write it again at every save
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"PAR1": "Parquet",
    b"\x89HDF": "HDF5",
    b"SQLite": "SQLite",
    b"\x80\x04\x95": "pickle",
}
_ENCODINGS = ("utf-8", "utf-16", "utf-32", "latin-1", "cp1252", "gb18030", "big5", "shift_jis", "euc_kr", "ascii")


def utf8(data: bytes, file: Path, encoding: str | None) -> bytes:
    """A whole file as UTF-8 without byte order mark."""
    while data.startswith(_MARK):
        data, encoding = data[len(_MARK) :], "utf-8"
    name = "utf-8" if encoding is None else str(encoding).lower().replace("_", "-")
    if name not in (*_UTF8, *_ASCII):
        return decoded(data, file, encoding).encode()
    if b"\0" in data or not (data.isascii() or name in _UTF8 and _is_utf8(data)):
        decoded(data, file, encoding)  # says what is wrong; it takes the memory of the file once more
    _refuse_wide(data, file, name)
    return data


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are text in UTF-8, looked at in pieces: a large file is not held a second time."""
    decoder, view = getincrementaldecoder("utf-8")(), memoryview(data)
    try:
        for start in range(0, len(data), _PIECE):
            decoder.decode(view[start : start + _PIECE], final=start + _PIECE >= len(data))
    except UnicodeDecodeError:
        return False
    return True


def decoded(data: bytes, file: Path, encoding: str | None, whole: bool = True) -> str:
    """Bytes as text, without byte order mark; the last characters may be cut off where they are not the ``whole``
    file."""
    while data.startswith(_MARK):
        data, encoding = data[len(_MARK) :], "utf-8"
    name = "utf-8" if encoding is None else str(encoding)  # 1252 is a name as well
    wide = re.fullmatch(r"utf[-_]?(16|32).*", name.lower())
    if not wide:
        _refuse_wide(data, file, name)
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        if not whole and error.start > len(data) - 8:
            return decoded(data[: error.start], file, encoding)
        _refuse_binary(data, file)
        before = data[: error.start].decode(name, "replace")
        others = "for instance --encoding=latin-1, cp1252 or gb18030" if name.lower() != "latin-1" else "it is another"
        byte = f"byte 0x{data[error.start]:02x}" if error.start < len(data) else "its end"
        raise UserError(
            f"{file.name} is not written in {name} (line {_line_number(before)}, {byte}): name its encoding, {others}"
        ) from error
    except (LookupError, UnicodeError, AttributeError, TypeError) as error:
        raise UserError(f"encoding={show(name)} is no text encoding{did_you_mean(str(name), _ENCODINGS)}") from error
    if "\0" in text:
        _refuse_packed(data, file)
        raise UserError(
            f"{file.name}, line {_line_number(text[: text.index(chr(0))])} holds a NUL character: the file is damaged, "
            f"or not written in {name}; name its encoding, for instance --encoding=utf-16"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{file.name} is not written in {name}: line {_line_number(text[: error.start])} holds half a character"
        ) from error
    return text.lstrip("\ufeff")


def _refuse_packed(data: bytes, file: Path) -> None:
    """Archives and the like, whatever the file is called."""
    kind = next((kind for mark, kind in _PACKED.items() if data.startswith(mark)), None)
    if kind:
        raise UserError(f"{file.name} is a {kind} file, which is not read under this name: unpack or convert it")


def _refuse_binary(data: bytes, file: Path) -> None:
    _refuse_packed(data, file)
    if b"\0" in data and b"\0" in data[: 1 << 16]:
        raise UserError(
            f"{file.name} holds NUL characters and others that are no text: it is damaged, or of another kind"
        )


def _refuse_wide(data: bytes, file: Path, encoding: str) -> None:
    """UTF-16 and UTF-32 by their byte order mark, or by where NUL bytes stand."""
    likely = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    head = np.frombuffer(data[:400], np.uint8) == 0
    zeros = [int(head[place::4].mean() > 0.9) for place in range(4)] if len(head) >= 8 else []
    by_zeros: dict[tuple[int, ...], str] = {
        (0, 1, 1, 1): "utf-32-le",
        (1, 1, 1, 0): "utf-32-be",
        (0, 1, 0, 1): "utf-16-le",
        (1, 0, 1, 0): "utf-16-be",
    }
    likely = likely or by_zeros.get(tuple(zeros))
    if likely:
        raise UserError(f"{file.name} is written in {likely}, not in {encoding}: set --encoding={likely}")


def _line_number(before: str) -> int:
    return 1 + before.count("\n") + before.count("\r") - before.count("\r\n")
