"""
recbole_contrec.data.loading
############################
The data set and the three loaders of a run: RecBole's own, or windows where the model trains on whole histories.
"""

import os
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.utils import create_samplers

from recbole_contrec.compat import quiet_recbole
from recbole_contrec.data.interactions import Interactions
from recbole_contrec.data.moments import Moments, draw_by_past_popularity, moments_of, split_at
from recbole_contrec.data.recbole_files import reading_files
from recbole_contrec.data.sizes import bounded_eval_batch_size, check_sizes
from recbole_contrec.data.splits import check_benchmark, check_split, check_targets, held_out_of
from recbole_contrec.data.text import read_item_texts
from recbole_contrec.data.values import single_precision_ties
from recbole_contrec.data.windows import WindowDataset, WindowLoader
from recbole_contrec.errors import UserError

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


_ROWS = 1 << 20  # interactions that are compared with each other at once


class RunData(NamedTuple):
    """Everything a run reads."""

    dataset: Any  # RecBole's full data set: ids, fields, counts
    train: Any
    valid: Any
    test: Any

    @property
    def train_dataset(self) -> "Dataset":
        """What the training loader reads; that of a knowledge graph says so under RecBole's private name only."""
        return self.train.dataset if hasattr(self.train, "dataset") else self.train._dataset


def load_data(config: Any) -> RunData:
    """Read, filter, split and wrap a data set as a model needs it.

    Raises:
        UserError: nothing is left after filtering, or a history is too short for leave-one-out.
    """
    dataset_class = config.entry.dataset_class
    with quiet_recbole(), _named_for_recbole(config), reading_files(config) as files:
        try:
            dataset = dataset_class(config) if dataset_class else create_dataset(config)
        except ValueError as error:
            raise _reading_error(error, config) from error
        if len(dataset.inter_feat) == 0:
            raise _filtering_error(config)
        _refuse_short_histories(dataset)
        check_benchmark(config, dataset)
        check_sizes(config, dataset)
        windows = isinstance(dataset, WindowDataset)
        if not windows:
            dataset.all_interactions = Interactions.of(dataset)
        moments = moments_of(config, dataset)
        notes = [
            *_coarse_times(dataset),
            *_coarse_moments(moments, dataset),
            *_repeated_rows(dataset),
            *_items_without_interactions(dataset),
        ]
        # its parts share them
        dataset.item_texts = read_item_texts(config, dataset.field2id_token[dataset.iid_field], files)
        dataset.notes = files.notes
        prepare = _window_loaders if windows else data_preparation
        with check_split(config), split_at(moments, config), _in_bounded_memory(config, dataset.item_num):
            loaders = prepare(config, dataset)
            if windows:
                dataset.all_interactions = dataset.in_order()
            if moments is not None:
                draw_by_past_popularity(loaders[0])
    if max(config["topk"]) >= dataset.item_num:
        raise UserError(
            f"topk={config['topk']} asks for more items than the catalogue of {config['dataset']!r} has "
            f"({dataset.item_num - 1})"
        )
    data = RunData(dataset, *loaders)
    check_targets(config, data)
    dataset.moments, dataset.held_out = moments, held_out_of(data, moments)
    files.tell(notes)  # of data that a run goes on with: nothing that is wrong is explained by them
    return data


@contextmanager
def _named_for_recbole(config):
    """RecBole chooses data sets and loaders by the model's name: a model that extends MultiVAE needs MultiVAE's.

    It also takes pickled data sets and loaders that it finds in ``checkpoint_dir``: here they are looked for where none
    can be.
    """
    own = {key: config[key] for key in ("model", "dataset_save_path", "dataloaders_save_path")}
    nowhere = os.path.join(os.devnull, "none")
    config["model"] = config.entry.recbole_name or own["model"]
    config["dataset_save_path"] = config["dataloaders_save_path"] = nowhere
    try:
        yield
    finally:
        for key, value in own.items():
            config[key] = value


@contextmanager
def _in_bounded_memory(config, items):
    """Loaders take the size of their evaluation batches when they are made."""
    given = config["eval_batch_size"]
    config["eval_batch_size"] = bounded_eval_batch_size(config, items)
    try:
        yield
    finally:
        config["eval_batch_size"] = given


def _window_loaders(config, dataset):
    built = dataset.build()
    full = [config["eval_args"]["mode"][phase] == "full" for phase in ("valid", "test")]
    # RecBole's samplers hold a set a user, which full rankings never look at
    samplers = (None, None) if all(full) else create_samplers(config, dataset, built)[1:]
    loaders = [WindowLoader(config, built[0], shuffle=config["shuffle"])]
    for part, sampler, whole in zip(built[1:], samplers, full):
        loader = FullSortEvalDataLoader if whole else NegSampleEvalDataLoader
        loaders.append(loader(config, part, sampler, shuffle=False))
    return loaders


def _refuse_short_histories(dataset: "Dataset") -> None:
    """Leave-one-out needs three interactions a user: one to read, one to validate, one to test."""
    if dataset.config["eval_args"]["split"] != {"LS": "valid_and_test"} or dataset.config["benchmark_filename"]:
        return
    counts = np.bincount(dataset.inter_feat[dataset.uid_field].to_numpy())
    if len(short := np.flatnonzero((counts > 0) & (counts < 3))):
        name = str(dataset.id2token(dataset.uid_field, short[0]))
        raise UserError(
            f"histories with fewer than three interactions: {len(short)} (user {name!r} has "
            f"{counts[short[0]]}). Leave-one-out needs three: set --user_inter_num_interval=[3,inf)"
        )


def _coarse_times(dataset: "Dataset") -> list[str]:
    """Where single precision, in which RecBole keeps times, puts events into another order than their times."""
    rows, user, time = dataset.inter_feat, dataset.uid_field, dataset.time_field
    if dataset.config["eval_args"]["order"] != "TO" or time not in rows or user not in rows:
        return []
    ties = single_precision_ties(rows[user].to_numpy(), rows[time].to_numpy(np.float64))
    if not ties.made:
        return []
    order = (
        f"; {ties.against:,} of them, of {ties.users:,} users, stand there against their times: sort the file by user "
        "and time where these shall count"
        if ties.against
        else ", which is that of their times"
    )
    return [
        f"{dataset.dataset_name}: RecBole reads {time} in single precision. Neighbouring events of a user become "
        "simultaneous "
        f"in {ties.made:,} places (in {ties.own:,} they are in the file itself) and keep the order of the file{order}"
    ]


def _coarse_moments(moments: Moments | None, dataset: "Dataset") -> list[str]:
    """What single precision puts behind a moment."""
    if moments is None or not moments.moved:
        return []
    return [
        f"{dataset.dataset_name}: RecBole reads {dataset.time_field} in single precision, in which {moments.moved:,} "
        "events shortly before a moment of eval_args.split are at it: they count as after it"
    ]


def _repeated_rows(dataset: "Dataset") -> list[str]:
    """A target that also stands in its own history is no prediction."""
    rows, fields = dataset.inter_feat, [dataset.uid_field, dataset.iid_field, dataset.time_field]
    if not {*fields} <= {*rows}:
        return []
    # Some users at a time: pandas' tables take several times the memory of the columns.
    turns = 1 + len(rows) // _ROWS
    turn = rows[fields[0]].to_numpy() % turns
    repeated = sum(int(rows.loc[turn == part, fields].duplicated().sum()) for part in range(turns))
    if not repeated:
        return []
    return [
        f"{dataset.dataset_name}: {repeated:,} interactions stand there more than once, with the same user, item and "
        "time. All are kept, so that a target may be the last item of its own history: remove them from the file"
    ]


def _items_without_interactions(dataset: "Dataset") -> list[str]:
    """RecBole ranks every item that any loaded file names."""
    known, ranked = dataset.inter_feat[dataset.iid_field].nunique(), dataset.item_num - 1
    if known >= ranked:
        return []
    return [
        f"{dataset.dataset_name}: {ranked - known:,} of {ranked:,} items occur in no interaction, only in "
        f"{dataset.dataset_name}.item or other files that are loaded; they are ranked like all others"
    ]


def _reading_error(error: ValueError, config: Mapping[str, Any]) -> UserError:
    """What RecBole says of data that it cannot use."""
    text = str(error).strip()
    if "please check the filtering settings" in text or "_feat is empty" in text:
        return _filtering_error(config)
    return UserError(f"RecBole cannot use data set {config['dataset']!r}: {text or type(error).__name__}")


def _filtering_error(config: Mapping[str, Any]) -> UserError:
    filters = {
        key: config[key]
        for key in ("user_inter_num_interval", "item_inter_num_interval", "val_interval")
        if config[key] and config[key] != "[0,inf)"
    }
    if not filters:
        return UserError(f"data set {config['dataset']!r} is empty, though no filter is set: check its files")
    return UserError(f"data set {config['dataset']!r} is empty after its filters ({filters}). Loosen the filters")
