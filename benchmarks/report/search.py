"""
benchmarks.report.search
########################
From the record of :mod:`benchmarks.search` to Markdown tables.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.report.cells import head, line

MIB = 2**20
# What grows with the catalogue, and how it is read from a row.
GROWING: dict[str, Callable[[dict], float]] = {
    "building": lambda row: row["building"]["core_seconds"],
    "bytes": lambda row: row["trie_bytes"],
    "search": lambda row: row["search"]["core_seconds"],
    "search without seen items": lambda row: row["search_excluded"]["core_seconds"],
    "model": lambda row: row["model"]["core_seconds"],
    "model without seen items": lambda row: row["model_excluded"]["core_seconds"],
}


def report(record: dict[str, Any]) -> str:
    """The tables of all parts that a record has."""
    tables = {"users": _users, "catalogue": _catalogue}
    about, threads = record["machine"], record["machine"]["threads"]
    rounds = record["settings"]["rounds"]
    circumstances = (
        f"{about['cpu']}, {threads} thread{'s' * (threads > 1)}, median of {rounds} "
        f"round{'s' * (rounds > 1)}, load {about['load_at_start']} at the start, commit {about['commit']}."
    )
    return "\n\n".join([*(tables[part](content) for part, content in record["parts"].items()), circumstances])


def _users(content):
    """A line a part of the work."""
    lines = head("part", "share of core time", "MFLOP a user")
    lines += [
        line(part, f"{share:.1%}", f"{content['mflop_a_user'][part]:.1f}")
        for part, share in content["core_share"].items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"{content['dataset']}: {content['users']:,} users, {content['users_a_second']:,.0f} a second, "
            f"{content['users_a_core_second']:,.0f} a core-second; batches of {content['batch_size']}, L = "
            f"{content['history']} "
            f"({content['mean_history']:.0f} on average), {content['items']:,} items, identifiers by "
            f"{content['semantic_ids']}, children of a node at most {_widest(content)}, beam {content['beam_size']}.",
        ]
    )


def _catalogue(content):
    """A line a size, core-seconds of a batch."""
    lines = head(
        "items",
        "C",
        "most children by level",
        "tree, core-s",
        "tree, MiB",
        "bytes an item",
        "search",
        "without seen",
        "with model",
        "without seen",
        "of it search",
        "peak MiB",
    )
    for row in content["rows"]:
        lines.append(
            line(
                f"{row['items']:,}",
                row["codebook_size"],
                _widest(row),
                _figure(row["building"]["core_seconds"]),
                _figure(row["trie_bytes"] / MIB),
                _figure(row["trie_bytes"] / row["items"]),
                *(
                    _figure(row[what]["core_seconds"])
                    for what in ("search", "search_excluded", "model", "model_excluded")
                ),
                f"{row['core_share']['search']:.1%}",
                f"{row['peak_mib']:,.0f}",
            )
        )
    growth = "; ".join(
        f"{name} {', '.join('none' if value is None else f'{value:.2f}' for value in values)}"
        for name, values in content["growth"].items()
        if values
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Core-seconds of a search for {content['users']} users with {content['history']} items each, beam "
            f"{content['beam_size']}. Exponents of growth between neighbours (1 is linear): "
            f"{growth or 'one size only'}.",
        ]
    )


def _widest(content):
    return ", ".join(map(str, content["widest"]))


def _figure(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
