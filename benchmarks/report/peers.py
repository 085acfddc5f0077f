"""
benchmarks.report.peers
#######################
From the runs and the record of :mod:`benchmarks.peers` to Markdown tables.
"""

import json
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.report.cells import four, head, line, same, seconds, spread
from benchmarks.report.rows import Row, mismatches, rows
from benchmarks.report.tables import seconds_to_best, test_table

SPEED = "speed.json"
PEERS = ("RecTools-SASRec", "RecTools-BERT4Rec")


def is_peer(row: Row) -> bool:
    """Whether a row is a run of another package."""
    return row.results[0].content["card"]["model"] in PEERS


def tables(folder: Path) -> str:
    """All tables that a folder has something for.

    Raises:
        ValueError: it has nothing, or rows that were not measured alike.
    """
    parts = []
    if any(folder.glob("*/seed*.json")):
        table = rows(folder)
        if odd := mismatches(table):
            raise ValueError(f"not comparable: {odd}")
        parts += [runs_table(table), test_table(table, counts=is_peer)]
    if (folder / SPEED).is_file():
        parts.append(speed_table(json.loads((folder / SPEED).read_text(encoding="utf-8"))))
    if not parts:
        raise ValueError(f"{folder} holds no finished run and no {SPEED}")
    return "\n\n".join(part for part in parts if part) + "\n"


def runs_table(table: list[Row]) -> str:
    """Accuracy and cost of every row, means over its seeds; the clock sees whatever else the machine did."""
    lines = head(
        "model",
        "method",
        "seeds",
        "L",
        "valid NDCG@10",
        "valid HR@10",
        "NDCG@10",
        "HR@10",
        "NDCG@10 / HR@10, seen masked",
        "s an epoch",
        "epochs",
        "core-min to best epoch",
        "test users/s",
        "peak MiB",
        "parameters",
    )
    for row in table:
        cards = row.values(lambda content: content["card"])
        masked = (mean(row.metric(metric, "test_result_seen_masked")) for metric in ("ndcg@10", "hit@10"))
        lines.append(
            line(
                row.name,
                row.method,
                len(row.results),
                same([card["max_history"] for card in cards]),
                *(four(mean(row.metric(metric, "best_valid_result"))) for metric in ("ndcg@10", "hit@10")),
                spread(row.metric("ndcg@10"), bold=True),
                spread(row.metric("hit@10")),
                " / ".join(map(four, masked)),
                seconds(row.values(lambda content: content["seconds"]["epoch"])),
                same(row.values(lambda content: content["epochs"])),
                seconds(row.values(_core_minutes)),
                f"{mean(card['test_users_per_second'] for card in cards):,.0f}",
                f"{max(card['peak_memory_mib'] for card in cards):,}",
                f"{cards[0]['parameters']:,}",
            )
        )
    return "\n".join(lines)


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


def _core_minutes(content: dict[str, Any]) -> float | None:
    found = seconds_to_best(content)
    return None if found is None else found / 60


def _span(ratios: list[float]) -> str:
    low, high = min(ratios), max(ratios)
    return f"{median(ratios):.3g}" + (f" ({low:.3g} to {high:.3g})" if low < high else "")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
