"""
benchmarks.report.scale
#######################
The results of :mod:`benchmarks.scale` as Markdown tables.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.lib.scale_points import STAGES

SIZES = ("users", "items")
TARGET = 10**8  # interactions of the computed table


def summary(result: dict[str, Any]) -> str:
    """Markdown of everything that was measured; a function of the JSON file alone."""
    machine, settings = result["machine"], result["settings"]
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] != 1)}"
    head = (
        f"{machine['cpu']}, {threads}, load {machine['load_at_start']} at the start; torch "
        f"{machine['versions']['torch']}, commit {machine['commit'] or 'unknown'}, seed {settings['seed']}. Histories "
        f"of {settings['median']:g} items in the median (log-normal, {settings['spread']:g}), items by Zipf's law "
        f"(exponent {settings['exponent']:g}). Limits of a stage: {settings['memory_gib']:g} GiB, "
        f"{settings['stage_seconds']:g} s."
        + (f" Settings: {', '.join(settings['settings'])}." if settings["settings"] else "")
    )
    models = dict.fromkeys(point["model"] for point in result["points"])
    parts = [_of_model(model, [p for p in result["points"] if p["model"] == model]) for model in models]
    return "\n\n".join([head, *parts])


def _of_model(model: str, points: list[dict[str, Any]]) -> str:
    points = sorted(points, key=lambda point: (point["users"], point["items"]))
    names = [*SIZES, "interactions", *STAGES]
    rows = [
        [*(f"{point[size]:,}" for size in (*SIZES, "interactions")), *(shown(point["stages"][s]) for s in STAGES)]
        for point in points
    ]
    growth = [
        [f"{size} ({other}: {fixed:,})", what, *(_figure(growth_of(line, size, stage, what)) for stage in STAGES)]
        for size, other in zip(SIZES, SIZES[::-1])
        for fixed in sorted({point[other] for point in points})
        if len(line := [point for point in points if point[other] == fixed]) > 1
        for what in ("seconds", "memory")
    ]
    text = f"### {model}\n\n{_table(names, rows)}"
    text += (
        "\n\nSeconds of processor time for the whole stage / peak memory. The first two are done whole, others in part."
    )
    if growth:
        text += "\n\n" + _table(["grows with", "of", *STAGES], growth)
        text += "\n\nExponents of a log-log fit: 1 is linear growth, 0 none. Memory is that beyond the libraries'."
    if computed := _computed(points):
        text += "\n\n" + computed
    return text


def _computed(points: list[dict[str, Any]]) -> str:
    """What :data:`TARGET` interactions would take, by the line through the two largest numbers of users."""
    items = min(point["items"] for point in points)
    line = sorted((point for point in points if point["items"] == items), key=lambda point: point["users"])[-2:]
    if len(line) < 2:
        return ""
    rows = []
    for stage in STAGES:
        seconds = continued([_size_and(point, stage, "seconds") for point in line], TARGET)
        memory = continued([_size_and(point, stage, "peak_mib") for point in line], TARGET)
        if seconds is not None and memory is not None:
            rows.append([stage, f"{seconds / 3600:.2g}", f"{memory / 1024:.3g}"])
    if not rows:
        return ""
    users = line[-1]["users"] * TARGET / line[-1]["interactions"]
    return (
        f"**Computed, not measured**: {TARGET:,} interactions of {users / 1e6:.2g} million users with {items:,} items, "
        "on the line through the two largest numbers of users above.\n\n"
        + _table(["stage", "hours of one core", "GiB of one process"], rows)
    )


def _size_and(point: dict[str, Any], stage: str, what: str) -> tuple[float, float] | None:
    record = point["stages"][stage]
    return (point["interactions"], record[what]) if _is_done(record) else None


def continued(points: Sequence[tuple[float, float] | None], size: float) -> float | None:
    """The value at some size on the straight line through two points, not below that of the last; None without both."""
    first, last = points
    if first is None or last is None:
        return None
    slope = (last[1] - first[1]) / (last[0] - first[0])
    return last[1] + max(slope, 0.0) * (size - last[0])


def shown(stage: dict[str, Any]) -> str:
    """Seconds and memory of a stage, or what became of it."""
    if stage.get("not_reached"):
        return "not reached"
    if stage.get("left_out"):
        return "not measured"
    size = f"{stage['peak_mib'] / 1024:.2f} GiB"
    if over := stage.get("over"):
        return f"over the limit of {over} ({stage['seconds']:,.0f} s, {size})"
    if "refused" in stage:
        return "refused"
    seconds = stage["seconds"]
    return f"{seconds:,.0f} s / {size}" if seconds >= 100 else f"{seconds:.3g} s / {size}"


def growth_of(points: Sequence[dict[str, Any]], size: str, stage: str, what: str) -> float | None:
    """Slope of a straight line through the points on logarithmic axes; None where fewer than two have a figure.

    Args:
        size: ``users`` or ``items``, by which the points differ.
        what: ``seconds`` or ``memory``, the latter without what the libraries take.
    """
    done = [(point[size], point["stages"][stage]) for point in points if _is_done(point["stages"][stage])]
    if len(done) < 2:
        return None
    libraries = min(point["stages"]["reading"].get("start_mib", 0.0) for point in points)
    values = [
        record["seconds"] if what == "seconds" else max(record["peak_mib"] - libraries, 1.0) for _, record in done
    ]
    return slope([float(number) for number, _ in done], values)


def _is_done(record: dict[str, Any]) -> bool:
    return not {"not_reached", "left_out", "over", "refused"} & record.keys()


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the least-squares line through logarithms."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / spread


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
