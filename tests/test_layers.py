"""Imports run one way: a module knows what lies below it, never what lies above."""

import ast
from pathlib import Path

import recbole_contrec

PACKAGE = "recbole_contrec"
ROOT = Path(recbole_contrec.__file__).parent

# From bottom to top. Parts of one layer (between braces) do not know each other; a name is a package or a module.
LAYERS = (
    {PACKAGE},  # __init__.py alone: the version, and names that are imported on first use
    {"errors", "interface"},
    {"compat", "environment", "files", "memory", "packages", "processes", "report_page", "showing"},
    {"catalogue", "sharding", "storage"},
    {"backbone", "decoding", "diffusion", "negatives", "retrieval", "tokenizer"},
    {"data"},
    {"settings"},
    {"item_vectors"},
    {"model"},
    {"training"},
    {"loaded_run"},
    {"reloading", "warm_start"},
    {"item_files", "people"},
    {"recommendation", "quick_start"},
    {"exporting", "fold_in", "recommender", "tuning"},
    {"cli"},
    {"__main__"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}


def modules_under(root: Path) -> dict[str, Path]:
    """Every module of the package by its name, ``data.atomic``; its own ``__init__`` as ``recbole_contrec``."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = [part for part in path.relative_to(root).with_suffix("").parts if part != "__init__"]
        names[".".join(parts) or PACKAGE] = path
    return names


def imports_of(path: Path, module: str, modules) -> set[str]:
    """Modules of the package that a file imports, wherever in it: in functions and under ``TYPE_CHECKING`` as well."""
    here = module.split(".") if module != PACKAGE else []
    package = here if path.name == "__init__.py" else here[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name.split(".") for alias in node.names]
            found |= {".".join(parts[1:]) or PACKAGE for parts in named if parts[0] == PACKAGE}
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".") if node.module else []
            if node.level:
                parts = package[: len(package) - node.level + 1] + parts
            elif parts[:1] == [PACKAGE]:
                parts = parts[1:]
            else:
                continue
            for alias in node.names:
                inner = ".".join([*parts, alias.name])
                found.add(inner if inner in modules else ".".join(parts) or PACKAGE)
    return found


def arrows(root: Path = ROOT) -> set[tuple[str, str]]:
    """(module that imports, module that it imports) for every import in the package."""
    modules = modules_under(root)
    return {
        (module, other)
        for module, path in modules.items()
        for other in imports_of(path, module, modules)
        if other != module
    }


def part_of(module: str) -> str:
    return module.split(".")[0]


def upward(found: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Arrows to a layer above, or to another part of the same layer."""
    between = [pair for pair in found if part_of(pair[0]) != part_of(pair[1])]
    return sorted(pair for pair in between if LEVEL[part_of(pair[0])] <= LEVEL[part_of(pair[1])])


def circles(found: set[tuple[str, str]]) -> list[list[str]]:
    """Modules that import each other, in a way round: the rest once all that stand at no circle are taken away."""
    left = set(found)
    while True:
        sources, targets = {one for one, _ in left}, {other for _, other in left}
        kept = {pair for pair in left if pair[0] in targets and pair[1] in sources}
        if kept == left:
            return sorted(map(list, left))
        left = kept


def test_every_module_is_of_one_layer():
    parts = {part_of(module) for module in modules_under(ROOT)}
    assert parts - {*LEVEL} == set(), "a new part of the package: give it a place in LAYERS"
    assert {*LEVEL} - parts == set(), "LAYERS names what is no longer there"
    assert sum(map(len, LAYERS)) == len(LEVEL)


def test_no_import_leads_upward():
    assert upward(arrows()) == []


def test_modules_import_each_other_in_no_circle():
    """Within a package as well. What a package offers in its ``__init__`` it imports from its own modules."""
    packages = {module for module, path in modules_under(ROOT).items() if path.name == "__init__.py"}
    found = {(one, other) for one, other in arrows() if other not in packages or part_of(one) != part_of(other)}
    assert circles(found) == []


def test_nothing_in_the_package_knows_benchmarks_or_tests():
    for module, path in modules_under(ROOT).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {part_of(name) for name in names} & {"benchmarks", "tests"}, module


def test_what_the_checks_find(tmp_path):
    """Imports in functions and under conditions, relative ones, and those of a name from a package."""
    files = {
        "__init__.py": "",
        "errors.py": "def late():\n    from recbole_contrec.data import windows\n",
        "data/__init__.py": "from .windows import Window\n",
        "data/windows.py": "from . import loading\n",
        "data/loading.py": "if True:\n    import recbole_contrec.data.windows\n",
        "settings/__init__.py": "from recbole_contrec import errors, __version__\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = arrows(tmp_path)
    assert upward(found) == [("errors", "data.windows")]
    assert ("settings", "errors") in found and ("settings", PACKAGE) in found
    assert circles(found) == [["data.loading", "data.windows"], ["data.windows", "data.loading"]]
