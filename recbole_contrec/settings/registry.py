"""
recbole_contrec.settings.registry
#################################
A name -> its YAML files -> model, data set and trainer class. Folders of the user come first, then this package, then
RecBole, whose own models need no entry.

A model is a file ``properties/model/<Name>.yaml``. Five keys are for the registry, all others are settings:

- ``model_class: package.module:Class``, and likewise ``dataset_class`` and ``trainer_class``;
- ``extends: Other`` takes over settings and classes of another model;
- ``include: [histories, vectors]`` takes over settings that models share, see :mod:`.groups`.

A file that names a class may declare new settings, which the class reads; any other may only change known ones.

A file with neither ``model_class`` nor ``extends`` changes defaults of the model of the same name that the next
folder, or RecBole, has.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from recbole_contrec.catalogue.places import (
    file_if_there,
    first_comment,
    package_properties,
    properties_file,
    recbole_properties,
)
from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.settings.classes import load_class
from recbole_contrec.settings.groups import INCLUDE, included
from recbole_contrec.settings.recbole_models import (
    recbole_model_class,
    recbole_model_settings,
    recbole_models,
    recbole_settings,
)
from recbole_contrec.settings.recbole_models import recbole_source as recbole_source
from recbole_contrec.settings.renamed import unknown_setting
from recbole_contrec.settings.schema import Setting, keep_bounds, read_settings

CLASS_KEYS = ("model_class", "dataset_class", "trainer_class")
SPECIAL_KEYS = ("extends", INCLUDE, *CLASS_KEYS)

ON = "_on_"  # ContRec_on_ml-1m.yaml
WITH_WORDS = "_with_words"  # ContRec-paper_with_words.yaml


@dataclass(frozen=True)
class ModelEntry:
    """A model as its YAML files describe it.

    Attributes:
        name: as the user gives it.
        chain: YAML files, the base first.
        settings: every setting of the chain by key; its default is the value of the last file that names it.
        values: those defaults by key.
        model_class, dataset_class, trainer_class: classes; the last two None where no file names one.
        changes: the part of ``values`` that stands in files outside RecBole.
        recbole_name: the RecBole model at the bottom of the chain, by which RecBole looks up
            data loader and trainer; None for a model of its own.
        of_user: whether a file outside this package names one of the classes, whoever wrote the class.
    """

    name: str
    chain: tuple[Path, ...]
    settings: dict[str, Setting]
    values: dict[str, Any]
    model_class: type
    dataset_class: type | None = None
    trainer_class: type | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    recbole_name: str | None = None
    of_user: bool = False

    @property
    def is_recbole(self) -> bool:
        """Whether the model class is RecBole's own."""
        return self.model_class.__module__.startswith("recbole.")

    @property
    def has_class_of_user(self) -> bool:
        """Whether the model class is neither RecBole's nor this package's, whoever names it."""
        return not (self.is_recbole or self.model_class.__module__.startswith("recbole_contrec."))


class ListedModel(NamedTuple):
    """A line of the list of models."""

    name: str
    where: str
    description: str


# folders and files


def model_exists(name: str, folders: Iterable[Path]) -> bool:
    """Whether :func:`find_model` knows the name."""
    return name in recbole_models() or any(properties_file(folder, "model", name) for folder in folders)


def tuned_files(model: str, dataset: str, folders: Iterable[Path]) -> list[Path]:
    """YAML files ``model/MODEL_on_DATASET.yaml``: what a model wants otherwise on one data set."""
    return [
        path
        for folder in reversed(list(folders))
        if (path := properties_file(folder, "model", f"{model}{ON}{dataset}"))
    ]


def words_files(model: str, folders: Iterable[Path]) -> list[Path]:
    """YAML files ``model/MODEL_with_words.yaml``: what a model wants otherwise where a pretrained language model reads
    items that have titles and categories."""
    return [
        path for folder in reversed(list(folders)) if (path := properties_file(folder, "model", model + WITH_WORDS))
    ]


def is_overlay(path: Path) -> bool:
    """Whether a file beside those of the models changes one of them in some cases only."""
    return ON in path.stem or path.stem.endswith(WITH_WORDS)


# settings


def general_settings(folders: Iterable[Path]) -> tuple[dict[str, Setting], dict[str, Any]]:
    """The settings of every model, and the values that ``overall.yaml`` in these folders gives some of them.

    Raises:
        UserError: an ``overall.yaml`` of the user names an unknown key or has a bad value.
    """
    settings, values = dict(recbole_settings()), {}
    for folder in reversed(list(folders)):
        if path := file_if_there(Path(folder) / "overall.yaml"):
            may_declare = path.parent.resolve() == package_properties().resolve()
            values.update(overlay(settings, path, may_declare))
    return settings, values


def overlay(
    settings: dict[str, Setting],
    path: Path,
    may_declare: bool = False,
    also: dict[str, Setting] | None = None,
    of_model: bool = False,
) -> dict[str, Any]:
    """Put the values of a YAML file over known settings. A line without a type keeps that of the known setting, and its
    bounds; without a comment it keeps the meaning as well.

    Args:
        settings: known settings, updated in place.
        path: the file.
        may_declare: whether it may name keys that nobody knows.
        also: further settings that it may change.
        of_model: whether it is the file of a model, which may name classes, another model and groups.

    Returns:
        The file's values by key.

    Raises:
        UserError: an unknown key with the nearest ones, a key that only the file of a model may have, or a value that
            breaks a check.
    """
    values = {}
    for key, line in read_settings(path).items():
        if key in SPECIAL_KEYS:
            if not of_model:
                raise UserError(f"{path}: {key} is for the file of a model, model/NAME.yaml")
            continue
        known = settings.get(key) or (also or {}).get(key)
        if known is None and not may_declare:
            raise UserError(f"{path}: {unknown_setting(key, {**settings, **(also or {})})}")
        if known and not line.declared:
            try:
                value = known.check(line.default)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            line = replace(known, default=value, source=path, meaning=line.meaning or known.meaning)
        line = keep_bounds(known, line)
        settings[key], values[key] = line, line.default
    return values


# models


def find_model(name: str, folders: Iterable[Path]) -> ModelEntry:
    """The model of this name with everything that its YAML files say.

    Raises:
        UserError: no such model (with the nearest names), a circle of ``extends``, an unknown key or bad value, or a
            class that cannot be loaded.
    """
    folders = list(folders)
    chain, recbole_name = _chain(name, folders)
    general, _ = general_settings(folders)
    settings: dict[str, Setting] = {}
    values: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    classes: dict[str, tuple[str, Path]] = {}
    if recbole_name:
        settings = recbole_model_settings(recbole_name)
        values = {key: setting.default for key, setting in settings.items() if setting.source}
    for path in chain:
        special = {key: line.default for key, line in read_settings(path).items() if key in CLASS_KEYS}
        for file in (*included(path, folders), path):
            changes.update(overlay(settings, file, bool(special), also=general, of_model=file is path))
        classes.update({key: (text, path) for key, text in special.items()})
    loaded: dict[str, Any] = {key: _load_from(path, key, text) for key, (text, path) in classes.items()}
    loaded.setdefault("model_class", recbole_model_class(recbole_name) if recbole_name else None)
    own = properties_file(recbole_properties(), "model", recbole_name) if recbole_name else None
    base = [own] if own else []
    of_user = any(path.parents[1].resolve() != package_properties().resolve() for _, path in classes.values())
    return ModelEntry(
        name,
        (*base, *chain),
        settings,
        {**values, **changes},
        changes=changes,
        recbole_name=recbole_name,
        of_user=of_user,
        **loaded,
    )


def _chain(name: str, folders: list[Path]) -> tuple[list[Path], str | None]:
    """YAML files outside RecBole that describe a model, base first, and the RecBole model below them."""
    chain: list[Path] = []
    names, rest = [name], list(folders)
    while True:
        wanted = names[-1]
        files = [path for folder in rest if (path := properties_file(folder, "model", wanted))]
        if not files:
            if wanted in recbole_models():
                return chain[::-1], wanted
            known = sorted({*recbole_models(), *(listed.name for listed in _yaml_models(folders))})
            raise UserError(_unknown(wanted, chain, known))
        chain.append(files[0])
        special = {key: line.default for key, line in read_settings(files[0]).items() if key in SPECIAL_KEYS}
        if other := special.get("extends"):
            names.append(str(other))
            rest = list(folders)
            if names.index(names[-1]) < len(names) - 1:
                raise UserError(f"{files[0]}: extends goes round in a circle: {' -> '.join(names)}")
        elif "model_class" in special:
            return chain[::-1], None
        else:
            rest = [folder for folder in rest[rest.index(_folder_of(files[0], rest)) + 1 :]]


def _folder_of(path: Path, folders: list[Path]) -> Path:
    return next(folder for folder in folders if Path(folder) == path.parents[1])


def _unknown(name: str, chain: list[Path], known: list[str]) -> str:
    near = did_you_mean(name, [other for other in known if other != name])
    if not chain:
        return f"unknown model {name!r}{near}; --list-models shows all {len(known)}"
    if chain[-1].stem == name:
        return (
            f"{chain[-1]} says neither extends nor model_class, and no other folder "
            f"nor RecBole has a model {name!r}{near}"
        )
    return f"{chain[-1]}: extends {name!r}: there is no such model{near}"


def list_models(folders: Iterable[Path]) -> list[ListedModel]:
    """All models: those with a YAML file, then RecBole's own that have none, by kind. No model is imported."""
    ours = _yaml_models(folders)
    kinds = {
        name: module.split(".")[-2].removesuffix("_recommender").replace("_", " ")
        for name, module in recbole_models().items()
    }
    own = [
        ListedModel(name, f"RecBole, {kind}", "")
        for name, kind in sorted(kinds.items(), key=lambda item: item[::-1])
        if name not in [model.name for model in ours]
    ]
    return ours + own


def _yaml_models(folders: Iterable[Path]) -> list[ListedModel]:
    found: dict[str, ListedModel] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("model/*.yaml")):
            if is_overlay(path):
                continue
            found.setdefault(path.stem, ListedModel(path.stem, str(path), first_comment(path)))
    return sorted(found.values())


def _load_from(path: Path, key: str, text: Any) -> type:
    try:
        return load_class(text, key)
    except UserError as error:
        raise UserError(f"{path}: {key}: {error}") from error.__cause__
