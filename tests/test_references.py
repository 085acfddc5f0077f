"""What docstrings refer to is there: a ``:class:`` or ``:func:`` in the package leads to a name that exists."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recbole_contrec

ROOT = Path(recbole_contrec.__file__).parent
REFERENCE = re.compile(r":(?:class|mod|func|meth|attr|data|exc):`~?([^`]+)`")


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def meanings(target: str, module: str, is_package: bool, classes: list[str]) -> Iterator[str]:
    """What a reference may mean where it stands: relative to the package with a dot in front, else from the top, from
    the module, or from a class around it."""
    if target.startswith("."):
        yield (module if is_package else module.rpartition(".")[0]) + target
    else:
        yield from (target, f"{module}.{target}", *(f"{module}.{name}.{target}" for name in classes))


def dangling(path: Path, module: str) -> list[str]:
    """References of a file that lead nowhere."""
    text = path.read_text(encoding="utf-8")
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    found = []
    for match in REFERENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        around = [node.name for node in classes if node.lineno <= line <= (node.end_lineno or 0)]
        if not any(map(is_there, meanings(match[1], module, path.name == "__init__.py", around))):
            found.append(f"{path.name}:{line}: {match[0]}")
    return found


def test_every_reference_leads_to_a_name():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found += dangling(path, ".".join(part for part in parts if part != "__init__"))
    assert found == []


def test_what_leads_nowhere_is_found(tmp_path):
    (tmp_path / "some.py").write_text(
        '"""See :mod:`.errors`, :mod:`.mistakes`, :class:`~recbole_contrec.errors.UserError`, :func:`nothing`."""\n'
        'class Text:\n    """:meth:`upper`, :attr:`recbole_contrec.interface.Refined.codes`"""\n'
    )
    assert dangling(tmp_path / "some.py", "recbole_contrec.some") == [
        "some.py:1: :mod:`.mistakes`",
        "some.py:1: :func:`nothing`",
        "some.py:3: :meth:`upper`",
    ]
