"""
recbole_contrec.storage.record
##############################
What the JSON record of a checkpoint holds, as types, and the check of a record from a file against them. A checkpoint
may come from anywhere: whoever reads one relies on these types, and on nothing else that it says.
"""

import json
import math
import types
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

MAX_INT = 2**53  # beyond it JSON numbers are no longer exact everywhere


class Count(int):
    """Type of a whole number of at least 0."""


class Epoch(int):
    """Type of the number of an epoch; -1 before the first."""


class Digits(str):
    """Type of a text that is a whole number: JSON knows no other keys."""


class _Optimizer(TypedDict):
    groups: list[dict[str, Any]]
    scalars: dict[str, float | None]


class _Random(TypedDict):
    numpy: tuple[str, Count, Count, float]
    python: tuple[int, float | None]


class _Stage(TypedDict):
    seconds: float
    found_on_disk: bool
    report: dict[str, Any]


class _ModelOfToday(TypedDict, total=False):
    run: str | None  # of the run that wrote it
    versions: dict[str, str]
    device: str
    data: str | None  # fingerprint of the data


class ModelRecord(_ModelOfToday):
    """Of a model, ``best.safetensors``."""

    model: str
    dataset: str
    epoch: Epoch
    settings: dict[str, Any]
    other: dict[str, dict[str, Any]]


class _StateOfToday(TypedDict, total=False):
    refinements: list[dict[str, Any]]
    loss_scale: dict[str, float]


class StateRecord(ModelRecord, _StateOfToday):
    """Of a model and everything that training goes on from, ``last.safetensors``."""

    optimizers: dict[str, _Optimizer]
    random: _Random
    cur_step: Count
    best_valid_score: float | None
    best_valid_result: dict[str, float] | None
    best_epoch: Epoch
    epoch_seconds: list[float]
    training_seconds: float
    core_seconds: float
    curve: list[tuple[Epoch, float, float, float]]
    stages: dict[str, _Stage]
    train_loss: dict[Digits, float | list[float]]
    average_steps: Count


class StageRecord(TypedDict):
    """Of a finished stage."""

    stage: str
    settings: dict[str, Any]
    report: dict[str, Any]


def parse(text: str) -> dict[str, Any]:
    """The record in a header.

    Raises:
        ValueError: it is no JSON object, holds numbers that are none (NaN, 1e999), is nested without end, or breaks the
            types of what it says it is; says where.
    """
    try:
        record = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("its record is nested without end") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its record is no JSON ({error})") from error
    if not isinstance(record, dict) or type(record.get("format")) is not int:
        raise ValueError("its record has no format")
    kind = next((kind for mark, kind in _KINDS.items() if mark in record), None)
    if kind and (problem := mismatch(record, kind)):
        raise ValueError(problem)
    return record


_KINDS = {"stage": StageRecord, "optimizers": StateRecord, "model": ModelRecord}  # by a key that only they have


def mismatch(value: Any, kind: Any, place: str = "its record") -> str | None:
    """The first place where a JSON value is not of a type, in words; None where all is right.

    Args:
        kind: ``int``, ``float`` (whole numbers too), ``str``, ``bool``, ``None``, ``Any``, the types of this module,
            ``list[...]``, ``dict[..., ...]``, ``tuple[...]`` for a list of that length, a union, or a ``TypedDict``,
            which may hold further keys.
        place: of the value, for the text.
    """
    if kind is Any:
        return None
    if is_typeddict(kind):
        return _typed_mismatch(value, kind, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        problems = [mismatch(value, part, place) for part in parts]
        return None if None in problems else problems[0]
    if origin is list or origin is tuple:
        if not isinstance(value, list) or origin is tuple and len(value) != len(parts):
            return f"{place} is no list" + (f" of {len(parts)}" if origin is tuple else "")
        kinds = parts if origin is tuple else parts * len(value)
        return _first(mismatch(part, of, f"{place}[{number}]") for number, (part, of) in enumerate(zip(value, kinds)))
    if origin is dict:
        if not isinstance(value, dict):
            return f"{place} is no dictionary"
        return _first(
            mismatch(key, parts[0], f"a key of {place}") or mismatch(part, parts[1], f"{place}.{key:.40}")
            for key, part in value.items()
        )
    return None if _SIMPLE[kind](value) else f"{place} is {_NAMES[kind]}"


def _typed_mismatch(value, kind, place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place} is no dictionary"
    hints = get_type_hints(kind)
    required = kind.__required_keys__
    if missing := [key for key in hints if key in required and key not in value]:
        return f"{place} has no {missing[0]}"
    return _first(mismatch(value[key], of, f"{place}.{key}") for key, of in hints.items() if key in value)


def _first(problems) -> str | None:
    return next((problem for problem in problems if problem), None)


def _whole(value, least: int = -MAX_INT) -> bool:
    return type(value) is int and least <= value <= MAX_INT


_SIMPLE = {
    int: _whole,
    Count: lambda value: _whole(value, 0),
    Epoch: lambda value: _whole(value, -1),
    float: lambda value: type(value) is float and math.isfinite(value) or _whole(value),
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    Digits: lambda value: type(value) is str and value.isdecimal() and len(value) < 16,
    type(None): lambda value: value is None,
}
_NAMES = {
    int: "no whole number",
    Count: "no whole number of at least 0",
    Epoch: "no number of an epoch",
    float: "no number",
    str: "no text",
    bool: "neither true nor false",
    Digits: "no whole number",
    type(None): "not null",
}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"its record holds {text:.20}, which is no number")
    return number


def _no_number(text: str):
    raise ValueError(f"its record holds {text}, which is no number")
