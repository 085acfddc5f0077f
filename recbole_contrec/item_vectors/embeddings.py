"""
recbole_contrec.item_vectors.embeddings
#######################################
Item embeddings of RecBole's models that start at vectors from a file (asked for in RecBole's thread 1150).
"""

import logging
import warnings
from typing import Any

import torch
from torch import nn

from recbole_contrec.errors import UserError
from recbole_contrec.tokenizer import load_vectors

logger = logging.getLogger(__name__)


def check_item_embeddings(config: Any) -> None:
    """Stop before data are read where nothing would read ``item_embeddings``.

    Raises:
        UserError: the model is one of this package.
    """
    if config["item_embeddings"] and config.model_class.__module__.startswith("recbole_contrec."):
        instead = "set item_vectors to the file" if "item_vectors" in config.settings else "it has no vectors of items"
        raise UserError(f"item_embeddings is for RecBole's models and your own, not for {config['model']}: {instead}")


@torch.no_grad()
def start_item_embeddings(config: Any, model: nn.Module, dataset: Any) -> None:
    """Write the vectors of ``item_embeddings`` into ``model.item_embedding``.

    They are brought to the root mean square that the random numbers of the table have, so that a model trains as it
    does from these. Items without a vector keep their random numbers; so do rows behind the items, such as BERT4Rec's
    mask.

    Args:
        config: reads ``item_embeddings``, ``model`` and ``dataset``.
        model: one that has an ``nn.Embedding`` of that name, as RecBole's have.
        dataset: names the items.

    Raises:
        UserError: there is no such table or file, or their widths differ.
    """
    path = config["item_embeddings"]
    if not path:
        return
    table = getattr(model, "item_embedding", None)
    if not isinstance(table, nn.Embedding):
        raise UserError(f"item_embeddings={path}: {config['model']} has no table of item embeddings")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the log has it
            loaded = load_vectors(path, [str(token) for token in dataset.field2id_token[dataset.iid_field]])
    except (OSError, ValueError) as error:
        raise UserError(f"item_embeddings={path}: {error}") from error
    vectors, width = loaded.vectors, table.embedding_dim
    if vectors.shape[1] != width:
        raise UserError(
            f"item_embeddings={path} has vectors of width {vectors.shape[1]}, and the item embeddings of "
            f"{config['model']} are {width} wide"
        )
    rows = vectors.any(dim=1).nonzero().squeeze(1)
    size = table.weight[1:].square().mean().sqrt() / vectors[rows].square().mean().sqrt()
    table.weight[rows] = (vectors[rows] * size).to(table.weight)
    logger.info(
        "%s: the embeddings of %d of %d items start at the vectors of %s",
        config["model"],
        len(rows),
        len(vectors) - 1,
        path,
    )
