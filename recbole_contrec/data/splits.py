"""
recbole_contrec.data.splits
###########################
What can only be said of a split once the data are read: parts that are empty, targets that training has not seen, and
files that come split.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from recbole.utils import ModelType

from recbole_contrec.data.moments import GLOBAL, Moments
from recbole_contrec.errors import UserError
from recbole_contrec.showing import show

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


class HeldOut(NamedTuple):
    """The targets of validation or test, and which of them training knows little about.

    Attributes:
        targets: how many there are.
        cold_items: whose item is in no training row, neither as a target nor in a history.
        cold_users: of users without a training row.
        without_history: first events of their users, which are no targets because a sequential model has nothing to
            read there; None where the split does not say to which part they belong.
    """

    targets: int
    cold_items: int
    cold_users: int
    without_history: int | None


def held_out_of(data: Any, moments: Moments | None) -> dict[str, HeldOut] | None:
    """What is said of ``valid`` and ``test``; None for leave-one-out, and for data that come split.

    Args:
        data: :class:`~recbole_contrec.data.loading.RunData`.
        moments: at which the data are split, if they are.
    """
    config = data.dataset.config
    if "LS" in config["eval_args"]["split"] or config["benchmark_filename"] is not None:
        return None
    train, fields = data.train_dataset, (data.dataset.uid_field, data.dataset.iid_field)
    users, items = (np.unique(train.inter_feat[field].numpy()) for field in fields)
    history = fields[1] + config["LIST_SUFFIX"]
    if history in train.inter_feat:  # RecBole's rows, which begin with the second item of a history
        begins = train.inter_feat[config["ITEM_LIST_LENGTH_FIELD"]] == 1
        items = np.union1d(items, train.inter_feat[history][begins][:, 0].numpy())
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    openings = moments.openings if moments and sequential else (None, None)
    found = {}
    for part, loader, opened in zip(("valid", "test"), (data.valid, data.test), openings):
        own_users, own_items = (loader.dataset.inter_feat[field].numpy() for field in fields)
        found[part] = HeldOut(len(own_items), _outside(own_items, items), _outside(own_users, users), opened)
    return found


def _outside(numbers: np.ndarray, known: np.ndarray) -> int:
    return int((~np.isin(numbers, known)).sum())


def check_benchmark(config: Any, dataset: "Dataset") -> None:
    """Rows that come split hold the history of their target, where the model is sequential.

    Raises:
        UserError: the column that lacks, ids of its own, or histories that are too long.
    """
    if config["benchmark_filename"] is None or config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return
    history = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    longest = max(map(len, dataset.inter_feat[history]))
    shortest = min(map(len, dataset.inter_feat[history]))
    if not shortest:
        raise UserError(f"benchmark_filename: a row has an empty {history}: {config.model} needs an item to read")
    if longest > config["MAX_ITEM_LIST_LENGTH"]:
        raise UserError(
            f"benchmark_filename: {history} holds up to {longest} items: set --MAX_ITEM_LIST_LENGTH={longest}"
        )


def check_history_column(config: Any, kind: str | None, loaded: list[str], where: Path) -> None:
    """The same before the files are read, from their header.

    Args:
        kind: type of the column of histories, None where it lacks.
        loaded: the columns of ``load_col``.

    Raises:
        UserError: says which column, and how it must be loaded.
    """
    history = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    if kind != "token_seq":
        raise UserError(
            f"{where}: {config.model} needs the history of every row, column {history}:token_seq"
            + (f"; it is {history}:{kind}" if kind else f", which is missing; it has {', '.join(loaded)}")
        )
    if history != "item_id_list":
        raise UserError(
            "benchmark_filename: RecBole reads histories from item_id_list only: name the columns item_id and "
            f"item_id_list (ITEM_ID_FIELD={config['ITEM_ID_FIELD']}, LIST_SUFFIX={config['LIST_SUFFIX']})"
        )
    if history not in (config["alias_of_item_id"] or ()):
        raise UserError(
            f"benchmark_filename: the items of {history} would be numbered apart from {config['ITEM_ID_FIELD']}: set "
            f"--alias_of_item_id=['{history}']"
        )


@contextmanager
def check_split(config: Mapping[str, Any]) -> Iterator[None]:
    """What RecBole complains about while it splits, samples and wraps, as a UserError."""
    try:
        yield
    except (ValueError, IndexError, ZeroDivisionError, NotImplementedError, AssertionError) as error:
        text = str(error).strip().splitlines()
        raise UserError(
            f"data set {config['dataset']!r} cannot be split and sampled by "
            f"eval_args={show(config['eval_args'])}" + (f": {text[0]}" if text else "")
        ) from error


def check_targets(config: Mapping[str, Any], data: Any) -> None:
    """There is something to train on and to test.

    Raises:
        UserError: names the empty part, and the split.
    """
    needed = {"training": data.train, "test": data.test}
    if GLOBAL in config["eval_args"]["split"]:
        needed["validation"] = data.valid
    for name, loader in needed.items():
        if len(loader) == 0 or getattr(loader, "sample_size", 1) == 0:
            raise UserError(
                f"eval_args.split={show(config['eval_args']['split'])} leaves nothing for the {name} of "
                f"{config['dataset']!r}"
            )
    if "labeled" in config["eval_args"]["mode"].values() and any(
        metric.lower() == "auc" for metric in config["metrics"]
    ):
        for name, loader in (("validation", data.valid), ("test", data.test)):
            labels = loader.dataset.inter_feat[config["LABEL_FIELD"]].unique().tolist()
            if len(labels) == 1:
                raise UserError(
                    f"metrics: AUC compares labels 1 with labels 0, and the {name} of {config['dataset']!r} has "
                    f"{labels[0]:g} only: set another --threshold or --metrics"
                )
