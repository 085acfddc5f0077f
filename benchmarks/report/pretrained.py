"""
benchmarks.report.pretrained
############################
From the runs of :mod:`benchmarks.pretrained` to Markdown tables: accuracy by group of targets, and paired differences
to each variant's control.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.lib.pretrained_variants import Variant
from benchmarks.lib.runs import read_arrays
from benchmarks.lib.significance import Comparison, compare, of_users
from benchmarks.report.cells import head, line, seconds, spread
from benchmarks.report.rows import Row, mismatches, notes_on, rows, shown_name
from benchmarks.report.tables import epoch_seconds

GROUPS_FILE = "groups.npz"
COLD, SHORT = 5, 5  # most training interactions of a cold target, most items of a short history

NOTES = f"""Cold targets are items with at most {COLD} training interactions, short histories have at most {SHORT} items
before the target. Metrics are those of the test; everything was chosen on validation. Differences are to the named
control, user by user, each with the mean over the seeds that both have; the interval is a paired bootstrap over users
(95 %). It does not hold what other seeds would have given, nor is it corrected for the number of rows."""


class Group(NamedTuple):
    """Some of the test targets: a name, and which they are by ``interactions`` [n] and ``history`` [n]."""

    name: str
    holds: Callable[[dict[str, np.ndarray]], np.ndarray]


GROUPS = (
    Group("all", lambda facts: facts["interactions"] >= 0),
    Group("cold", lambda facts: facts["interactions"] <= COLD),
    Group("warm", lambda facts: facts["interactions"] > COLD),
    Group("short history", lambda facts: facts["history"] <= SHORT),
)


def groups_of(facts: dict[str, np.ndarray]) -> list[Group]:
    """Those that have a target in this data set."""
    return [group for group in GROUPS if group.holds(facts).any()]


class Against(NamedTuple):
    """A variant against its control in one group of targets; ``hits`` compares HR@10."""

    group: str
    targets: int
    control: float  # its mean NDCG@10
    gains: Comparison
    hits: Comparison


def report(folder: Path, variants: Sequence[Variant]) -> str:
    """The README of a folder.

    Raises:
        ValueError: no finished run.
        UserError: the file with the groups is missing or damaged.
    """
    found = {row.name: row for row in rows(folder)}
    table = [found[variant.name] for variant in variants if variant.name in found]
    if not table:
        raise ValueError(f"{folder} holds no finished run of a variant")
    facts = read_arrays(folder / GROUPS_FILE, ("user", "interactions", "history"))
    dataset = table[0].results[0].content["card"]["dataset"]
    known = {variant.name: variant for variant in variants}
    parts = [
        f"# {dataset}: what pretrained weights are worth",
        accuracy_table(table, known, facts),
        differences_table(table, known, facts),
        settings_table(table, known),
        NOTES + "\n",
    ]
    return "\n\n".join(part for part in parts if part)


def accuracy_table(table: list[Row], known: dict[str, Variant], facts: dict[str, np.ndarray]) -> str:
    """A line a variant: validation, and NDCG@10 / HR@10 of every group of test targets."""
    odd = mismatches(table)
    titles = [f"{group.name} ({int(group.holds(facts).sum()):,})" for group in groups_of(facts)]
    lines = head("variant", "meaning", "seeds", "valid NDCG@10", *titles, "core-s an epoch")
    for row in table:
        cells = [
            " / ".join(spread(np.mean(_values(row, facts, group, hits), axis=1).tolist()) for hits in (False, True))
            for group in groups_of(facts)
        ]
        lines.append(
            line(
                shown_name(row, odd),
                known[row.name].meaning,
                len(row.results),
                spread(row.metric("ndcg@10", "best_valid_result"), bold=True),
                *cells,
                seconds(row.values(epoch_seconds)),
            )
        )
    lines += notes_on(odd, table[0])
    return "\n".join(lines)


def differences_table(table: list[Row], known: dict[str, Variant], facts: dict[str, np.ndarray]) -> str:
    """A line for every variant and group: what it gains on its control; empty where no row has its control beside
    it."""
    of_name = {row.name: row for row in table}
    lines = head("variant", "against", "targets", "NDCG@10", "95 % interval", "relative", "HR@10", "95 % interval")
    for row in table:
        if (control := of_name.get(known[row.name].control or "")) is None:
            continue
        for found in against(row, control, facts):
            share = f"{found.gains.difference / found.control:+.1%}" if found.control else ""
            lines.append(
                line(
                    row.name,
                    control.name,
                    found.group,
                    f"{found.gains.difference:+.4f}",
                    f"{found.gains.low:+.4f} to {found.gains.high:+.4f}",
                    share,
                    f"{found.hits.difference:+.4f}",
                    f"{found.hits.low:+.4f} to {found.hits.high:+.4f}",
                )
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def settings_table(table: list[Row], known: dict[str, Variant]) -> str:
    """What every variant is made by."""
    lines = head("variant", "model", "settings")
    for row in table:
        lines.append(
            line(
                row.name,
                known[row.name].model,
                f"`{' '.join(known[row.name].settings)}`" if known[row.name].settings else "",
            )
        )
    return "\n".join(lines)


def against(row: Row, control: Row, facts: dict[str, np.ndarray]) -> list[Against]:
    """A row against another in every group, over the seeds that both have; empty where they have none."""
    seeds = [{result.content["card"]["seed"]: result for result in each.results} for each in (row, control)]
    common = sorted(seeds[0].keys() & seeds[1].keys())
    if not common:
        return []
    ours, theirs = (
        each._replace(results=[found[seed] for seed in common]) for each, found in zip((row, control), seeds)
    )
    result = []
    for group in groups_of(facts):
        gains, hits = ([_values(each, facts, group, hit).mean(0) for each in (ours, theirs)] for hit in (False, True))
        result.append(Against(group.name, len(gains[0]), float(gains[1].mean()), compare(*gains), compare(*hits)))
    return result


def _values(row: Row, facts: dict[str, np.ndarray], group: Group, hits: bool) -> np.ndarray:
    """NDCG@10 or HR@10 of every seed and user of a group [seeds, n]."""
    users = facts["user"][group.holds(facts)]
    gains = np.array([of_users(result.ranks, users) for result in row.results])
    return (gains > 0).astype(float) if hits else gains
