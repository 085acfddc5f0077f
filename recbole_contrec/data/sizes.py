"""
recbole_contrec.data.sizes
##########################
Sizes of histories and scores that do not fit into memory: refused before anything is allocated.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recbole.utils import FeatureType, ModelType

from recbole_contrec import processes
from recbole_contrec.errors import UserError
from recbole_contrec.memory import refuse_beyond

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset

SCORES = 2**28  # bytes of scores of the whole catalogue that an evaluation holds at once


def check_sizes(config: Mapping[str, Any], dataset: "Dataset") -> None:
    """The rows of histories, and the scores of a batch.

    Args:
        dataset: read and filtered, not split yet.

    Raises:
        UserError: the setting, the estimate and what is free.
    """
    users, items, interactions = dataset.user_num, dataset.item_num, len(dataset.inter_feat)
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    gathered = hasattr(dataset, "held_out_rows")  # histories, for a batch of rows at a time
    rows = dataset.held_out_rows(users) if gathered else interactions
    if sequential and config["benchmark_filename"] is None:
        width = width_of_a_row(config, dataset)
        at_once = min(rows, bounded_eval_batch_size(config, items)) if gathered else rows
        # twice: RecBole copies the rows when it splits them
        refuse_beyond(
            2 * at_once * width,
            f"MAX_ITEM_LIST_LENGTH={config['MAX_ITEM_LIST_LENGTH']}: {at_once:,} rows of histories, {width:,} bytes "
            "each,",
        )
    else:
        width = 8 * (config["MAX_ITEM_LIST_LENGTH"] if sequential else 1)
    targets = min(config["train_batch_size"], interactions)
    if sequential and config["loss_type"] == "CE" and not config["semantic_ids"]:
        scored = min(config["ranking_negatives"] or items, items)
        refuse_beyond(
            2 * 4 * targets * scored,
            f"train_batch_size={config['train_batch_size']}: scores of {scored - (scored == items):,} items for "
            f"{targets:,} targets, with their gradients,",
            config["device"],
        )
    for mode in {*config["eval_args"]["mode"].values()}:
        sampled = sampled_items(mode)
        if sampled is not None:
            if sampled > max(1000, items):
                raise UserError(
                    f"eval_args.mode={mode} samples more items than the catalogue has ({items - 1:,}): set full"
                )
            refuse_beyond((sampled + 1) * width, f"eval_args.mode={mode}: the rows of one user, {width:,} bytes each,")
        elif mode == "full":
            at_once = bounded_eval_batch_size(config, items)
            batch = min(at_once if sequential else max(at_once // items, 1), rows)
            refuse_beyond(
                2 * 4 * batch * items,
                f"eval_batch_size={config['eval_batch_size']}: scores of {items - 1:,} items for {batch:,} rows",
                config["device"],
            )


def bounded_eval_batch_size(config: Mapping[str, Any], items: int) -> int:
    """``eval_batch_size``, or less where the scores of its users for the whole catalogue would take more than
    :data:`SCORES` bytes: of a million items, 67 users are ranked at once. One user always is.

    Each of several processes ranks its share of a batch.
    """
    users, size = max(SCORES // (4 * items), 1) * processes.size(), config["eval_batch_size"]
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    for mode in {*config["eval_args"]["mode"].values()}:
        if mode == "full":
            size = min(size, users if sequential else users * items)  # what RecBole counts in a batch
        elif (sampled := sampled_items(mode)) is not None:
            size = min(size, users * (sampled + 1))
    return size


def sampled_items(mode: str) -> int | None:
    """How many items a mode such as ``uni100`` samples; None for others."""
    match = re.fullmatch(r"(?:uni|pop)(\d+)", mode)
    return int(match[1]) if match else None


def width_of_a_row(config: Mapping[str, Any], dataset: "Dataset") -> int:
    """Bytes of a row with its history in every column."""
    width = 0
    for field in dataset.inter_feat:
        if field == dataset.uid_field:
            continue
        kind = dataset.field2type[field]
        number = 8 if kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ) else 4
        width += number * dataset.field2seqlen[field] * (2 if field in config["numerical_features"] else 1)
    return width * config["MAX_ITEM_LIST_LENGTH"]
