"""Columns in files are the columns, whatever lies in the folder."""

import os

import numpy as np
import pytest

from recbole_contrec.storage.memory_mapped import memory_mapped

COLUMNS = {
    "integers": np.arange(7),
    "single precision": np.array([0.1, np.nan, -np.inf], dtype=np.float32),
    "rows": np.arange(12.0).reshape(3, 4).T,
    "nothing": np.zeros((0, 2)),
}


def in_a_file(array):
    """Whether an array is read from a file."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
def test_a_column_from_a_file_has_its_type_shape_and_bits(tmp_path, column):
    for _ in ("written", "found"):
        found = memory_mapped("x", column, tmp_path / "made")
        assert in_a_file(found) and type(found) is np.ndarray and found.dtype == column.dtype
        assert found.shape == column.shape and found.tobytes() == column.tobytes()
    assert len([*(tmp_path / "made").iterdir()]) == 1


def test_equal_columns_share_a_file_and_others_have_their_own(tmp_path):
    for column in (np.arange(6), np.arange(6), np.arange(6)[::-1], np.arange(6).reshape(2, 3), np.arange(6.0)):
        assert memory_mapped("any / name", column, tmp_path).tolist() == column.tolist()
    assert len([*tmp_path.iterdir()]) == 4


def test_a_file_that_is_there_is_not_written_again(tmp_path):
    memory_mapped("x", np.arange(6), tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.stat()
    memory_mapped("x", np.arange(6), tmp_path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("size", [0, 5, 100, -8, None], ids=["empty", "magic", "header", "cut", "other numbers"])
def test_a_damaged_file_is_written_again(tmp_path, size):
    memory_mapped("x", np.arange(6), tmp_path)
    (path,) = tmp_path.iterdir()
    if size is None:
        np.save(path, np.arange(1, 7))
    else:
        path.write_bytes(path.read_bytes()[:size])
    found = memory_mapped("x", np.arange(6), tmp_path)
    assert in_a_file(found) and found.tolist() == [*range(6)] and np.load(path).tolist() == [*range(6)]


@pytest.mark.parametrize("place", [8, 21, 60])
def test_a_damaged_header_is_written_again(tmp_path, place):
    memory_mapped("x", np.arange(6), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + b"\n" + whole[place + 1 :])
    assert memory_mapped("x", np.arange(6), tmp_path).tolist() == [*range(6)] and path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["archive", "broken archive", "times"])
def test_a_foreign_file_is_written_again(tmp_path, kind):
    memory_mapped("x", np.arange(6), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    with open(path, "wb") as file:
        if kind == "archive":
            np.savez(file, x=np.arange(6))
        elif kind == "broken archive":
            file.write(b"PK\x03\x04")
        else:
            np.save(file, np.array(["2020"], "M8[Y]"))
    assert memory_mapped("x", np.arange(6), tmp_path).tolist() == [*range(6)] and path.read_bytes() == whole


def test_what_is_written_into_a_column_stays_out_of_its_file(tmp_path):
    memory_mapped("x", np.arange(6), tmp_path)[:] = 0
    assert memory_mapped("x", np.arange(6), tmp_path).tolist() == [*range(6)]


def test_a_column_that_cannot_be_written_stays_in_memory(tmp_path, caplog):
    (tmp_path / "file").touch()
    column = np.arange(6)
    assert memory_mapped("clicks", column, tmp_path / "file") is column
    assert "clicks stays in memory: cannot write" in caplog.text


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    left = tmp_path / f"x-0123.npy.{2**22 + os.getpid()}.part"
    left.touch()
    memory_mapped("x", np.arange(6), tmp_path)
    assert not left.exists()
