"""
recbole_contrec.storage.checkpoint
##################################
Checkpoints without pickled code: one safetensors file whose header carries a JSON record and a checksum of it all. It
is written to a temporary name and renamed, so a killed run leaves the previous file whole.
"""

import errno
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recbole_contrec.errors import UserError
from recbole_contrec.files import part_of, write_whole
from recbole_contrec.storage.record import parse

RECORD = "recbole_contrec"  # the header entry that holds the JSON record
CHECKSUM = "crc32"  # the last key of the record
FORMAT = 2  # raised whenever parts of models are named or made otherwise


class Checkpoint(NamedTuple):
    """What a file holds: tensors by name, and a JSON-like record."""

    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under ``prefix.``, with the prefix taken off."""
        return {name[len(prefix) + 1 :]: t for name, t in self.tensors.items() if name.startswith(prefix + ".")}


def save(path: Path, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: no space left, or the folder cannot be written.
    """
    path = Path(path)
    tensors = as_stored(tensors)
    # One entry: safetensors writes several in any order, and the same content shall be the same bytes.
    header = {RECORD: with_checksum(tensors, {"format": FORMAT, **record})}
    try:
        write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    except (OSError, SafetensorError) as error:
        raise _not_written(path, error) from error


def size_of(tensors: dict[str, torch.Tensor]) -> int:
    """Bytes that tensors take in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def with_checksum(tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> str:
    """A record as JSON, its last entry the checksum of contiguous tensors and of itself."""
    text = json.dumps({**record, CHECKSUM: _NO_CHECKSUM}, allow_nan=False)
    return _with(text, _NO_CHECKSUM, checksum(tensors, text))


def checksum(tensors: dict[str, torch.Tensor], text: str) -> str:
    """CRC-32 of names, types, shapes and bytes of contiguous tensors and of a text. It finds what a disk or a transfer
    has changed (1 GB/s), not what somebody has changed on purpose."""
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


_NO_CHECKSUM = "0" * 8  # in its place while it is computed


def _with(text: str, old: str, new: str) -> str:
    """A record with another checksum."""
    before, _, after = text.rpartition(f'"{CHECKSUM}": "{old}"')
    return f'{before}"{CHECKSUM}": "{new}"{after}'


def as_stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors as a file holds them: on the CPU, contiguous, and apart where they share memory (tied weights),
    for safetensors refuses aliases."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def keep(path: Path, target: Path) -> None:
    """Give a checkpoint a second name, under which it stays when another one is saved in its place; nothing where there
    is none.

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
    temporary = part_of(path)
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
    return UserError(
        f"cannot write the checkpoint {path}: {why}. "
        f"{'Free some space or choose' if full else 'Choose'} another folder with --checkpoint_dir=DIR"
    )


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        UserError: no such file, a foreign, truncated or changed file, or one of another format.
    """
    path = Path(path)
    while True:
        before = _version(path)
        try:
            return _read(path)
        except UserError:
            # safetensors opens a file twice, for its header and for its tensors: a training run may have replaced it in
            # between.
            if _version(path) == before:
                raise


def _version(path: Path) -> tuple[int, ...] | None:
    """What differs between a file and another one that has taken its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> Checkpoint:
    """As :func:`load`, from a file that nobody replaces."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            # Copies: memory of a file is aligned otherwise than torch's own, and what is computed from it may be
            # rounded otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        if RECORD not in header:
            raise ValueError("a safetensors file without our record")
        record = parse(header[RECORD])
        given = record.pop(CHECKSUM, None)
        if given is None and record["format"] == FORMAT:
            raise ValueError("its checksum is missing")
        if given is not None and given != checksum(tensors, _with(header[RECORD], str(given), _NO_CHECKSUM)):
            raise ValueError("its content has changed since it was written: the checksum differs")
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, MemoryError) as error:
        raise damaged(path, error) from error
    if record["format"] != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {record['format']}, this version reads {FORMAT}: train the model again, or "
            "use the version that wrote it"
        )
    return Checkpoint(tensors, record)


def damaged(path: Path, why: Exception | str) -> UserError:
    """The error of a file that is no checkpoint of ours, or no longer one."""
    text = " ".join(str(why).split()) or type(why).__name__
    return UserError(
        f"{path} is not a checkpoint of recbole_contrec, or it is damaged: {text:.200}. Checkpoints are the "
        "*.safetensors files of a run's folder"
    )


def pack_names(names: Iterable[str]) -> torch.Tensor:
    """A list of names (without line breaks) as bytes: a header, where JSON would put it, has a limit of 100 MB."""
    return torch.frombuffer(bytearray("\n".join(names).encode()), dtype=torch.uint8)


def unpack_names(packed: torch.Tensor) -> list[str]:
    """Back from :func:`pack_names`.

    Raises:
        ValueError: it holds no names.
    """
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise ValueError(f"names are bytes, not {packed.dtype} of shape {list(packed.shape)}")
    return packed.numpy().tobytes().decode().split("\n")


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict]:
    """An optimizer's state as (tensors named ``number.field``, JSON record)."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for number, fields in state["state"].items():
        for field, value in fields.items():
            (tensors if torch.is_tensor(value) else scalars)[f"{number}.{field}"] = value
    return tensors, {"groups": state["param_groups"], "scalars": scalars}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], record: dict) -> None:
    """Put a state of :func:`pack_optimizer` back.

    Raises:
        ValueError: as :func:`optimizer_state`; nothing has been changed then.
    """
    optimizer.load_state_dict(optimizer_state(optimizer, tensors, record))


def optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], record: dict) -> dict[str, Any]:
    """A state of :func:`pack_optimizer` as ``load_state_dict`` takes it; nothing is changed.

    Raises:
        ValueError: it is of another optimizer or of other parameters.
    """
    state: dict[int, dict] = {}
    for name, value in {**tensors, **record["scalars"]}.items():
        number, _, field = name.partition(".")
        if not (number.isdecimal() and field):
            raise ValueError(f"the state of an optimizer holds {name:.40}")
        state.setdefault(int(number), {})[field] = value
    own = optimizer.state_dict()["param_groups"]
    groups = _matching_groups(record["groups"], own)
    parameters = dict(
        zip(
            (number for group in own for number in group["params"]),
            (parameter for group in optimizer.param_groups for parameter in group["params"]),
        )
    )
    for number, values in state.items():
        if number not in parameters or not _FIELDS.get(type(optimizer).__name__, set()) <= values.keys():
            raise ValueError(f"the state of an optimizer has other parameters or parts ({number})")
        for field, value in values.items():
            shape, dtype = (
                ((), torch.float32) if field == "step" else (parameters[number].shape, parameters[number].dtype)
            )
            if torch.is_tensor(value) and (value.shape != shape or value.dtype != dtype or not value.isfinite().all()):
                raise ValueError(
                    f"the state of an optimizer has another size or kind, or is not finite ({number}.{field:.40})"
                )
    return {"state": state, "param_groups": groups}


_FIELDS = {
    **dict.fromkeys(("Adam", "AdamW", "SparseAdam"), {"step", "exp_avg", "exp_avg_sq"}),
    "Adagrad": {"step", "sum"},
    "RMSprop": {"step", "square_avg"},
}  # that a step reads


def _matching_groups(theirs: list[dict], own: list[dict]) -> list[dict]:
    """Groups of the same parameters with options of the same kinds; versions of torch differ in a few options."""
    if [group.get("params") for group in theirs] != [group["params"] for group in own]:
        raise ValueError("the state of an optimizer is that of other parameters")
    for their, our in zip(theirs, own):
        if other := [
            name
            for name in our
            if name in their
            and (_kind(their[name]) != _kind(our[name]) or isinstance(our[name], bool) and their[name] != our[name])
        ]:
            raise ValueError(f"the state of an optimizer has another {other[0]}")
    return [{**our, **{name: value for name, value in their.items() if name in our}} for their, our in zip(theirs, own)]


def _kind(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_kind(part) for part in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def pack_random_state() -> tuple[dict[str, torch.Tensor], dict]:
    """State of the random generators of torch, numpy and Python as (tensors, JSON record)."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, numbers, gauss_next = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "python": torch.tensor(numbers, dtype=torch.int64),
    }
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
    """Put a state of :func:`pack_random_state` back.

    Raises:
        ValueError: it is none; nothing has been changed then.
    """
    of_numpy, of_python = random_state(tensors, record)
    torch.set_rng_state(tensors["torch"])
    np.random.set_state(of_numpy)
    random.setstate(of_python)
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def random_state(tensors: dict[str, torch.Tensor], record: dict) -> tuple[tuple, tuple]:
    """States of numpy and Python as these take them, tried out on generators of their own, as that of torch is.

    Raises:
        ValueError: one of them is none.
    """
    kind, position, has_gauss, gauss = record["numpy"]
    version, gauss_next = record["python"]
    try:
        of_numpy = kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss
        of_python = version, tuple(tensors["python"].tolist()), gauss_next
        if position > len(of_numpy[1]):  # numpy would read behind its end
            raise ValueError("a place behind the end")
        np.random.RandomState(0).set_state(of_numpy)
        random.Random().setstate(of_python)
        torch.Generator().set_state(tensors["torch"])
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the state of a random generator is none ({error})") from error
    return of_numpy, of_python
