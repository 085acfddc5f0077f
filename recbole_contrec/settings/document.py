"""
recbole_contrec.settings.document
#################################
``docs/settings.md``: every setting of this package's models with its type, bounds, default and meaning, and the models
that have it, from the YAML files in ``properties/``. Written by ::

    python -m recbole_contrec.settings.document
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recbole_contrec.catalogue.places import first_comment, package_properties
from recbole_contrec.settings.groups import included, list_groups
from recbole_contrec.settings.registry import CLASS_KEYS, ON, SPECIAL_KEYS, WITH_WORDS, find_model, is_overlay
from recbole_contrec.settings.renamed import RENAMED
from recbole_contrec.settings.schema import Setting, read_settings
from recbole_contrec.showing import show

DOCUMENT = Path("docs") / "settings.md"  # of a checkout, in which this is run

_HEAD = """# Settings

Every setting of the models of this package. They are flat keys, as in RecBole, and are set on the command line
(`--hidden_size=128`), in a YAML file (`--config_files=mine.yaml`) or from Python. A misspelt key, a value of another
type and a value out of bounds are errors. `~` is YAML's way to write nothing. `--settings --model=NAME` lists the
settings of one model, and [RecBole's settings](recbole-settings.md) are on a page of their own.

Settings that several models share are in groups, which the YAML file of a model includes. A model of your own can
include them as well: `include: [histories, training]`.

Written by `python -m recbole_contrec.settings.document`.
"""

_WORDS_HEAD = """Defaults that a model has where `llm` names a pretrained language model and the items have titles and
categories."""

_RENAMED_HEAD = """An old name is an error that gives the new one. ContRec and DeftRec, whose tokens are continuous,
still have `item_tokens` and `user_tokens`."""


class Model(NamedTuple):
    """A YAML file of a model.

    Attributes:
        name: of the model.
        path: its file.
        groups: names of the groups that it has, those of the models that it extends as well.
        lines: what the file itself says, without classes.
        is_preset: whether the file only gives other values to another model.
    """

    name: str
    path: Path
    groups: frozenset[str]
    lines: dict[str, Setting]
    is_preset: bool


def as_markdown() -> str:
    """The page."""
    models, folder = read_models(), package_properties()
    blocks = [_HEAD, *_overview(models)]
    blocks += [
        "## All models",
        first_comment(folder / "overall.yaml"),
        _table(read_settings(folder / "overall.yaml").values()),
    ]
    blocks += ["## Groups"]
    groups = _in_order_of_use(list_groups([folder]), models)
    blocks += [_index(groups)]
    for name, path in groups.items():
        users = ", ".join(model.name for model in models if name in model.groups and not model.is_preset)
        blocks += [f"### `{name}`", f"{first_comment(path)} Included by {users}.", _table(read_settings(path).values())]
    blocks += ["## Models"]
    for model in models:
        blocks += [f"### {model.name}", first_comment(model.path), *_of_model(model)]
    blocks += ["## Data sets", "Defaults that a model has on one data set.", _overlays(folder, ON, " on ")]
    blocks += ["## Pretrained language models", _WORDS_HEAD, _overlays(folder, WITH_WORDS, " with words")]
    blocks += ["## Renamed settings", _RENAMED_HEAD, _renamed()]
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def read_models() -> list[Model]:
    """All models of this package that have a YAML file, those that name a class before their presets."""
    folders = [package_properties()]
    models = []
    for path in sorted(folders[0].glob("model/*.yaml")):
        if is_overlay(path):
            continue
        entry, lines = find_model(path.stem, folders), read_settings(path)
        own_files = [file for file in entry.chain if file.parents[1] == folders[0]]  # not those of RecBole
        models.append(
            Model(
                path.stem,
                path,
                frozenset(group.stem for file in own_files for group in included(file, folders)),
                {key: line for key, line in lines.items() if key not in CLASS_KEYS},
                "model_class" not in lines,
            )
        )
    return sorted(models, key=lambda model: (model.is_preset, model.name.lower()))


def _overview(models: list[Model]) -> Iterator[str]:
    yield "| model | extends | groups that its file includes |\n| --- | --- | --- |\n" + "\n".join(
        f"| [{model.name}](#{model.name.lower()}) | {_name(model, 'extends')} | {_name(model, 'include')} |"
        for model in models
    )


def _in_order_of_use(groups: dict[str, Path], models: list[Model]) -> dict[str, Path]:
    """As the files of the models include them: from histories and vectors to training."""
    names: list[str] = [name for model in models for name in _named(model, "include")]
    before_last = [name for name in names if name != "training"]
    return {name: groups[name] for name in dict.fromkeys([*before_last, *groups])}


def _index(groups: dict[str, Path]) -> str:
    return _rows(
        ("group", "what it sets"), ((f"[`{name}`](#{name})", first_comment(path)) for name, path in groups.items())
    )


def _name(model: Model, key: str) -> str:
    """What the file says behind ``extends`` or ``include``."""
    return ", ".join(f"`{name}`" for name in _named(model, key))


def _named(model: Model, key: str) -> list[str]:
    value = model.lines[key].default if key in model.lines else []
    return [value] if isinstance(value, str) else value


def _of_model(model: Model) -> Iterator[str]:
    """The settings that the file declares, and the defaults that it changes."""
    own = {key: line for key, line in model.lines.items() if key not in SPECIAL_KEYS}
    if declared := [line for line in own.values() if line.declared]:
        yield _table(declared)
    if changed := [line for line in own.values() if not line.declared]:
        yield "Other defaults than in what it extends or includes:"
        if any(line.meaning for line in changed):
            yield _rows(
                ("setting", "default", "meaning, where it differs"),
                ((_code_of(line.key), _code(line.default), line.meaning) for line in changed),
            )
        else:
            yield ", ".join(f"`{line.key}: {show(line.default)}`" for line in changed)


def _overlays(folder: Path, mark: str, shown: str) -> str:
    return _rows(
        ("model and data set" if mark == ON else "model", "values"),
        (
            (
                path.stem.replace(mark, shown),
                ", ".join(f"`{key}: {show(line.default)}`" for key, line in read_settings(path).items()),
            )
            for path in sorted(folder.glob(f"model/*{mark}*.yaml"))
        ),
    )


def _renamed() -> str:
    return _rows(
        ("old name", "new name"), ((_code_of(old), ", ".join(map(_code_of, new))) for old, new in RENAMED.items())
    )


def _table(settings: Iterable[Setting]) -> str:
    return _rows(
        ("setting", "default", "allowed", "meaning"),
        ((_code_of(line.key), _code(line.default), line.expected(), line.meaning) for line in settings),
    )


def _code(value: Any) -> str:
    return _code_of(show(value))


def _code_of(text: str) -> str:
    return f"`{text}`"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(as_markdown(), encoding="utf-8")
