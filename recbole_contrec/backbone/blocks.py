"""
recbole_contrec.backbone.blocks
###############################
The blocks ("layers") of a causal language model of transformers: using the first of them alone, and naming the lower
ones.
"""

from typing import Any

from torch import nn

from recbole_contrec.errors import UserError


def blocks_of(model: Any) -> tuple[str, nn.ModuleList]:
    """The blocks of a model and the path that leads to them.

    Raises:
        UserError: the model keeps them in a way that is not understood here.
    """
    count = model.config.get_text_config().num_hidden_layers
    lists = [(path, part) for path, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    found = [(path, part) for path, part in lists if len(part) == count]
    if len(found) != 1:
        raise UserError(
            f"{model.config.model_type} models are not understood well enough for llm_layers and lora_layers: their "
            "blocks are not in one list"
        )
    return found[0]


def keep_first(model: Any, count: int) -> None:
    """Leave the first blocks of a causal language model; what comes behind the last one, its norm above all, stays.

    Many blocks of a large model add little to sequential recommendation (Xu et al., SLMRec, ICLR 2025,
    https://arxiv.org/abs/2405.17890).

    Raises:
        ValueError: there are fewer.
        UserError: the model is not understood.
    """
    path, blocks = blocks_of(model)
    if count > len(blocks):
        raise ValueError(f"llm_layers={count}: the model has {len(blocks)} layers")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, blocks[:count])
    config = model.config.get_text_config()
    config.num_hidden_layers = count
    if kinds := getattr(config, "layer_types", None):  # which of them see a window only
        config.layer_types = list(kinds)[:count]


def lower_paths(model: Any, upper: int) -> list[str]:
    """Paths of all blocks below the upper ones.

    Args:
        upper: how many these are.

    Raises:
        ValueError: there are not as many.
        UserError: the model is not understood.
    """
    path, blocks = blocks_of(model)
    if upper > len(blocks):
        raise ValueError(f"lora_layers={upper}: of the model {len(blocks)} layers are used")
    return [f"{path}.{number}" for number in range(len(blocks) - upper)]
