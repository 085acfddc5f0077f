"""
recbole_contrec.model.parts.instructions
########################################
The instruction in front of a history, where items are codes and no other words are read.
"""

from typing import Any

from recbole_contrec.backbone import Instructions, PretrainedModel, Vocabulary, VocabularyInstructions


def instructions_of(
    config: Any, hidden_size: int, pretrained: PretrainedModel | None
) -> Instructions | VocabularyInstructions | None:
    """The instructions in words: a pretrained model's own, or learned ones; None where the settings have none."""
    if not config["instructions"]:
        return None
    if pretrained is None:
        return Instructions(config["instructions"], config["held_out_instruction"], hidden_size)
    return VocabularyInstructions(
        config["instructions"],
        config["held_out_instruction"],
        Vocabulary(pretrained.vocabulary, pretrained.end_id),
        pretrained.read,
        hidden_size,
    )
