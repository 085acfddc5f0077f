"""
recbole_contrec.storage.record
##############################
What the JSON record of a checkpoint holds, as types, and the check of a record from a file against them. A checkpoint
may come from anywhere: whoever reads one relies on these types, and on nothing else that it says.
"""

import json
import math
from typing import Any, TypedDict

from recbole_contrec.storage.json_types import Count, Epoch, mismatch
from recbole_contrec.storage.progress import Progress


class _Optimizer(TypedDict):
    groups: list[dict[str, Any]]
    scalars: dict[str, float | None]


class _Random(TypedDict):
    numpy: tuple[str, Count, Count, float]
    python: tuple[int, float | None]


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
    loss_scale: dict[str, float]


class StateRecord(ModelRecord, _StateOfToday):
    """Of a model and everything that training goes on from, ``last.safetensors``, which holds the fields of
    :class:`~recbole_contrec.storage.progress.Progress` as well."""

    optimizers: dict[str, _Optimizer]
    random: _Random
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
    kinds = next((kinds for mark, kinds in _KINDS.items() if mark in record), ())
    if problem := next(filter(None, (mismatch(record, kind) for kind in kinds)), None):
        raise ValueError(problem)
    return record


# by a key that only they have
_KINDS: dict[str, tuple[type, ...]] = {
    "stage": (StageRecord,),
    "optimizers": (StateRecord, Progress),
    "model": (ModelRecord,),
}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"its record holds {text:.20}, which is no number")
    return number


def _no_number(text: str) -> None:
    raise ValueError(f"its record holds {text}, which is no number")
