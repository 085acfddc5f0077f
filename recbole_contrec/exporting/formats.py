"""
recbole_contrec.exporting.formats
#################################
Vectors and codes as files that other systems read: ``npz``, ``safetensors`` and ``parquet``.
"""

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from recbole_contrec.errors import UserError
from recbole_contrec.exporting.space import Export, Rows
from recbole_contrec.files import write_whole

METADATA = "metadata.json"
ITEMS, USERS = "items.parquet", "users.parquet"  # in the folder of an export as Parquet


def write_npz(export: Export, output: Path) -> int:
    """One file of arrays, without pickled code: ``item_ids`` [n], ``item_vectors`` [n, d'], ``item_codes`` [n, K],
    ``user_ids`` [u], ``user_vectors`` [u, d'] as far as they are, and ``metadata``, JSON as a text. Gives the users."""
    arrays, users = _arrays(export)
    texts = {name: np.array(value, dtype=np.str_) for name, value in arrays.items() if isinstance(value, list)}
    named = {**arrays, **texts, "metadata": np.array(json.dumps(export.metadata))}

    def write(path: Path) -> None:
        with path.open("wb") as file:  # a name would get another ending
            np.savez(file, **named)

    write_whole(output, write)
    return users


def write_safetensors(export: Export, output: Path) -> int:
    """The same as tensors; ids are UTF-8 bytes, one id a line, and ``metadata`` stands in the header. Gives the
    users."""
    from safetensors.numpy import save_file

    arrays, users = _arrays(export)
    tensors = {
        name: np.frombuffer("\n".join(value).encode(), dtype=np.uint8) if isinstance(value, list) else value
        for name, value in arrays.items()
    }
    header = {"metadata": json.dumps(export.metadata)}
    write_whole(output, lambda path: save_file(tensors, path, metadata=header))
    return users


def write_parquet(export: Export, output: Path) -> int:
    """A folder: ``items.parquet`` with the columns item_id, vector and codes, ``users.parquet`` with user_id and
    vector, and ``metadata.json``. No more than a batch of users is in memory. Gives the users.

    Raises:
        UserError: an export is there already.
    """
    if found := [name for name in (ITEMS, USERS, METADATA) if (output / name).exists()]:
        raise UserError(f"cannot write {output}: it holds {found[0]} already; choose another --output")
    text = json.dumps(export.metadata, indent=2)
    write_whole(output / ITEMS, lambda path: _write_table("item_id", export.items(), path))
    users = 0
    if export.users is not None:
        rows = export.users()
        counted: list[int] = []
        write_whole(output / USERS, lambda path: counted.append(_write_table("user_id", rows, path)))
        users = counted[0]
    write_whole(output / METADATA, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return users


WRITERS: dict[str, Callable[[Export, Path], int]] = {
    "npz": write_npz,
    "parquet": write_parquet,
    "safetensors": write_safetensors,
}


def _arrays(export: Export) -> tuple[dict[str, Any], int]:
    """Everything by name, and how many users there are; ids are lists."""
    found = _joined("item", export.items())
    if export.users is not None:
        found.update(_joined("user", export.users()))
    return found, len(found.get("user_ids", ()))


def _joined(what: str, rows: Iterator[Rows]) -> dict[str, Any]:
    parts = list(rows)
    found: dict[str, Any] = {f"{what}_ids": list(chain.from_iterable(part.ids for part in parts))}
    for name in ("vectors", "codes"):
        arrays = [array for part in parts if (array := getattr(part, name)) is not None]
        if arrays:
            found[f"{what}_{name}"] = np.concatenate(arrays)
    return found


def _write_table(name: str, rows: Iterator[Rows], path: Path) -> int:
    """A table of ids, vectors and codes, part by part; gives the number of its rows."""
    import pyarrow
    from pyarrow import parquet

    writer, count = None, 0
    try:
        for part in rows:
            table = {name: pyarrow.array(part.ids, pyarrow.string())}
            for column, array in (("vector", part.vectors), ("codes", part.codes)):
                if array is not None:
                    flat = pyarrow.array(np.ascontiguousarray(array).reshape(-1))
                    table[column] = pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])
            made = pyarrow.table(table)
            writer = writer or parquet.ParquetWriter(path, made.schema)
            writer.write_table(made)
            count += len(part.ids)
        if writer is None:
            parquet.write_table(pyarrow.table({name: pyarrow.array([], pyarrow.string())}), path)
    finally:
        if writer is not None:
            writer.close()
    return count
