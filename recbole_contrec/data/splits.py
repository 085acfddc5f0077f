"""
recbole_contrec.data.splits
###########################
What can only be said of a split once the data are read: parts that are empty, and files that come split.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole.utils import ModelType

from recbole_contrec.errors import UserError
from recbole_contrec.showing import show

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


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
    for name, loader in (("training", data.train), ("test", data.test)):
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
