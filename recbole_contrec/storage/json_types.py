"""
recbole_contrec.storage.json_types
##################################
Types of what JSON holds: the check of a value against one, and the objects that a checked value stands for.
"""

import dataclasses
import math
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

MAX_INT = 2**53  # beyond it JSON numbers are no longer exact everywhere

Count = Annotated[int, "of at least 0"]
Epoch = Annotated[int, "the number of an epoch; -1 before the first"]
_Digits = Annotated[str, "a whole number: JSON knows no other keys than texts"]

# Metadata of a field of a dataclass that files of earlier versions lack.
LATER = {"later": True}


def mismatch(value: Any, kind: Any, place: str = "its record") -> str | None:
    """The first place where a JSON value is not of a type, in words; None where all is right.

    Args:
        kind: ``int``, ``float`` (whole numbers too), ``str``, ``bool``, ``None``, ``Any``, the types of this module,
            ``list[...]``, ``dict[..., ...]``, ``tuple[...]`` for a list of that length, a ``NamedTuple`` likewise, a
            union, or a ``TypedDict`` or dataclass for a dictionary, which may hold further keys.
        place: of the value, for the text.
    """
    if kind is Any:
        return None
    if kind in _SIMPLE:
        return None if _SIMPLE[kind](value) else f"{place} is {_NAMES[kind]}"
    if is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _keyed_mismatch(value, kind, place)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        problems = [mismatch(value, part, place) for part in parts]
        return None if None in problems else problems[0]
    if _is_named_tuple(kind):
        origin, parts = tuple, tuple(_hints(kind).values())
    if origin is list or origin is tuple:
        if not isinstance(value, list) or origin is tuple and len(value) != len(parts):
            return f"{place} is no list" + (f" of {len(parts)}" if origin is tuple else "")
        kinds = parts if origin is tuple else parts * len(value)
        return _first(mismatch(part, of, f"{place}[{number}]") for number, (part, of) in enumerate(zip(value, kinds)))
    if origin is dict:
        if not isinstance(value, dict):
            return f"{place} is no dictionary"
        keys = _Digits if parts[0] is int else parts[0]
        return _first(
            mismatch(key, keys, f"a key of {place}") or mismatch(part, parts[1], f"{place}.{key:.40}")
            for key, part in value.items()
        )
    raise TypeError(f"{kind} is no type of a JSON value")


def built(value: Any, kind: Any) -> Any:
    """What a JSON value stands for: lists become NamedTuples and dictionaries dataclasses, where the type says so, and
    keys that are whole numbers become those.

    Args:
        value: without a :func:`mismatch`.
        kind: as there.
    """
    if kind is Any or kind in _SIMPLE or is_typeddict(kind):
        return value
    if dataclasses.is_dataclass(kind):
        hints, made = _hints(kind), cast(Any, kind)
        return made(**{key: built(part, hints[key]) for key, part in value.items() if key in hints})
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return built(value, next(part for part in parts if mismatch(value, part) is None))
    if _is_named_tuple(kind):
        return kind(*map(built, value, _hints(kind).values()))
    if origin is list:
        return [built(part, parts[0]) for part in value]
    if origin is tuple:
        return tuple(map(built, value, parts))
    return {int(key) if parts[0] is int else key: built(part, parts[1]) for key, part in value.items()}


def _keyed_mismatch(value: Any, kind: Any, place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place} is no dictionary"
    hints = _hints(kind)
    if missing := [key for key in hints if key in _required(kind) and key not in value]:
        return f"{place} has no {missing[0]}"
    return _first(mismatch(value[key], of, f"{place}.{key}") for key, of in hints.items() if key in value)


def _required(kind: Any) -> set[str]:
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind) if not field.metadata.get("later")}
    return set(kind.__required_keys__)


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _whole(value: Any, least: int = -MAX_INT) -> bool:
    return type(value) is int and least <= value <= MAX_INT


_SIMPLE = {
    int: _whole,
    Count: lambda value: _whole(value, 0),
    Epoch: lambda value: _whole(value, -1),
    float: lambda value: type(value) is float and math.isfinite(value) or _whole(value),
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    _Digits: lambda value: type(value) is str and value.isdecimal() and len(value) < 16,
    type(None): lambda value: value is None,
}
_NAMES = {
    int: "no whole number",
    Count: "no whole number of at least 0",
    Epoch: "no number of an epoch",
    float: "no number",
    str: "no text",
    bool: "neither true nor false",
    _Digits: "no whole number",
    type(None): "not null",
}
