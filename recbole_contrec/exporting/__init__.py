"""
recbole_contrec.exporting
#########################
A trained model for other systems: the vectors by which it ranks, the codes of its items.
"""

from collections.abc import Sequence
from pathlib import Path

from recbole_contrec.errors import UserError
from recbole_contrec.exporting.formats import WRITERS
from recbole_contrec.exporting.space import Export, RankingSpace, export_of, ranking_space
from recbole_contrec.files import check_file, check_folder
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.packages import require
from recbole_contrec.reloading import load_data_and_model

__all__ = ["FORMATS", "Export", "RankingSpace", "export", "export_of", "ranking_space"]

ONNX = "onnx"
FORMATS = (*sorted([*WRITERS, ONNX]),)


def check_output(output: str, format: str) -> None:
    """Whether an export can be written, asked before a model is loaded.

    Raises:
        UserError: says what to change.
    """
    if format not in FORMATS:
        raise UserError(f"format={format}: choose one of {', '.join(FORMATS)}")
    ending = Path(output).suffix[1:]
    if ending in FORMATS and ending != format:
        raise UserError(f"--output={output}: the ending says {ending}, and --format={format} something else")
    if format == ONNX:
        for package in ("onnx", "onnxruntime", "onnxscript"):
            require(package, "--format=onnx")
    if format == "parquet":
        require("pyarrow", "writing Parquet")
        check_folder(output, "--output")
    else:
        check_file(output, "--output", makes_folders=False)


def export(
    checkpoint: str | Path | LoadedRun,
    output: str | Path,
    format: str = "npz",
    users: Sequence[str] | str | None = None,
    batch_size: int = 256,
) -> tuple[int, int]:
    """Write the vectors by which a model ranks, and the codes of its items, for other systems.

    The inner product of the vectors of a user and of an item is the score; ``repeat_bias`` and whatever else comes to
    it are named in the metadata.

    Args:
        checkpoint: path of a checkpoint or of a run's folder, or what ``load_data_and_model`` gave.
        output: the file; for ``parquet`` a folder.
        format: ``npz``, ``safetensors`` or ``parquet``. With ``parquet`` no more than a batch of users is in memory.
            ``onnx`` writes the way from a history to a preference instead, see
            :func:`~recbole_contrec.exporting.onnx_file.write_onnx`.
        users: ids of users whose preference vectors are written as well, from their whole history; ``all`` for every
            user of the data set.
        batch_size: users read at once.

    Returns:
        tuple: items and users that were written.

    Raises:
        UserError: a model that has neither item vectors in an inner product nor codes, an unknown user, or a file that
            cannot be written.
    """
    check_output(str(output), format)
    loaded = load_data_and_model(checkpoint) if isinstance(checkpoint, (str, Path)) else checkpoint
    if isinstance(users, str) and users != "all":
        raise UserError(f"users: {users!r} is one text; give a list, or 'all'")
    if format == ONNX and users is not None:
        raise UserError("--format=onnx writes what reads histories, and nothing of users: leave --users and --all away")
    try:
        if format == ONNX:
            from recbole_contrec.exporting.onnx_file import write_onnx  # of an extra

            written = write_onnx(loaded, Path(output))
        else:
            written = WRITERS[format](export_of(loaded, users, batch_size), Path(output))
    except OSError as error:
        raise UserError(f"cannot write {output}: {error}") from error
    return loaded.data.dataset.item_num - 1, written
