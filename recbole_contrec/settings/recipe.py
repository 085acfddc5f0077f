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

if TYPE_CHECKING:
    from recbole_contrec.settings.config import Config

PAPER = "-paper"  # ContRec-paper


class Recipe(NamedTuple):
    """A preset, and how the method of a run differs from it.

    Attributes:
        name: of the preset.
        followed: whether the run is of this preset, or of a model that extends it.
        differences: part -> what it is in the run, and what in the paper.
    """

    name: str
    followed: bool
    differences: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        found = "; ".join(f"{part}: {ours} (paper: {theirs})" for part, (ours, theirs) in self.differences.items())
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
    method = method_of(settings or config.to_record())
    name = _preset([path.stem for path in config.entry.chain], config.folders)
    if method is None or name is None:
        return None
    paper = paper_method(name, config.folders)
    followed = name in [path.stem for path in config.entry.chain]
    return Recipe(name, followed, differences(method, paper) if paper else {})


def paper_method(name: str, folders: Iterable[Path]) -> Method | None:
    """The method of a preset with the language model and the words of its paper.

    Args:
        name: of the preset.
        folders: of properties.
    """
    folders = list(folders)
    entry = find_model(name, folders)
    settings: dict[str, Any] = {**general_settings(folders)[1], **entry.values}
    if settings.get("paper_llm"):
        for model in [path.stem for path in entry.chain]:
            for path in words_files(model, folders):
                settings.update(read_yaml(path))
        settings["llm"] = settings["paper_llm"]
    if settings.get("paper_text_encoder"):
        settings["text_encoder"] = settings["paper_text_encoder"]
    return method_of(settings)


def _preset(chain: list[str], folders: Iterable[Path]) -> str | None:
    """The preset that a chain of models holds or, of the last model that has one, stands beside."""
    for name in reversed(chain):
        preset = name if name.endswith(PAPER) else name + PAPER
        if model_exists(preset, folders):
            return preset
    return None
