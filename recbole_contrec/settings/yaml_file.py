"""
recbole_contrec.settings.yaml_file
##################################
YAML as people write it, read as plain data: merge keys, anchors and aliases work as YAML 1.1 promises. What it would
read otherwise than most people mean (a key twice, ``12:30`` as a number in base sixty, a date), and what could hang the
program, is an error with file and line. No tag ever makes an object.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recbole_contrec.errors import UserError, shown

MAX_DEPTH = 50  # levels of nesting
MAX_SIZE = 100_000  # values, once aliases are written out
MAX_BYTES = 1_000_000  # of a file: PyYAML reads some 100 kB a second

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}
_MERGE = "tag:yaml.org,2002:merge"
_MEANT = {
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:binary": "bytes",
    "tag:yaml.org,2002:set": "a set",
    "tag:yaml.org,2002:omap": "an ordered mapping",
    "tag:yaml.org,2002:pairs": "a list of pairs",
}


class Loader(yaml.SafeLoader):
    """YAML as RecBole reads it (``1e-3`` is a number), plain data only; ``None`` is nothing, as people write it."""


Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class Entry(NamedTuple):
    """A line ``key: value`` at the top level; one that a merge key brings in stands where it is written."""

    key: yaml.Node
    value: yaml.Node
    lines: bool  # whether it has lines of its own, in contrast to {key: value, key: value}


class YamlFile(NamedTuple):
    """What a file holds."""

    text: str
    value: Any  # plain data; None for an empty file
    entries: dict[str, Entry]  # of a mapping, by key


def read_mapping(path: Path) -> YamlFile:
    """A file of ``key: value`` lines. A key whose mapping the top level merges (``shared: &s {...}``, ``<<: *s``) only
    holds these lines, and is none of the file's own.

    Raises:
        UserError: as :func:`read`, or it holds something else.
    """
    found = read(path)
    if found.value is None:
        return found._replace(value={})
    if not isinstance(found.value, dict):
        raise UserError(f"{path} must hold lines of the form key: value, with a text as key")
    return found


def read(path: Path) -> YamlFile:
    """Any YAML file of one document.

    Raises:
        UserError: no such file, no YAML, or YAML outside what settings need; names file and line.
    """
    path, root = Path(path), None
    try:
        text = _decoded(_content(path))
        loader = Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return YamlFile(text, None, {})
            holders = _check(root)
            entries = dict(_entries(root)) if isinstance(root, yaml.MappingNode) else {}
            value = loader.construct_document(root)
        finally:
            loader.dispose()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {_short(error.problem or error.context)}") from error
    except _Refused as error:
        number, why = error.args
        raise UserError(f"{path}, line {number}: {why}") from None
    except yaml.reader.ReaderError as error:
        number = text[: error.position].count("\n") + 1
        raise UserError(
            f"{path}, line {number}: not valid YAML: the character {error.character:#x} may not stand there"
        ) from error
    except RecursionError:
        raise UserError(f"{path}: nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # a NUL in the path, a character beyond Unicode
        raise UserError(f"cannot read {path}: {_short(error)}") from error
    for key in holders:
        entries.pop(key, None)
        value.pop(key, None)
    return YamlFile(text, value, entries)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes: that is no file of settings")
    return content


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark, as YAML has it."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


# checks on nodes, before anything is built of them


def _check(root: yaml.Node) -> set[str]:
    """Walk a document once a node; aliases lead to nodes that were seen.

    Returns:
        set: top-level keys that only hold what the top level merges.

    Raises:
        _Refused: names the first thing that is not taken.
    """
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise _refused(node, "a value that holds itself")
        if id(node) in sizes:
            return sizes[id(node)]
        if len(above) >= MAX_DEPTH:
            raise _refused(node, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
            size = 1
        else:
            _check_tag(node)
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
            size = 1 + sum(size_of(part, (*above, id(node))) for part in _parts(node))
        if size > MAX_SIZE:
            raise _refused(node, f"its aliases stand for more than {MAX_SIZE:,} values")
        sizes[id(node)] = size
        return size

    size_of(root, ())
    if not isinstance(root, yaml.MappingNode):
        return set()
    merged = {
        id(part)
        for key, value in root.value
        if key.tag == _MERGE
        for part in (value.value if isinstance(value, yaml.SequenceNode) else [value])
    }
    return {key.value for key, value in root.value if key.tag != _MERGE and id(value) in merged}


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return (value for _, value in node.value)
    return iter(node.value)


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _MERGE:
            name = "<<"
        elif key.tag != "tag:yaml.org,2002:str":
            shown = f"{key.value!r:.40}" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _refused(key, f"the key {shown} is no text: write it in quotes")
        else:
            name = key.value
        if name in lines:
            raise _refused(key, f"{_short(name)} stands there twice, first in line {lines[name]}")
        lines[name] = key.start_mark.line + 1


def _check_tag(node: yaml.Node) -> None:
    if node.tag not in _PLAIN:
        what = _MEANT.get(node.tag) or f"the tag {_short(node.tag)}"
        raise _refused(node, f"{what} is no plain value: write text in quotes, a number, True, a list or a mapping")


def _check_scalar(node: yaml.ScalarNode) -> None:
    _check_tag(node)
    text, kind = node.value.replace("_", "").lstrip("+-"), node.tag.rpartition(":")[2]
    if kind in ("int", "float") and ":" in text:
        raise _refused(node, f"YAML takes {_short(node.value)} for a number in base sixty: write it in quotes")
    if kind == "int" and re.fullmatch("0[0-7]+", text):
        raise _refused(
            node,
            f"YAML takes {_short(node.value)} for the octal number {int(text, 8)}: write it without "
            "the zero, or in quotes",
        )
    try:
        Loader.yaml_constructors[node.tag](_CONSTRUCTOR, node)
    except (ValueError, KeyError, IndexError) as error:  # !!int abc, 0x_, thousands of digits
        raise _refused(node, f"{shown(node.value)} cannot be read as {_KINDS[kind]}") from error


_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_KINDS = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "text", "null": "nothing"}


class _Refused(Exception):
    """Valid YAML that is not taken, with its line."""


def _refused(node: yaml.Node, why: str) -> _Refused:
    return _Refused(node.start_mark.line + 1, why)


def _entries(root: yaml.MappingNode) -> Iterator[tuple[str, Entry]]:
    """Top-level lines by key. Lines of merged mappings come first, so that the file's own count; of several merged
    mappings the first counts."""
    for key, value in root.value:
        if key.tag == _MERGE:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for part in reversed(merged):
                if isinstance(part, yaml.MappingNode):
                    yield from _entries(part)
    for key, value in root.value:
        if key.tag != _MERGE:
            yield key.value, Entry(key, value, not root.flow_style)


def _short(text: Any) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= 160 else f"{text[:150]}..."
