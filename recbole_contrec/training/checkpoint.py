"""
recbole_contrec.training.checkpoint
###################################
Checkpoints without pickled code: one safetensors file whose header carries a JSON record. It is written to a
temporary name and renamed, so a killed run leaves the previous file whole.
"""

import errno
import json
import os
import random
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recbole_contrec.errors import UserError

RECORD = "recbole_contrec"  # the header entry that holds the JSON record
FORMAT = 1


class Checkpoint(NamedTuple):
    """What a file holds: tensors by name, and a JSON-like record."""

    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under ``prefix.``, with the prefix taken off."""
        return {name[len(prefix) + 1:]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


def save(path: Path, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: no space left, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")  # two runs may write the same stage
    tensors = as_stored(tensors)
    header = {RECORD: json.dumps({"format": FORMAT, **record}, allow_nan=False)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=header)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise _not_written(path, error) from error


def as_stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors as a file holds them: on the CPU, contiguous, and apart where they share memory (tied weights), for
    safetensors refuses aliases."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def keep(path: Path, target: Path) -> None:
    """Give a checkpoint a second name, under which it stays when another one is saved in its place; nothing where there is
    none.

    Raises:
        UserError: no space left, or the folder cannot be written.
    """
    if not path.is_file():
        return
    try:
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)  # costs nothing, and the other name never shows half a file
        except OSError:  # a file system without hard links
            shutil.copyfile(path, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _not_written(target, error) from error


def save_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Put a folder beside a checkpoint, in the format of another tool. It appears when it is complete.

    Args:
        path: of the folder; one that is there already is replaced.
        write: fills a folder.

    Raises:
        UserError: no space left, or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise _not_written(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _not_written(path: Path, error: Exception) -> UserError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    why = "no space left on the device" if full else str(error)
    return UserError(f"cannot write the checkpoint {path}: {why}. "
                     f"Free some space or choose another folder with --checkpoint_dir=DIR")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        UserError: no such file, a truncated or foreign file, or one of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            # Copies: memory of a file is aligned otherwise than torch's own, and what is computed from it may be rounded otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        record = json.loads(header[RECORD])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of recbole_contrec, or it is damaged "
                        f"({type(error).__name__}). Checkpoints are the *.safetensors files of a run's folder") from error
    if not isinstance(record, dict) or "format" not in record:
        raise UserError(f"{path} is not a checkpoint of recbole_contrec")
    if record["format"] != FORMAT:
        raise UserError(f"{path} has checkpoint format {record['format']}, this version reads {FORMAT}")
    return Checkpoint(tensors, record)


def pack_names(names: Iterable[str]) -> torch.Tensor:
    """A list of names (without line breaks) as bytes: a header, where JSON would put it, has a limit of 100 MB."""
    return torch.frombuffer(bytearray("\n".join(names).encode()), dtype=torch.uint8)


def unpack_names(packed: torch.Tensor) -> list[str]:
    """Back from :func:`pack_names`."""
    return packed.numpy().tobytes().decode().split("\n")


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict]:
    """An optimizer's state as (tensors named ``number.field``, JSON record)."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for number, fields in state["state"].items():
        for field, value in fields.items():
            (tensors if torch.is_tensor(value) else scalars)[f"{number}.{field}"] = value
    return tensors, {"groups": state["param_groups"], "scalars": scalars}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], record: dict) -> None:
    """Put a state of :func:`pack_optimizer` back."""
    state: dict[int, dict] = {}
    for name, value in {**tensors, **record["scalars"]}.items():
        number, field = name.split(".", 1)
        state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": record["groups"]})


def pack_random_state() -> tuple[dict[str, torch.Tensor], dict]:
    """State of the random generators of torch, numpy and Python as (tensors, JSON record)."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, gauss_next = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64)),
               "python": torch.tensor(numbers, dtype=torch.int64)}
    if torch.cuda.is_initialized():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"numpy": [kind, position, has_gauss, gauss], "python": [version, gauss_next]}


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside this block, the random generators of the process are as before behind it."""
    before = pack_random_state()
    try:
        yield
    finally:
        unpack_random_state(*before)


def unpack_random_state(tensors: dict[str, torch.Tensor], record: dict) -> None:
    """Put a state of :func:`pack_random_state` back."""
    torch.set_rng_state(tensors["torch"])
    kind, position, has_gauss, gauss = record["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, gauss_next = record["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss_next))
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
