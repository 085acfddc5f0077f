"""
recbole_contrec.model.semantic_ids.self_improvement_settings
############################################################
Settings of the self-improvement of semantic ids, and which of them go together.
"""

from dataclasses import dataclass
from typing import Any

from recbole_contrec.item_vectors.sources import WORDS as WORDS

# Settings that only one way to new semantic ids reads (``refine_from``).
READ_BY_HISTORIES = ("refine_whitening",)
READ_BY_DESCRIPTIONS = (
    "refine_candidates",
    "refine_groups",
    "refine_diversity",
    "refine_margin",
    "refine_crowding",
    "refine_assignment",
)


@dataclass(frozen=True)
class SelfImprovementSettings:
    """Settings of a :class:`~recbole_contrec.model.semantic_ids.self_improvement.SelfImprovement`. Their keys are
    explained in ``properties/groups/self_improvement.yaml``; those of a refinement begin with ``refine_``.

    Raises:
        ValueError: the groups of the search cannot share the candidates evenly.
    """

    alignment_weight: float
    alignment_items: int
    refine_from: str
    refinement: str
    whitening: float
    candidates: int
    groups: int
    diversity: float
    margin: float
    crowding: bool
    assignment: str

    def __post_init__(self):
        if self.candidates % self.groups:
            raise ValueError(f"refine_groups={self.groups} must divide refine_candidates={self.candidates}")

    @classmethod
    def from_config(cls, config: Any, num_codebooks: int) -> "SelfImprovementSettings | None":
        """None where semantic ids stay as they are.

        Args:
            config: of a run.
            num_codebooks: codes of a semantic id (K).

        Raises:
            ValueError: settings that would be ignored, or never refine anything; names them.
        """
        _check_unread(config)
        if not config["self_improve"]:
            return None
        if config["refine_rounds"]:
            _check_rounds(config, num_codebooks)
        return cls(
            config["alignment_weight"],
            config["alignment_items"],
            config["refine_from"],
            config["refinement"],
            *(config[f"refine_{name}"] for name in ("whitening", "candidates", "groups", "diversity")),
            *(config[f"refine_{name}"] for name in ("margin", "crowding", "assignment")),
        )


def check_self_improvement(config: Any, num_codebooks: int = 2) -> None:
    """What :class:`SelfImprovementSettings` refuses, before data are read.

    Args:
        num_codebooks: codes of a semantic id, where settings tell them; otherwise data do, later.

    Raises:
        ValueError: names the settings.
    """
    SelfImprovementSettings.from_config(config, num_codebooks)


def _check_unread(config: Any) -> None:
    """Settings that nothing reads."""
    changed = [
        key
        for key, setting in config.settings.items()
        if key.startswith(("alignment_", "refine", "item_descriptions", "description_"))
        and config[key] != setting.default
    ]
    if not config["self_improve"]:
        if changed:
            raise ValueError(f"{', '.join(changed)}: set self_improve=True as well")
        return
    others = READ_BY_HISTORIES if config["refine_from"] == "descriptions" else READ_BY_DESCRIPTIONS
    if unread := [key for key in changed if key in others]:
        raise ValueError(f"{', '.join(unread)}: not for refine_from={config['refine_from']}")
    described = [key for key in changed if key.startswith("description_")]
    if described and config["item_descriptions"] != WORDS:
        raise ValueError(f"{', '.join(described)}: for item_descriptions={WORDS} only")
    if not config["alignment_weight"] and "item_descriptions" in changed:
        raise ValueError("item_descriptions: nothing reads them with alignment_weight=0")


def _check_rounds(config: Any, num_codebooks: int) -> None:
    """Refinements that cannot be made, or not be judged."""
    every, from_descriptions = config["refine_every"], config["refine_from"] == "descriptions"
    if not from_descriptions and num_codebooks < 2:
        raise ValueError(
            "refine_from=histories: a semantic id needs a code beside the last, which tells apart what shares it"
        )
    if from_descriptions and not config["alignment_weight"]:
        raise ValueError(
            "alignment_weight=0: the model would refine semantic ids without having learned to write them; set "
            "refine_rounds=0 as well"
        )
    if config["eval_step"] > 0 and every % config["eval_step"]:
        raise ValueError(
            f"eval_step={config['eval_step']}: a refinement is judged by validations right before and after it; "
            f"take a divisor of refine_every={every}"
        )
    if config["epochs"] <= every:
        raise ValueError(
            f"epochs={config['epochs']} end before the first refinement: lower refine_every={every}, or set "
            "refine_rounds=0 to align only"
        )
    if config["stopping_step"] * max(1, config["eval_step"]) < every:
        raise ValueError(
            f"stopping_step={config['stopping_step']} would end a run before a refinement is judged: raise it, "
            f"or lower refine_every={every}"
        )
