"""
recbole_contrec.cli.tables
##########################
Tables that come one after the other, printed or written; no more than one is in memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_contrec.errors import UserError
from recbole_contrec.files import write_whole

if TYPE_CHECKING:
    from pandas import DataFrame  # slow

ENDINGS = (".csv", ".parquet")


def print_tables(tables: "Iterable[DataFrame]") -> None:
    """Print tables; one without rows, of somebody for whom nothing is left, is passed over."""
    for table in filter(len, tables):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))


def write_tables(tables: "Iterable[DataFrame]", output: str) -> None:
    """Write tables to one file, which appears when it is complete.

    Args:
        tables: of the same columns.
        output: a name that ends in one of :data:`ENDINGS`.

    Raises:
        UserError: the file cannot be written.
    """
    write = _write_csv if output.endswith(".csv") else _write_parquet
    try:
        write_whole(Path(output), lambda part: write(tables, part))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error}") from error


def _write_csv(tables: "Iterable[DataFrame]", path: Path) -> None:
    for number, table in enumerate(tables):
        table.to_csv(path, index=False, header=number == 0, mode="a" if number else "w")


def _write_parquet(tables: "Iterable[DataFrame]", path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds, writer = {"rank": pyarrow.int64(), "score": pyarrow.float32()}, None
    for table in tables:
        # Named, not guessed: the first table may be empty, for somebody who has had it all.
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in table.columns])
        writer = writer or parquet.ParquetWriter(path, schema)
        writer.write_table(pyarrow.Table.from_pandas(table, schema=schema, preserve_index=False))
    if writer is not None:
        writer.close()
