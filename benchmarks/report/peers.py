"""
benchmarks.report.peers
#######################
From the runs and the record of :mod:`benchmarks.peers` to Markdown tables.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report.cells import head, line
from benchmarks.report.rows import PEERS, Row, mismatches, rows
from benchmarks.report.tables import accuracy_table, cost_table, test_table

SPEED = "speed.json"


def is_peer(row: Row) -> bool:
    """Whether a row is a run of another package."""
    return row.results[0].content["card"]["model"] in PEERS


def tables(folder: Path) -> str:
    """All tables that a folder has something for: those of every comparison, with paired tests against the best peer
    and against ContRec, and speed.

    Raises:
        ValueError: it has nothing, or rows that were not measured alike.
    """
    parts = []
    if any(folder.glob("*/seed*.json")):
        table = rows(folder)
        if odd := mismatches(table):
            raise ValueError(f"not comparable: {odd}")
        parts += [
            accuracy_table(table),
            test_table(table, counts=is_peer),
            test_table(table, counts=lambda row: row.name == "ContRec"),
            cost_table(table),
            notes([row for row in table if is_peer(row)]),
        ]
    if (folder / SPEED).is_file():
        parts.append(speed_table(json.loads((folder / SPEED).read_text(encoding="utf-8"))))
    if not parts:
        raise ValueError(f"{folder} holds no finished run and no {SPEED}")
    return "\n\n".join(part for part in parts if part) + "\n"


def notes(peers: list[Row]) -> str:
    """What peers train on, and what they ran with."""
    cards = [result.content["card"] for row in peers for result in row.results]
    told = [
        f"{row.name} trains on {card['interactions_an_epoch']:,} interactions and knows "
        f"{card['items'] - card['unknown_items']:,} of {card['items']:,} items."
        for row in peers
        for card in [row.results[0].content["card"]]
    ]
    packages = dict.fromkeys(f"{name} {version}" for card in cards for name, version in card["versions"].items())
    return " ".join([*told, f"Peers ran with {', '.join(packages)}."] if peers else [])


def speed_table(record: dict[str, Any]) -> str:
    """Epochs and rankings in turns, and how many times as fast as the first peer every contender is, round by round."""
    base = record["rows"][0]
    lines = head(
        "model",
        "s an epoch",
        f"times as fast as {base['name']}",
        "training interactions in it",
        "times as fast an interaction",
        "test users/s",
        f"times as fast as {base['name']}",
        "peak MiB",
    )
    for row in record["rows"]:
        lines.append(
            line(
                row["name"],
                _figure(median(row["epoch_seconds"])),
                _span(training_ratios(row, base)),
                f"{row['interactions_an_epoch'] / record['interactions']:.0%}",
                _span(interaction_ratios(row, base)),
                _figure(median(row["users_a_second"])),
                _span(ranking_ratios(row, base)),
                f"{max(row['peak_mib']):,.0f}",
            )
        )
    about, rounds = record["machine"], record["rounds"]
    threads = about["threads"]
    lines.append(
        f"\n{record['dataset']}: {record['users']:,} users, {record['interactions']:,} training interactions; "
        f"in turns, median of {rounds} round{'s' * (rounds > 1)}; {about['cpu']}, "
        f"{threads} thread{'s' * (threads > 1)}, load {about['load_at_start']} at the start, commit {about['commit']}."
    )
    ours = [row for row in record["rows"] if not row["peer"]]
    lines += [
        f"{row['name']} trains an epoch {median(training_ratios(row, base)):.3g}, an interaction "
        f"{median(interaction_ratios(row, base)):.3g}, and ranks {median(ranking_ratios(row, base)):.3g} times as fast "
        f"as {base['name']}."
        for row in ours
    ]
    return "\n".join(lines)


def training_ratios(row: dict[str, Any], base: dict[str, Any]) -> list[float]:
    """Seconds an epoch of the base as a multiple of a contender's, round by round."""
    return [other / own for own, other in zip(row["epoch_seconds"], base["epoch_seconds"], strict=True)]


def interaction_ratios(row: dict[str, Any], base: dict[str, Any]) -> list[float]:
    """The same for each training interaction that an epoch has: RecTools' epochs leave out those of long histories."""
    share = row["interactions_an_epoch"] / base["interactions_an_epoch"]
    return [share * ratio for ratio in training_ratios(row, base)]


def ranking_ratios(row: dict[str, Any], base: dict[str, Any]) -> list[float]:
    """Users a second of a contender as a multiple of the base's, round by round."""
    return [own / other for own, other in zip(row["users_a_second"], base["users_a_second"], strict=True)]


def _span(ratios: list[float]) -> str:
    low, high = min(ratios), max(ratios)
    return f"{median(ratios):.3g}" + (f" ({low:.3g} to {high:.3g})" if low < high else "")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
