"""
benchmarks.report.speed
#######################
The results of :mod:`benchmarks.speed` as Markdown tables.
"""

from collections.abc import Iterable, Sequence
from typing import Any

METHODS = {"full_sort": "all scores at once", "top_k": "in chunks"}


def summary(result: dict[str, Any]) -> str:
    """Markdown of everything that was measured; a function of the JSON file alone."""
    tables = {
        "train": _train,
        "ceiling": _ceiling,
        "ranking": _ranking,
        "history": _history,
        "users": _users,
        "released": _released,
    }
    return "\n\n".join([_machine(result), *(tables[part](content) for part, content in result["parts"].items())])


def _machine(result: dict[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    changed = f", settings {' '.join(settings['settings'])}" if settings["settings"] else ""
    return (
        f"{machine['cpu']}, {_count(machine['threads'], 'thread')} of {_count(machine['cores'], 'core')}, load "
        f"{machine['load_at_start']} at the start; torch {machine['versions']['torch']}, commit "
        f"{machine['commit'] or 'unknown'}, seed {settings['seed']}{changed}."
    )


def _train(content: dict[str, Any]) -> str:
    rows = [
        [
            row["model"],
            row["history"],
            _figure(row["seconds_an_epoch"]),
            _figure(row["targets_a_second"]),
            _ratio(row["times_faster"], row["times_faster_range"]),
            row["train_batch_size"],
            f"{_range(row['batches_timed'])} of {row['batches_an_epoch']}",
            _figure(row["seconds_before_training"]),
        ]
        for row in content["rows"]
    ]
    return _section(
        f"Training on {content['dataset']}",
        [
            "model",
            "L",
            "seconds an epoch",
            "targets a second",
            "times faster than SASRec (range of the rounds)",
            "targets a batch",
            "batches timed",
            "seconds before the first epoch",
        ],
        rows,
        "Medians over the rounds. Where fewer batches were timed than an epoch has, it is scaled up by its targets.",
    )


def _ceiling(content: dict[str, Any]) -> str:
    rows = [
        [
            row["model"],
            row["history"],
            _figure(row["flops_a_target"] / 1e6),
            f"{row['attention_share']:.1%}",
            _figure(row["gflops"]),
            _figure(row["matrix_gflops"]),
            f"{row['share']:.1%}",
        ]
        for row in content["rows"]
    ]
    return _section(
        f"Share of the machine's matrix rate, training on {content['dataset']}",
        [
            "model",
            "L",
            "MFLOP a target",
            "of it fused attention",
            "GFLOP/s reached",
            "GFLOP/s of matrix products",
            "share",
        ],
        rows,
    )


def _ranking(content: dict[str, Any]) -> str:
    rows = [
        [METHODS[row["method"]], f"{row['items']:,}", _figure(row["users_a_second"]), *_memory(row)]
        for row in content["rows"]
    ]
    growth = "\n\n".join(
        _growth(exponents, f"Growth with the catalogue, {METHODS[method]}")
        for method, exponents in content["growth"].items()
    )
    return _section(
        f"Full ranking by size of the catalogue, L = {content['history']}",
        ["scores", "items", "users a second", "peak MiB", "of it data and model"],
        rows,
        growth,
    )


def _history(content: dict[str, Any]) -> str:
    rows = [
        [row["history"], _figure(row["users_a_second"]), _figure(row["targets_a_second"]), *_memory(row)]
        for row in content["rows"]
    ]
    return _section(
        f"By length of the histories, {content['items']:,} items",
        ["L", "users ranked a second", "targets trained a second", "peak MiB", "of it data and model"],
        rows,
        _growth(content["growth"], "Growth with L"),
    )


def _users(content: dict[str, Any]) -> str:
    parts = ["load", "build", "stages", "epoch", "ranking", "total"]
    rows = [
        [
            f"{row['users']:,}",
            f"{row['interactions']:,}",
            *(_figure(row["seconds"][part]) for part in parts),
            f"{row['batches_timed']} of {row['batches_an_epoch']}",
            *_memory(row),
        ]
        for row in content["rows"]
    ]
    return _section(
        f"By number of users, {content['items']:,} items, L = {content['history']}",
        [
            "users",
            "interactions",
            *(f"{part}, s" for part in parts),
            "batches timed",
            "peak MiB",
            "of it data and model",
        ],
        rows,
        _growth(content["growth"], "Growth with the users"),
    )


def _released(content: dict[str, Any]) -> str:
    seconds = content["seconds_a_user"]
    rows = [
        [
            "64 tokens, 200 steps of two calls, a list of items; user by user",
            _figure(content["released_users_a_second"]),
            "1",
        ],
        [
            "ours, user by user",
            _figure(content["ours_one_by_one_users_a_second"]),
            _ratio(content["times_faster_one_by_one"]),
        ],
        ["ours, in batches", _figure(content["ours_users_a_second"]), _ratio(content["times_faster"])],
    ]
    return _section(
        f"The inference scheme of the code released with ContRec, {content['items']:,} items",
        ["scheme", "users a second", "times faster"],
        rows,
        f"At the same widths, mean of {_count(content['rows'], 'user')}; a user's seconds: "
        + ", ".join(f"{part} {_figure(value)}" for part, value in seconds.items())
        + ".",
    )


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n\n".join(filter(None, [f"### {title}", "\n".join(lines), note]))


def _growth(exponents: dict[str, list[float | None]], title: str) -> str:
    figures = (
        f"{name} {', '.join('none' if value is None else f'{value:.2f}' for value in values)}"
        for name, values in exponents.items()
        if values
    )
    return f"{title} (exponents between neighbours, 1 is linear): {'; '.join(figures) or 'one size only'}."


def _memory(row: dict[str, Any]) -> list[str]:
    return [f"{row['peak_mib']:,.0f}", f"{row['peak_mib'] - row['start_mib']:,.0f}"]


def _ratio(ratio: float | None, ends: Sequence[float] | None = None) -> str:
    return "" if ratio is None else _figure(ratio) + (f" ({_figure(ends[0])} to {_figure(ends[1])})" if ends else "")


def _range(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _figure(value: float) -> str:
    """Three digits, and all that stand before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
