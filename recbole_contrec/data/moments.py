"""
recbole_contrec.data.moments
############################
A split at two moments in time, the same for all users: what comes before the first is for training, what comes from the
second on for the test. RecBole has none: its ``TS`` cuts the test off at a moment, and validation user by user.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.dataset import Dataset

from recbole_contrec.errors import UserError
from recbole_contrec.showing import show

GLOBAL = "GTS"  # of ``eval_args.split``: global temporal split
PARTS = ("training", "validation", "test")


class Moments(NamedTuple):
    """Where validation and where the test begins, in the single precision in which RecBole keeps times.

    Rounding keeps order, so nothing that happens at a moment or after it is in the part before. What happens shortly
    before may round to the moment and then counts as after it.

    Attributes:
        valid, test: times in the unit of the column as it is loaded.
        openings: users whose history begins in validation and in the test: a first event has no history to be
            predicted from.
        moved: events before a moment that count as after it.
    """

    valid: float
    test: float
    openings: tuple[int, int]
    moved: int

    def part_of(self, times: np.ndarray) -> np.ndarray:
        """0 (training), 1 (validation) or 2 (test) for times [n]."""
        borders = np.array([self.valid, self.test], dtype=np.float32)
        return np.searchsorted(borders, np.asarray(times, dtype=np.float32), side="right")


def moments_of(config: Any, dataset: Dataset) -> Moments | None:
    """Those of a run; None where it is not split at moments.

    Args:
        dataset: read and filtered, not built yet.

    Raises:
        UserError: a part in which nothing happens; names the range of the times.
    """
    given = config["eval_args"]["split"].get(GLOBAL)
    if given is None or config["benchmark_filename"] is not None:
        return None
    rows = dataset.inter_feat
    exact = rows[dataset.time_field].to_numpy(np.float64)
    times = exact.astype(np.float32)
    in_order = np.sort(times)
    wanted = [_moment(value, in_order) for value in given]
    valid, test = (float(np.float32(moment)) for moment in wanted)
    found = Moments(valid, test, openings=(0, 0), moved=0)
    parts = found.part_of(times)
    for number, part in enumerate(PARTS):
        if not (parts == number).any():
            raise UserError(_nothing_in(part, config, dataset, in_order))
    users = rows[dataset.uid_field].to_numpy()
    first = np.full(users.max() + 1, np.inf, dtype=np.float32)
    np.minimum.at(first, users, times)
    opened = np.bincount(found.part_of(first[np.isfinite(first)]), minlength=3)
    numbers = [moment for moment, value in zip(wanted, given) if not isinstance(value, str)]
    moved = sum(int(((exact < moment) & (times >= np.float32(moment))).sum()) for moment in numbers)
    return found._replace(openings=(int(opened[1]), int(opened[2])), moved=moved)


def share_of(value: str) -> float:
    """``80%`` as 0.8.

    Raises:
        ValueError: it is no share between 0 and 100 %.
    """
    share = float(value.removesuffix("%")) / 100
    if not value.endswith("%") or not 0 < share < 1:
        raise ValueError(value)
    return share


def _moment(value: Any, in_order: np.ndarray) -> float:
    """A moment as it is given, or that before which a share of the events happens, from their times in order [n]."""
    return float(in_order[int(share_of(value) * len(in_order))] if isinstance(value, str) else value)


def _nothing_in(part: str, config: Mapping[str, Any], dataset: Dataset, in_order: np.ndarray) -> str:
    field = dataset.time_field
    text = (
        f"eval_args.split={show(config['eval_args']['split'])} leaves nothing for the {part} of {config['dataset']!r}: "
        f"its times ({field}) go from {in_order[0]:.9g} to {in_order[-1]:.9g}"
    )
    if config["normalize_all"] or field in (config["normalize_field"] or ()):
        key = "normalize_all" if config["normalize_all"] else "normalize_field"
        text += f", to which {key} has brought them; shares of the events do without: {{'{GLOBAL}': ['80%', '90%']}}"
    return text


@contextmanager
def split_at(moments: Moments | None, config: Any) -> Iterator[None]:
    """While RecBole builds data sets, its split by time is that at the moments; nothing changes without them."""
    if moments is None:
        yield
        return

    def cut(self: Dataset, ratios: Any, group_by: Any) -> list[Dataset]:
        parts = moments.part_of(self.inter_feat[self.time_field].numpy())
        self._drop_unused_col()
        rows = [torch.from_numpy(np.flatnonzero(parts == number)) for number in range(len(PARTS))]
        return [self.copy(self.inter_feat[chosen]) for chosen in rows]

    own, given = Dataset.time_based_split, config["eval_args"]
    Dataset.time_based_split = cut
    config["eval_args"] = {**given, "split": {"TS": [moments.valid, moments.test]}}
    try:
        yield
    finally:
        Dataset.time_based_split, config["eval_args"] = own, given


def draw_by_past_popularity(train: Any) -> None:
    """Negatives by popularity: RecBole counts the interactions of all parts, here those of training rows count.

    Args:
        train: RecBole's loader of training rows.

    Raises:
        UserError: somebody has had every item that can be drawn, so that none would be found.
    """
    loader = getattr(train, "general_dataloader", train)  # that of a knowledge graph holds one
    sampler: Any = getattr(loader, "_sampler", None)
    if sampler is None or sampler.distribution != "popularity":
        return
    dataset = loader._dataset
    items = dataset.inter_feat[dataset.iid_field].tolist()
    known = {*items}
    if any(known <= own for own in sampler.used_ids) or len(known) < 2:
        raise UserError(
            f"train_neg_sample_args: by popularity before the first moment {len(known):,} items can be drawn, and a "
            "user has had all of them: set distribution to uniform"
        )
    sampler._get_candidates_list = lambda: items
    sampler._build_alias_table()
