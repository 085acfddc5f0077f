"""
recbole_contrec.settings.recipe
###############################
The recipe of a model's paper, ``MODEL-paper``, and what a run does otherwise.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_contrec.settings.method import Method, differences, method_of
from recbole_contrec.settings.registry import find_model, general_settings, model_exists, words_files
from recbole_contrec.settings.schema import read_yaml
from recbole_contrec.showing import show

if TYPE_CHECKING:
    from recbole_contrec.settings.config import Config

PAPER = "-paper"  # ContRec-paper

# Settings of a model by which it ranks the same, but for rounding, or that say where something is, or what the paper
# has.
_NO_DIFFERENCE = {
    "llm",
    "paper_llm",
    "paper_text_encoder",
    "paper_vector_size",
    "llm_dtype",
    "llm_attention",
    "gradient_checkpointing",
    "shard_backbone",
    "accumulate_steps",
    "title_field",
    "category_field",
    "text_fields",
    "eval_batch_size",
}


class Recipe(NamedTuple):
    """A preset, and how the method of a run differs from it.

    Attributes:
        name: of the preset.
        followed: whether the run is of this preset, or of a model that extends it.
        differences: part -> what it is in the run, and what in the recipe: the paper's, or where that says nothing, the
            preset's.
        settings: those that are changed and that no part tells: what they are, and what in the preset.
    """

    name: str
    followed: bool
    differences: dict[str, tuple[str, str]]
    settings: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        parts = [f"{part}: {ours} (recipe: {theirs})" for part, (ours, theirs) in self.differences.items()]
        if self.followed:
            parts += [f"{key}={ours} (preset: {theirs})" for key, (ours, theirs) in self.settings.items()]
        found = "; ".join(parts)
        if self.followed:
            return "this is the recipe of the paper as far as it is known" + (f", but for {found}" if found else "")
        if not found:
            return f"no part differs from the recipe of the paper, --model={self.name}"
        return f"this is not the recipe of the paper, which is --model={self.name}; it differs in {found}"


def recipe_of(config: "Config", settings: dict[str, Any] | None = None) -> Recipe | None:
    """The recipe of the paper for the model of a run; None where there is none.

    Args:
        settings: as they came out, where that is known; else those of ``config``.
    """
    settings = settings or config.to_record()
    method = method_of(settings)
    name = _preset([path.stem for path in config.entry.chain], config.folders)
    if method is None or name is None:
        return None
    paper = paper_method(name, config.folders)
    followed = name in [path.stem for path in config.entry.chain]
    changed = _untold(config, settings, name) if followed else {}
    return Recipe(name, followed, differences(method, paper) if paper else {}, changed)


def paper_method(name: str, folders: Iterable[Path]) -> Method | None:
    """The method of a preset with the language model and the words of its paper.

    Args:
        name: of the preset.
        folders: of properties.
    """
    folders = list(folders)
    settings = preset_settings(name, folders)
    if settings.get("paper_llm"):
        settings.update(_words(name, folders))
        settings["llm"] = settings["paper_llm"]
    if settings.get("paper_text_encoder"):
        settings["text_encoder"] = settings["paper_text_encoder"]
    if settings.get("paper_vector_size"):
        settings["vector_size"] = settings["paper_vector_size"]
    return method_of(settings)


def preset_settings(name: str, folders: Iterable[Path]) -> dict[str, Any]:
    """The settings of a preset without a pretrained language model.

    Args:
        name: of the preset.
        folders: of properties.
    """
    folders = list(folders)
    return {**general_settings(folders)[1], **find_model(name, folders).values}


def _words(name: str, folders: list[Path]) -> dict[str, Any]:
    """What a preset says beside that where a pretrained language model reads titles."""
    files = [path for parent in find_model(name, folders).chain for path in words_files(parent.stem, folders)]
    return {key: value for path in files for key, value in read_yaml(path).items()}


def _untold(config: "Config", settings: dict[str, Any], name: str) -> dict[str, tuple[str, str]]:
    """Settings of the model that differ from a preset, whether the user, a file of the data set or a model that extends
    it has changed them, and that the description of the method does not show."""
    folders = list(config.folders)
    preset = preset_settings(name, folders)
    if config.takes_words:
        preset.update(_words(name, folders))
    found = {}
    for key in sorted(config.entry.settings.keys() & preset.keys() - _without_effect(settings)):
        ours, theirs = settings[key], preset[key]
        if ours != theirs and method_of({**settings, key: theirs}) == method_of(settings):
            found[key] = show(ours), show(theirs)
    return found


def _without_effect(settings: dict[str, Any]) -> set[str]:
    """What ranks the same. Where all weights of a language model are trained, 16 bits do not: they lose small steps."""
    trains_all = settings.get("llm") and settings.get("train_llm", True) and not settings.get("lora_rank")
    return _NO_DIFFERENCE - {"llm_dtype"} if trains_all else _NO_DIFFERENCE


def _preset(chain: list[str], folders: Iterable[Path]) -> str | None:
    """The preset that a chain of models holds or, of the last model that has one, stands beside."""
    for name in reversed(chain):
        preset = name if name.endswith(PAPER) else name + PAPER
        if model_exists(preset, folders):
            return preset
    return None
