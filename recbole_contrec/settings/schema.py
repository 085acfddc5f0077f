"""
recbole_contrec.settings.schema
###############################
A YAML file is its own schema: the comment behind a setting names its type and its bounds, and that comment
is the check. ::

    key: value   # (TYPES; CONSTRAINT) meaning

TYPES are ``int``, ``float``, ``bool``, ``str``, ``list``, ``dict``, ``list of int`` (``of str``, ``of float`` ...)
and ``~`` for nothing, joined by ``or``. A whole number passes as a float; ``True`` is no number; ``'3'`` is no
number. CONSTRAINT is optional and holds for every element where the value is a list:

- ``>= 1``, ``> 0``, ``<= 1``, ``< 10``; a comma joins two: ``> 0, <= 1``
- ``0..1`` with both ends, ``0..<1`` without the upper one (``0..1)`` is read the same)
- ``one of: a, b, c``

Five examples::

    n_layers: 2             # (int; >= 1) Blocks of the decoder.
    dropout: 0.2            # (float; 0..<1) Share of hidden values that is set to zero.
    prediction: x0          # (str; one of: x0, eps, v) What the denoiser predicts.
    text_fields: ~          # (list of str or ~) Text columns; ~ takes all.
    topk: [5, 10, 20]       # (int or list of int; >= 1) Cut-offs of the ranking metrics.

A meaning may go on in indented comment lines. Only top-level keys are settings. A key without such a comment gets
its type from its default, and no bounds. RecBole's files are read with ``tolerant=True``: their comments
were written for people, so that a type word nobody knows, or a default that breaks its own comment, means no check.
"""

import ast
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.settings.groups import shown_name
from recbole_contrec.settings.yaml_file import Entry, Loader, read_mapping
from recbole_contrec.showing import NOTHING, show

ANY_CASE = ("learner",)  # names that RecBole reads in any case: Adam
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMMENT = re.compile(r"\((?P<types>[^();]*)(?:;\s*(?P<constraint>[^()]*\)?))?\)\s*(?P<meaning>.*)", re.S)
_RANGE = re.compile(rf"({_NUMBER})\.\.(<?)({_NUMBER})(\)?)")
_COMPARISON = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})")


# constraints and types


@dataclass(frozen=True)
class Constraint:
    """Bounds (all of them hold) or choices."""

    bounds: tuple[tuple[str, float], ...] = ()
    choices: tuple[Any, ...] = ()

    @classmethod
    def read(cls, text: str) -> "Constraint":
        """Parse ``>= 1``, ``0..<1``, ``one of: a, b``.

        Raises:
            ValueError: not in the grammar.
        """
        text = text.strip()
        if text.startswith("one of:"):
            return cls(choices=tuple(parse_value(choice.strip()) for choice in text[len("one of:") :].split(",")))
        if match := _RANGE.fullmatch(text):
            low, below, high, bracket = match.groups()
            return cls(bounds=((">=", float(low)), ("<" if below or bracket else "<=", float(high))))
        matches = [match for part in text.split(",") if (match := _COMPARISON.fullmatch(part.strip()))]
        if len(matches) <= text.count(","):
            raise ValueError(text)
        return cls(bounds=tuple((match[1], float(match[2])) for match in matches))

    def holds(self, value: Any) -> bool:
        """Whether one value keeps the bounds and is among the choices."""
        if self.choices:
            return value in self.choices
        compare = {
            ">=": lambda a, b: a >= b,
            ">": lambda a, b: a > b,
            "<=": lambda a, b: a <= b,
            "<": lambda a, b: a < b,
        }
        return not isinstance(value, Real) or all(compare[sign](value, bound) for sign, bound in self.bounds)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(NOTHING if choice is None else str(choice) for choice in self.choices)}"
        if [sign for sign, _ in self.bounds] in ([">=", "<="], [">=", "<"]):
            (_, low), (sign, high) = self.bounds
            return f"from {_in_full(low)} to {'below ' if sign == '<' else ''}{_in_full(high)}"
        words = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below"}
        return " and ".join(f"{words[sign]} {_in_full(bound)}" for sign, bound in self.bounds)


def _in_full(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


LARGEST = 2**63 - 1  # whole number that numpy and torch can hold


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and is_finite(value)


def is_text(value: Any) -> bool:
    """Whether all texts in a value can be written as UTF-8: bytes of a command line that are none, and halves of
    surrogate pairs, cannot."""
    if isinstance(value, dict):
        return all(is_text(part) for part in (*value, *value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_text, value))
    return not isinstance(value, str) or value.encode(errors="ignore") == value.encode(errors="replace")


def is_finite(value: Any) -> bool:
    """Whether no number in a value, or in the lists and mappings in it, is NaN, infinite or beyond 64 bits."""
    if isinstance(value, dict):
        return all(is_finite(part) for part in (*value, *value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    if isinstance(value, Integral):
        return abs(int(value)) <= LARGEST
    return not isinstance(value, Real) or math.isfinite(value)


_TYPES = {  # word -> (what the user reads, plural, test); hyper-parameter searches hand over numpy numbers
    "int": ("a whole number", "whole numbers", lambda v: isinstance(v, Integral) and _is_number(v)),
    "float": ("a number", "numbers", _is_number),
    "bool": ("True or False", "True or False", lambda v: isinstance(v, bool)),
    "str": ("text", "texts", lambda v: isinstance(v, str)),
    "list": ("a list", "lists", lambda v: isinstance(v, list)),
    "dict": ("a mapping such as {'key': value}", "mappings", lambda v: isinstance(v, dict)),
    NOTHING: ("~", "~", lambda v: v is None),
}
_SYNONYMS = {"None": NOTHING, "none": NOTHING, "null": NOTHING, "string": "str", "number": "float"}


def _has_type(value: Any, word: str) -> bool:
    kind, _, element = word.partition(" of ")
    return _TYPES[kind][2](value) and (not element or all(_has_type(part, element) for part in value))


def _read_types(text: str) -> tuple[str, ...]:
    """``int or ~`` -> ("int", "~"); empty, which checks nothing, as soon as one word is unknown."""
    words = [" of ".join(_SYNONYMS.get(w, w) for w in word.strip().split(" of ")) for word in text.split(" or ")]
    known = all(part in _TYPES for word in words for part in word.split(" of ")[:2])
    return tuple(words) if known else ()


# settings


@dataclass(frozen=True)
class Setting:
    """One key of a YAML file and what may stand there.

    Attributes:
        key: its name.
        default: the value in the file.
        types: words of the grammar; empty accepts everything.
        constraint: bounds or choices, or None.
        meaning: what the comment says, for people.
        source: the file.
        declared: whether the comment gave the type; else the default did.
    """

    key: str
    default: Any = None
    types: tuple[str, ...] = ()
    constraint: Constraint | None = None
    meaning: str = ""
    source: Path | None = None
    declared: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` may stand here."""
        if not self.types or value is None and (self.default is None or NOTHING in self.types):
            return True
        if not any(_has_type(value, word) for word in self.types):
            return False
        elements = value if isinstance(value, list) else [value]
        return self.constraint is None or all(self.constraint.holds(element) for element in elements)

    def check(self, value: Any) -> Any:
        """Return ``value`` (a tuple as a list, the name of an optimizer in small letters).

        Raises:
            UserError: it has another type, is out of bounds, or holds text that no file and no log can.
        """
        value = list(value) if isinstance(value, tuple) else value
        if not is_text(value):
            raise UserError(f"{self.key}={show(value)}: holds bytes or characters that are no text")
        if self.key in ANY_CASE and isinstance(value, str) and self.accepts(value.lower()):
            return value.lower()
        if self.accepts(value) and is_finite(value):
            return value
        where = f" ({shown_name(self.source)})" if self.source else ""
        if not is_finite(value):
            raise UserError(
                f"{self.key}={show(value)}: must be finite{f', {self.expected()}' if self.types else ''}{where}"
            )
        near = ""
        if self.constraint and self.constraint.choices and isinstance(value, str):
            near = did_you_mean(value, map(str, self.constraint.choices))
        raise UserError(f"{self.key}={show(value)}: must be {self.expected()}{near}{where}")

    def expected(self) -> str:
        """What may stand here, in words: ``a number from 0 to below 1``."""
        words = []
        for word in self.types:
            kind, _, element = word.partition(" of ")
            one_of = kind == "str" and self.constraint and self.constraint.choices
            words.append("" if one_of else f"a list of {_TYPES[element][1]}" if element else _TYPES[kind][0])
        values = " or ".join(word for word in words if word and word != _TYPES[NOTHING][0])
        bounds = str(self.constraint) if self.constraint else ""
        each = "each " if bounds and any(word.startswith("list") for word in self.types) else ""
        chosen = self.constraint is not None and None in self.constraint.choices
        nothing = _TYPES[NOTHING][0] if NOTHING in self.types and not chosen else ""
        return " or ".join(filter(None, [" ".join(filter(None, [values, each + bounds])), nothing]))


def declare(key: str, comment: str) -> Setting:
    """A setting from the comment that would stand behind it in a file, such as ``(int; >= 1) Blocks.``"""
    match = _COMMENT.match(comment)
    if match is None:
        raise ValueError(comment)
    return Setting(
        key,
        "",
        _read_types(match["types"]),
        Constraint.read(match["constraint"]) if match["constraint"] else None,
        match["meaning"].strip(),
        declared=True,
    )


def keep_bounds(known: Setting | None, line: Setting) -> Setting:
    """A setting that another file declares anew keeps the bounds it had there, unless the new comment has its own."""
    if known is None or line.constraint or not known.constraint or line.types and line.types != known.types:
        return line
    kept = replace(line, types=known.types, constraint=known.constraint)
    return kept if kept.accepts(line.default) else line


def read_settings(path: Path, tolerant: bool = False) -> dict[str, Setting]:
    """The settings of a YAML file by key, in the file's order.

    Args:
        path: the file.
        tolerant: for RecBole's files: comments that make no sense switch the check off.

    Raises:
        UserError: no such file, no mapping, bad YAML, a key twice, a comment outside the grammar,
            or a default that breaks its own comment.
    """
    path = Path(path)
    text, values, entries = read_mapping(path)
    lines = text.splitlines()
    return {
        key: _read_setting(key, values[key], _comment(lines, entry), path, tolerant) for key, entry in entries.items()
    }


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: no such file, bad YAML (with the line), or something else than ``key: value`` lines.
    """
    return read_mapping(path).value


def _comment(lines: list[str], entry: Entry) -> str:
    """The comment behind a top-level key, with the indented comment lines that continue it."""
    key, value = entry.key, entry.value
    # On the key's line, where a nested mapping begins below it, or an alias stands for a value further up.
    on_key = value.start_mark.line > key.start_mark.line or value.start_mark.index < key.end_mark.index
    end = key.end_mark if on_key else value.end_mark
    if end.line >= len(lines) or not entry.lines:
        return ""
    comment = [lines[end.line][end.column :].partition("#")[2].strip()]
    for line in lines[end.line + 1 :]:
        if not re.match(r"\s+#", line):
            break
        comment.append(line.partition("#")[2].strip())
    return " ".join(filter(None, comment))


_RECBOLE_CHOICES = re.compile(r"Range in `*\[([^\]]+)\]")


def _choices_of_recbole(key: str, comment: str) -> Constraint | None:
    """The names in ``(str) The type of loss function. Range in ['BPR', 'CE'].``, in a comment of RecBole's. Those of
    activations are not all that there are."""
    match = _RECBOLE_CHOICES.search(comment)
    if match is None or "activation" in key:
        return None
    return Constraint(choices=tuple(name.strip(" '\"") for name in match[1].split(",")))


def _read_setting(key: str, default: Any, comment: str, path: Path, tolerant: bool) -> Setting:
    match = _COMMENT.match(comment)
    types = _read_types(match["types"]) if match else ()
    if match is None or not types:
        return Setting(key, default, _types_of(default, tolerant), None, comment, path)
    try:
        constraint = Constraint.read(match["constraint"]) if match["constraint"] else None
    except ValueError as error:
        raise UserError(
            f"{path}: {key}: cannot read the constraint '{error}'; write >= 1, 0..1, 0..<1 or one of: a, b"
        ) from error
    if tolerant and types == ("str",):
        constraint = constraint or _choices_of_recbole(key, comment)
    setting = Setting(key, default, types, constraint, match["meaning"].strip(), path, declared=True)
    if not setting.accepts(default):
        if not tolerant:
            setting.check(default)
        return Setting(key, default, (), None, setting.meaning, path)
    return setting


def _types_of(default: Any, tolerant: bool) -> tuple[str, ...]:
    """The type that a default shows. In RecBole's files ``alpha: 1`` may well be meant as 1.0."""
    words = [word for word in ("bool", "int", "float", "str", "list", "dict") if _has_type(default, word)]
    return ("float",) if tolerant and words[:1] == ["int"] else tuple(words[:1])


# values and arguments


def parse_value(text: str) -> Any:
    """The value that a text on the command line stands for: a Python literal, a YAML list or mapping, else the text.

    ``3``, ``1e-3``, ``[5,10]``, ``[Hit, NDCG]``, ``{split: {LS: valid_and_test}}``, ``true``, ``None``, ``~``. Nothing
    is evaluated: RecBole calls ``eval`` here.
    """
    word = text.strip()
    if word in ("~", "null", "None"):
        return None
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        value = ast.literal_eval(word)
        return list(value) if isinstance(value, tuple) else value if _is_plain(value) else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if word[:1] in ("[", "{"):
        try:
            value = yaml.load(word, Loader=Loader)
            return value if _is_plain(value) else text
        except (yaml.YAMLError, ValueError, TypeError, RecursionError):
            pass
    return text


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, list, dict)) or value is None


def parse_arguments(arguments: Iterable[str]) -> dict[str, str]:
    """``['--epochs=3']`` -> ``{'epochs': '3'}``; a value may hold ``=`` itself.

    Raises:
        UserError: something else than ``--key=value``, or a key twice with different values.
    """
    arguments, given = list(arguments), dict[str, str]()
    for place, argument in enumerate(arguments):
        key, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not key:
            fix = f"; write --{argument.lstrip('-')}" if "=" in argument.lstrip("-")[1:] else ""
            raise UserError(f"{argument}: settings have the form --key=value{fix}")
        if not equals:
            after = arguments[place + 1] if place + 1 < len(arguments) else "--"
            value = "VALUE" if after.startswith("--") else after
            raise UserError(f"{' '.join([argument] + [after] * (value == after))}: write --{key}={value}")
        if given.setdefault(key, text) != text:
            raise UserError(f"--{key} is given twice: --{key}={given[key]} and --{key}={text}")
    return given
