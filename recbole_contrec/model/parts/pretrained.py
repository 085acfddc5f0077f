"""
recbole_contrec.model.parts.pretrained
######################################
A pretrained language model in the place of a compact one, as the settings name it.
"""

import logging
from typing import Any, TypeVar

import torch

from recbole_contrec.backbone import PretrainedModel
from recbole_contrec.errors import UserError
from recbole_contrec.model.parts.settings import PretrainedSettings

logger = logging.getLogger("recbole_contrec")

# What only a pretrained language model reads.
_OF_LLM = (
    "llm_dtype",
    "llm_attention",
    "llm_layers",
    "train_llm",
    "lora_layers",
    "llm_learning_rate",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_targets",
    "quantisation",
    "gradient_checkpointing",
    "shard_backbone",
)


_Model = TypeVar("_Model", bound=PretrainedModel)


def pretrained_model(settings: PretrainedSettings, kind: type[_Model], **own: Any) -> _Model | None:
    """The language model of this kind that the settings name, None for a compact one.

    Args:
        own: settings that this kind has beside those of all.

    Raises:
        UserError: it cannot be had.
    """
    if settings.name is None:
        return None
    if not settings.name:
        raise UserError("llm= names no model; leave it out, or set llm=~, for the compact one")
    # Adapters are drawn apart: what is drawn next, tokenizers among it, must not depend on them.
    with torch.random.fork_rng():
        model = kind(**vars(settings), **own)
    if settings.trained and not model.lora_rank and next(model.parameters()).itemsize < 4:
        logger.warning(
            "llm_dtype=%s: with lora_rank=0 all weights are trained, and in 16 bits small steps are rounded away; "
            "float32 learns better",
            settings.dtype,
        )
    return model


def _check_shards(config: Any) -> None:
    """Refuse what a language model in parts over several processes is not known to do.

    Raises:
        ValueError: names it.
    """
    beside = {
        "backbone": config["backbone"] == "t5",
        "gradient_checkpointing": config["gradient_checkpointing"],
        "quantisation": config["quantisation"],
        "llm_dtype": config["llm_dtype"] == "float16",
        "condition_on": config["condition_on"] == "answer",
        "self_improve": config["self_improve"],
    }
    if named := [f"{key}={config[key]}" for key, given in beside.items() if given]:
        raise ValueError(f"shard_backbone=True does not go with {', '.join(named)}")


def check_language_model(config: Any) -> None:
    """Refuse settings of a pretrained language model where there is none, instructions that are held out of none, and
    heads of a compact one that cannot share its width.

    Raises:
        ValueError: names them.
    """
    if config["llm"] is None and (unread := changed(config, *_OF_LLM)):
        raise ValueError(f"{', '.join(unread)}: for a pretrained language model only, set llm as well")
    if config["llm"] is None and config["random_weights"] in ("llm", "both"):
        raise ValueError(f"random_weights={config['random_weights']}: name the architecture by llm as well")
    if config["shard_backbone"]:
        _check_shards(config)
    own_heads = config["attention_head_size"] is not None  # of a T5, whose heads need no share of its width
    if config["llm"] is None and not own_heads and config["hidden_size"] % config["n_heads"]:
        raise ValueError(f"n_heads={config['n_heads']} must divide hidden_size={config['hidden_size']}")
    if config["held_out_instruction"] and not config["instructions"] and changed(config, "held_out_instruction"):
        raise ValueError("held_out_instruction needs instructions to train with")


def changed(config: Any, *keys: str) -> list[str]:
    """Those settings that are not as the model's YAML has them."""
    return [key for key in keys if config[key] != config.settings[key].default]
