"""
benchmarks.report.groups
########################
Accuracy by group of test targets: users of short and long histories, popular, rare and cold targets, and targets that
the user has had before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.lib.lists import Training, targets, test_targets
from benchmarks.lib.runs import Result
from benchmarks.lib.significance import Comparison, compare_all, hit, mean_over_seeds
from benchmarks.report.cells import four, head, line
from benchmarks.report.rows import Row, mismatches
from benchmarks.report.tables import best_baseline

HEAD = 0.2  # share of the training interactions that the most popular items hold
NEEDED = ("item", "history", "popularity", "above", "seen")
FEWEST = 5  # users of a group, for an interval
NOTE = f"""Terciles are of the lengths of training histories. Head: the most popular items that hold {HEAD:.0%} of the
training interactions together; tail: the others of training; cold: never in training. Seen before: in the user's own
history. NDCG@10 / HR@10, means over seeds; intervals are a paired bootstrap over the users of a group."""
LACKING = (
    "Runs of earlier versions do not hold what groups are made by: with --groups it is computed from the data set, "
    "which --data_path names where RecBole does not ship it."
)


class Group(NamedTuple):
    """Some of the targets.

    Attributes:
        name: as it is shown.
        short: the same for an axis.
        rows: which rows of the ranks [n].
    """

    name: str
    short: str
    rows: np.ndarray


class OfGroup(NamedTuple):
    """The rows of a table on one group.

    Attributes:
        name, short: of the group.
        users: how many it has.
        ndcg, hit: means of every row.
        against: every row against the baseline; None for the baseline and where there are too few users.
    """

    name: str
    short: str
    users: int
    ndcg: list[float]
    hit: list[float]
    against: list[Comparison | None]


def split(columns: dict[str, np.ndarray]) -> list[Group]:
    """The groups of the targets of a run; those without a target as well."""
    length, popularity, above, seen = (columns[name] for name in NEEDED[1:])
    low, high = np.quantile(length, [1 / 3, 2 / 3]).astype(int)
    return [
        Group(f"short histories (up to {low})", "short", length <= low),
        Group(f"middle histories ({low + 1} to {high})", "middle", (length > low) & (length <= high)),
        Group(f"long histories (over {high})", "long", length > high),
        Group("head targets", "head", (popularity > 0) & (above < HEAD)),
        Group("tail targets", "tail", (popularity > 0) & (above >= HEAD)),
        Group("cold targets", "cold", popularity == 0),
        Group("targets seen before", "seen", seen.astype(bool)),
        Group("targets new to the user", "new", ~seen.astype(bool)),
    ]


def has_groups(result: Result) -> bool:
    """Whether a result holds what groups are made by."""
    return set(NEEDED) <= result.ranks.keys()


def fill(table: Sequence[Row], data_path: str | None) -> None:
    """Give results of earlier versions what groups are made by, from the data set.

    Args:
        table: rows; those that were not measured like the first one are left as they are.
        data_path: folder of data sets that RecBole does not ship.

    Raises:
        UserError: the data are not those of the results, or do not tell which target a rank is of.
    """
    odd = mismatches(list(table))
    lacking = [
        result
        for row in table
        for result in row.results
        if row.name not in odd and result.ranks and not has_groups(result)
    ]
    if not lacking:
        return
    known = _of_data(lacking[0], data_path)
    for result in lacking:
        result.ranks.update(_in_order_of(result, known))


def of_groups(table: Sequence[Row]) -> tuple[list[Row], list[OfGroup]]:
    """Accuracy by group of all rows that are measured alike and hold what groups are made by.

    Returns:
        tuple: these rows, and the groups that have users.
    """
    odd = mismatches(list(table))
    rows = [row for row in table if row.name not in odd and all(map(has_groups, row.results))]
    if not rows:
        return [], []
    baseline = best_baseline(rows)
    found = []
    for place, group in enumerate(split(rows[0].results[0].ranks)):
        users = np.unique(rows[0].results[0].ranks["user"][group.rows])
        if not len(users):
            continue
        parts = [[_part(result, place) for result in row.results] for row in rows]
        ndcg = [mean_over_seeds(part, users) for part in parts]
        hits = [mean_over_seeds(part, users, value=hit) for part in parts]
        found.append(
            OfGroup(
                group.name,
                group.short,
                len(users),
                [float(own.mean()) for own in ndcg],
                [float(own.mean()) for own in hits],
                _against(rows, ndcg, baseline),
            )
        )
    return rows, found


def groups_table(table: Sequence[Row]) -> str:
    """Two tables: accuracy of every row by group, and differences to the best baseline; a sentence where no row holds
    what groups are made by."""
    rows, groups = of_groups(table)
    if not rows:
        return LACKING
    lines = head("model", *(f"{group.name}, {group.users:,} users" for group in groups))
    for place, row in enumerate(rows):
        lines.append(line(row.name, *(f"{four(group.ndcg[place])} / {four(group.hit[place])}" for group in groups)))
    baseline = best_baseline(rows)
    if baseline is not None and len(rows) > 1:
        lines += ["", *head(f"NDCG@10 against {baseline.name}", *(group.name for group in groups))]
        for place, row in enumerate(rows):
            if row is not baseline:
                lines.append(line(row.name, *(shown(group.against[place]) for group in groups)))
    return "\n".join([*lines, f"\n{NOTE}"])


def shown(found: Comparison | None) -> str:
    """A difference with its interval; bold where that does not hold 0, a dash where there are too few users."""
    if found is None:
        return "-"
    text = f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def _part(result: Result, place: int) -> dict[str, np.ndarray]:
    """Ranks of the targets of one group."""
    which = split(result.ranks)[place].rows
    return {name: column[which] for name, column in result.ranks.items()}


def _against(rows: list[Row], values: list[np.ndarray], baseline: Row | None) -> list[Comparison | None]:
    others = [place for place, row in enumerate(rows) if row is not baseline]
    found: list[Comparison | None] = [None] * len(rows)
    if baseline is None or len(values[0]) < FEWEST or not others:
        return found
    reference = values[next(place for place, row in enumerate(rows) if row is baseline)]
    for place, comparison in zip(others, compare_all([values[place] for place in others], reference)):
        found[place] = comparison
    return found


def _of_data(result: Result, data_path: str | None) -> dict[str, np.ndarray]:
    """What groups are made by, of all test targets of a result's data set; with ``user``."""
    from benchmarks.lib.asked import OF_THE_DATA  # slow imports
    from recbole_contrec import UserError
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.settings.config import Config

    card, stored = result.content["card"], result.content.get("settings") or {}
    settings = {name: stored[name] for name in (*OF_THE_DATA, "eval_args", "first_n") if stored.get(name) is not None}
    if "seed" in card:
        settings["seed"] = card["seed"]
    place = [f"--data_path={Path(data_path).resolve()}"] if data_path else []
    data = load_data(Config(card["model"], card["dataset"], config_dict=settings, arguments=place))
    counts = {"users": data.dataset.user_num - 1, "items": data.dataset.item_num - 1}
    if other := [f"{count:,} {fact}, not {card[fact]:,}" for fact, count in counts.items() if card[fact] != count]:
        raise UserError(f"--groups: the data of {card['dataset']} are not those of the results: {', '.join(other)}")
    users, items = test_targets(data)
    return {"user": users, **targets(data, Training.of(data), users, items)}


def _in_order_of(result: Result, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from recbole_contrec import UserError

    users = result.ranks["user"]
    if len(np.unique(known["user"])) < len(known["user"]) or len(np.unique(users)) < len(users):
        raise UserError(
            f"--groups: {result.name} does not say which target each rank is of, and users have several: run it anew "
            "with --again"
        )
    order = np.argsort(known["user"])
    place = np.searchsorted(known["user"], users, sorter=order).clip(max=len(order) - 1)
    if len(users) != len(order) or (known["user"][order[place]] != users).any():
        raise UserError(f"--groups: {result.name} was tested on other users than the data have")
    return {name: known[name][order[place]] for name in NEEDED}
