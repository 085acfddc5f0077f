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
    return text


def shown(stage: dict[str, Any]) -> str:
    """Seconds and memory of a stage, or what became of it."""
    if stage.get("not_reached"):
        return "not reached"
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
    done = [
        (point[size], point["stages"][stage])
        for point in points
        if not {"not_reached", "over", "refused"} & point["stages"][stage].keys()
    ]
    if len(done) < 2:
        return None
    libraries = min(point["stages"]["reading"].get("start_mib", 0.0) for point in points)
    values = [
        record["seconds"] if what == "seconds" else max(record["peak_mib"] - libraries, 1.0) for _, record in done
    ]
    return slope([float(number) for number, _ in done], values)


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
