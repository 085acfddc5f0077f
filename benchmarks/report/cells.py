"""
benchmarks.report.cells
#######################
Cells and lines of Markdown tables.
"""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any


def head(*columns: Any) -> list[str]:
    """The first two lines of a table."""
    return [line(*columns), line(*["---"] * len(columns))]


def line(*cells: Any) -> str:
    """One line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def four(value: float) -> str:
    """A share with four digits, without the zero before the point."""
    return f"{value:.4f}".removeprefix("0")


def spread(values: Sequence[float], bold: bool = False) -> str:
    """Mean and standard deviation of some shares; of one, the value."""
    shown = f"**{four(mean(values))}**" if bold else four(mean(values))
    return f"{shown} ± {four(stdev(values))}" if len(values) > 1 else shown


def same(values: Sequence[Any]) -> str:
    """The value that all have, the range of several numbers, or a list."""
    distinct = sorted(set(values), key=str)
    if all(isinstance(value, (int, float)) for value in distinct) and len(distinct) > 1:
        return f"{min(distinct)} to {max(distinct)}"
    return ", ".join(map(str, distinct))


def seconds(values: Sequence[float | None]) -> str:
    """Mean of some seconds; nothing where one of them is unknown."""
    if None in values:
        return ""
    return f"{mean(values):,.0f}" if mean(values) >= 100 else f"{mean(values):.1f}"
