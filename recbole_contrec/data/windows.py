"""
recbole_contrec.data.windows
############################
All positions in one pass. RecBole turns a history of n items into n-1 rows padded to L; here a
history is cut into windows and every position of a window is a training example. The rows of
validation and test are RecBole's own, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_contrec.data.interactions import Interactions
from recbole_contrec.errors import UserError
from recbole_contrec.storage import folders
from recbole_contrec.storage.memory_mapped import memory_mapped

SEEN_ITEMS = "seen_items"  # field of an evaluation that leaves out what a user has seen: all of it [B, E], 0 = none
_PLACE = "place in the interactions"  # column of the rows that RecBole splits
NEXT_PREFIX = "next_"  # field `next_item_id_list`: the target after every position, 0 = no target


class Histories(NamedTuple):
    """Training histories, one after the other in a flat array; padded rows exist only in batches.

    Attributes:
        items: internal item numbers [n], user by user in order of time.
        offsets: [U' + 1]; history u is ``items[offsets[u]:offsets[u + 1]]``.
        users: internal user number of every history [U'].
    """

    items: np.ndarray
    offsets: np.ndarray
    users: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item of every training interaction, two arrays [n]."""
        return np.repeat(self.users, np.diff(self.offsets)), self.items


class Windows(NamedTuple):
    """Stretches of the flat item array, one a window, all arrays [W].

    A window reads the items ``start .. start + length - 1`` and predicts the item after each;
    its first ``context`` positions were targets of an earlier window and carry no loss here.
    """

    history: np.ndarray
    start: np.ndarray
    length: np.ndarray
    context: np.ndarray


def cut_windows(offsets: np.ndarray, size: int, context: int = 0, rng: np.random.Generator | None = None) -> Windows:
    """Cut histories into windows such that every target is predicted exactly once.

    Args:
        offsets: [U' + 1] borders of the histories in the flat array.
        size: positions a window holds at most (L).
        context: positions that a later window repeats from its predecessor to see some history.
        rng: draws where the first cut of a long history falls, so that each epoch sees other
            windows; without it the first window is as long as possible.
    """
    stride = size - context
    positions = np.maximum(np.diff(offsets) - 1, 0)  # a history of n items has n-1 targets
    whole = positions <= size
    first = np.where(whole, positions, size)
    if rng is not None:
        drawn = rng.integers(1, stride + 1, size=len(positions)) + context
        first = np.where(whole, positions, drawn)
    count = np.where(positions > 0, 1 + np.ceil((positions - first) / stride).astype(np.int64), 0)

    history = np.repeat(np.arange(len(positions)), count)  # [W]
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # place in its history
    begin = np.where(number == 0, 0, first[history] + (number - 1) * stride)  # first counted position
    end = np.minimum(first[history] + number * stride, positions[history])
    repeated = np.where(number == 0, 0, np.minimum(context, begin))
    return Windows(history, offsets[:-1][history] + begin - repeated, end - begin + repeated, repeated)


class WindowDataset(SequentialDataset):
    """RecBole's sequential data set whose training part is kept as whole histories.

    ``build()`` gives RecBole's three data sets. Validation and test hold exactly the rows of
    :class:`~recbole.data.dataset.SequentialDataset`; the training one carries ``histories``, which hold what RecBole's
    training rows hold: their targets and the items before them. In order of time, every split of RecBole's leaves the
    beginning of a history for training.
    """

    inter_feat: Any
    histories: "Histories"
    borders: np.ndarray  # of the whole histories in `inter_feat` [U' + 1]
    _held_out: tuple[np.ndarray, np.ndarray] | None = None  # of other splits than leave-one-out

    def build(self) -> "list[WindowDataset]":
        """Split into training histories and RecBole's rows for validation and test.

        Returns:
            list: three data sets. ``inter_feat`` of the training one holds its plain interactions.
        """
        self._change_feat_format()
        users, items = self.histories.pairs()
        if self.config["histories_on_disk"]:
            users, items = self._move_to_disk(users)
        everything = self.inter_feat
        valid, test = self.held_out_targets()
        self.inter_feat = self._rows_with_history(np.concatenate([valid, test]))
        self._drop_unused_col()
        parts = [self.inter_feat[: len(valid)], self.inter_feat[len(valid) :]]  # histories are gathered batch by batch
        self.inter_feat = everything
        train = Interaction({self.uid_field: torch.from_numpy(users), self.iid_field: torch.from_numpy(items)})
        return [self.copy(part) for part in (train, *parts)]

    def in_order(self) -> Interactions:
        """All interactions, user by user in order of time, once the data set is built."""
        return Interactions(*(self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field)))

    def _move_to_disk(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Replace every array with a number for each interaction by one of a file, one at a time.

        Args:
            users: of every training interaction [n].

        Returns:
            tuple: user and item of every training interaction.
        """
        folder = Path(self.config["checkpoint_dir"]) / folders.STAGES / "histories"
        for field in self.inter_feat:
            column = memory_mapped(field, self.inter_feat[field].numpy(), folder)
            self.inter_feat.interaction[field] = torch.from_numpy(column)
        items = memory_mapped(f"training_{self.iid_field}", self.histories.items, folder)
        self.histories = self.histories._replace(items=items)
        return memory_mapped(f"training_{self.uid_field}", users, folder), items

    def held_out_rows(self, users: int) -> int:
        """Rows of evaluation, which hold their history: at most two a user, or, by other splits, one an interaction."""
        return 2 * users if self._leaves_one_out else len(self.inter_feat)

    @property
    def _leaves_one_out(self) -> bool:
        return self.config["eval_args"]["split"] == {"LS": "valid_and_test"}

    def data_augmentation(self) -> None:
        """RecBole's hook, here without rows: remember the histories as a flat array."""
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        if self.config["first_n"]:
            self._keep_first(self.config["first_n"])
        of_row, items = self.in_order()
        first = np.flatnonzero(np.diff(of_row, prepend=-1))
        users, counts = of_row[first], np.diff(first, append=len(items))
        self.borders = np.append(first, len(items))
        if self._leaves_one_out:
            # A history of three has no validation row in RecBole: one row for training and one for test.
            lengths = counts - np.where(counts == 3, 1, 2)
        else:
            trained, *held_out = self._split_by_recbole()
            self._held_out = held_out[0], held_out[1]
            ends = first.copy()  # behind the last training target; where a user has none, no item is left
            np.maximum.at(ends, np.searchsorted(first, trained, side="right") - 1, trained + 1)
            lengths = ends - first
        # for each history so many times True, then False
        keep = np.repeat(np.tile([True, False], len(users)), np.stack([lengths, counts - lengths], axis=1).ravel())
        some = lengths > 0
        self.histories = Histories(items[keep], np.concatenate([[0], np.cumsum(lengths[some])]), users[some])

    def _split_by_recbole(self) -> list[np.ndarray]:
        """Places in ``inter_feat`` of the targets of training, validation and test, as RecBole splits its rows: here
        without their histories, which no split looks at."""
        targets = np.setdiff1d(np.arange(self.borders[-1]), self.borders)  # first events have no history
        rows = {name: self.inter_feat[name][torch.from_numpy(targets)] for name in (self.uid_field, self.time_field)}
        bare = copy(self)
        bare.inter_feat = Interaction({**rows, _PLACE: torch.from_numpy(targets)})
        for done_elsewhere in ("_change_feat_format", "_drop_unused_col"):
            setattr(bare, done_elsewhere, lambda: None)
        return [part.inter_feat[_PLACE].numpy() for part in SequentialDataset.build(bare)]

    def _keep_first(self, count: int) -> None:
        """Forget all but the first interactions of every user, as some published results do."""
        users = self.inter_feat[self.uid_field].numpy()  # sorted
        number = np.arange(len(users)) - np.searchsorted(users, users)
        self.inter_feat = self.inter_feat[torch.from_numpy(number < count)]

    def held_out_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the validation and test targets in ``inter_feat``, in RecBole's order."""
        if self._held_out is not None:
            return self._held_out
        first, last = self.borders[:-1], self.borders[1:]
        # RecBole sorts its rows by time and takes users as they turn up: by their second interaction.
        order = np.argsort(self.inter_feat[self.time_field].numpy()[first + 1], kind="stable")
        first, last = first[order], last[order]
        return (last - 2)[last - first > 3], last - 1

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Users x items matrix [U, N] of the training interactions, as RecBole's data sets give it."""
        users, items = self.histories.pairs()
        matrix = sp.coo_matrix(
            (np.ones(len(items), dtype=np.float32), (users, items)), shape=(self.user_num, self.item_num)
        )
        return matrix if form == "coo" else matrix.asformat(form)

    def _rows_with_history(self, targets: np.ndarray) -> "HistoryRows":
        """RecBole's rows (the target, the L items before it, their number) for some places in ``inter_feat`` [R]."""
        begin = self.borders[np.searchsorted(self.borders, targets, side="right") - 1]
        begin = np.maximum(begin, targets - self.max_item_list_len)
        lists = {getattr(self, f"{field}_list_field"): field for field in self.inter_feat if field != self.uid_field}
        rows = {field: self.inter_feat[field][torch.from_numpy(targets)] for field in self.inter_feat}
        rows[self.item_list_length_field] = torch.from_numpy(targets - begin)
        events = {field: self.inter_feat[field] for field in lists.values()}
        return HistoryRows(
            rows, torch.from_numpy(begin), events, lists, self.max_item_list_len, self.item_list_length_field
        )


class _Columns(dict):
    """Columns by name, some of which (``lists``) are made when they are read."""

    def __init__(
        self, stored: Mapping[str, torch.Tensor], lists: Mapping[str, str], make: Callable[[str], torch.Tensor]
    ):
        super().__init__({**stored, **dict.fromkeys(lists)})
        self._make = make

    def __getitem__(self, name: str) -> torch.Tensor:
        value = super().__getitem__(name)
        return self._make(name) if value is None else value

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default


class HistoryRows(Interaction):
    """Rows with the history in columns of their own [R, L], as RecBole holds them; here these are gathered for the rows
    that are asked for, since all of them would take L times the memory of the interactions.

    A slice of them is of this class again, other choices of rows are RecBole's plain ``Interaction``.

    Args:
        rows: the columns without a history [R, ...], their length among them.
        begin: place in ``events`` where the history of each row begins [R].
        events: columns of all interactions, user by user in order of time [n, ...].
        lists: column of histories -> column of ``events``.
        width: L, to which histories are padded with 0.
        length: the column of ``rows`` with the lengths.
    """

    def __init__(
        self,
        rows: Mapping[str, torch.Tensor],
        begin: torch.Tensor,
        events: Mapping[str, torch.Tensor],
        lists: Mapping[str, str],
        width: int,
        length: str,
    ):
        self._begin, self._events, self._lists, self._width = begin, events, dict(lists), width
        self._lengths = rows[length]
        self.interaction = _Columns(rows, lists, self._histories)
        self.length = len(begin)

    def _histories(self, name: str, rows: Any = slice(None)) -> torch.Tensor:
        """The histories in one column, for some rows [R', L, ...] or one [L, ...]."""
        begin, length = self._begin[rows][..., None], self._lengths[rows][..., None]
        place = torch.arange(self._width)
        inside = place < length  # [R', L]
        gathered = self._events[self._lists[name]][torch.where(inside, begin + place, 0)]  # [R', L, ...]
        gathered[~inside] = 0
        return gathered

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        made = [name for name in self.interaction if dict.__getitem__(self.interaction, name) is None]
        stored = {name: self.interaction[name][index] for name in self.interaction if name not in made}
        if isinstance(index, slice):
            part = copy(self)
            part._begin, part._lengths = self._begin[index], self._lengths[index]
            part.interaction = _Columns(stored, {name: self._lists[name] for name in made}, part._histories)
            part.length = len(part._begin)
            return part
        found = {name: self._histories(name, index) if name in made else stored[name] for name in self.interaction}
        return Interaction(found)

    def _reindex(self, index: Any) -> None:
        """RecBole's hook of every change of order."""
        self._begin, self._lengths = self._begin[index], self._lengths[index]
        for name in self.interaction:
            if dict.__getitem__(self.interaction, name) is not None:
                self.interaction[name] = self.interaction[name][index]


class WindowLoader:
    """Training batches of windows, gathered from the flat array; an epoch's order depends on (seed, epoch) alone.

    Each batch is an :class:`~recbole.data.interaction.Interaction` with ``user_id`` [B],
    ``item_id_list`` [B, L'], ``item_length`` [B] and ``next_item_id_list`` [B, L'], where L' is the longest
    window of the batch and 0 marks positions without a target. Batches hold about the same number of targets,
    drawn from users of every length; the model computes rows of similar length together.

    Args:
        config: reads ``MAX_ITEM_LIST_LENGTH``, ``train_batch_size`` (targets a batch, as in RecBole, where one row
            is one target), ``window_context``, ``window_shift`` and ``seed``.
        dataset: the training part of a :class:`WindowDataset`.
    """

    def __init__(self, config: Mapping[str, Any], dataset: WindowDataset, shuffle: bool = True):
        self.config, self.dataset, self.shuffle = config, dataset, shuffle
        self.histories = dataset.histories
        self.size = config["MAX_ITEM_LIST_LENGTH"]
        self.context = config["window_context"] or 0
        self.shift = shuffle and config["window_shift"] is not False
        self.epoch = 0
        if self.context >= self.size:
            raise UserError(f"window_context={self.context} must be smaller than MAX_ITEM_LIST_LENGTH={self.size}")
        self._plan_for_epoch: tuple[Windows, list[np.ndarray]] | None = None

    @property
    def n_targets(self) -> int:
        """Training targets of an epoch: every item of a history but the first."""
        return int(np.maximum(np.diff(self.histories.offsets) - 1, 0).sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose windows and order come next, e.g. after a resume."""
        if epoch != self.epoch:
            self.epoch, self._plan_for_epoch = epoch, None

    def __len__(self) -> int:
        return len(self._plan()[1])

    def __iter__(self) -> Iterator[Interaction]:
        windows, batches = self._plan()
        self.set_epoch(self.epoch + 1)
        for chosen in batches:
            yield self._gather(Windows(*(field[chosen] for field in windows)))

    def _plan(self) -> tuple[Windows, list[np.ndarray]]:
        """The windows of this epoch and its batches, each an array of window numbers."""
        if self._plan_for_epoch is None:
            rng = np.random.default_rng((self.config["seed"], self.epoch))
            windows = cut_windows(self.histories.offsets, self.size, self.context, rng if self.shift else None)
            order = rng.permutation(len(windows.length)) if self.shuffle else np.arange(len(windows.length))
            targets = np.cumsum((windows.length - windows.context)[order])
            n_batches = max(1, round(self.n_targets / self.config["train_batch_size"]))
            borders = np.searchsorted(targets, np.arange(1, n_batches) * self.n_targets / n_batches)
            self._plan_for_epoch = windows, [b for b in np.split(order, borders) if len(b)]
        return self._plan_for_epoch

    def _gather(self, windows: Windows) -> Interaction:
        place = np.arange(windows.length.max())
        inside = place < windows.length[:, None]  # [B, L']
        source = np.where(inside, windows.start[:, None] + place, 0)
        items = np.where(inside, self.histories.items[source], 0)
        counted = inside & (place >= windows.context[:, None])
        targets = np.where(counted, self.histories.items[np.where(counted, source + 1, 0)], 0)
        sequence = self.dataset.iid_field + self.config["LIST_SUFFIX"]
        return Interaction(
            {
                self.dataset.uid_field: torch.from_numpy(self.histories.users[windows.history]),
                sequence: torch.from_numpy(items),
                NEXT_PREFIX + sequence: torch.from_numpy(targets),
                self.dataset.item_list_length_field: torch.from_numpy(windows.length),
            }
        )
