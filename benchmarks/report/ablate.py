"""
benchmarks.report.ablate
########################
From the runs of :mod:`benchmarks.ablate` to a Markdown table and a picture of the differences.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np

from benchmarks.lib.significance import Comparison, compare, mean_over_seeds
from benchmarks.report.cells import four, head, line, same, seconds, spread
from benchmarks.report.rows import Row, mismatches, notes_on, rows, shown_name
from benchmarks.report.tables import epoch_seconds

NOTES = """Differences are to the first row, over the seeds that both have. The interval is a paired bootstrap over
test users, each with the mean over the seeds: it does not hold what other seeds would have given, nor is it
corrected for the number of rows. Core-seconds are processor time of training and validation."""


class Difference(NamedTuple):
    """A variant minus the shipped settings in NDCG@10, over common seeds."""

    valid: float
    test: Comparison


def report(folder: Path, variants: Sequence) -> str:
    """The README of a folder.

    Raises:
        ValueError: no finished run, or none of the first variant.
    """
    found = ordered_rows(folder, variants)
    card = found[0].results[0].content["card"]
    meanings = {variant.name: variant.meaning for variant in variants}
    return f"# {card['dataset']}: what each part is worth\n\n{table(found, meanings)}\n\n{NOTES}\n"


def ordered_rows(folder: Path, variants: Sequence) -> list[Row]:
    """The finished rows in the order of the variants.

    Raises:
        ValueError: no finished run, or none of the first variant.
    """
    found = {row.name: row for row in rows(folder)}
    if variants[0].name not in found:
        raise ValueError(f"{folder} holds no finished run of {variants[0].name}, which all others are compared with")
    return [found[variant.name] for variant in variants if variant.name in found]


def table(found: list[Row], meanings: dict[str, str]) -> str:
    """A line a variant; the first is what the others are compared with."""
    shipped, odd = found[0], mismatches(found)
    lines = head(
        "variant",
        "meaning",
        "seeds",
        "valid NDCG@10",
        "difference",
        "test NDCG@10",
        "difference",
        "95 % interval",
        "core-s an epoch",
    )
    for row in found:
        change = None if row is shipped else difference(row, shipped)
        lines.append(
            line(
                shown_name(row, odd),
                meanings[row.name],
                len(row.results),
                spread(row.metric("ndcg@10", "best_valid_result"), bold=True),
                f"{change.valid:+.4f}" if change else "",
                four(mean(row.metric("ndcg@10"))),
                *(
                    (f"{change.test.difference:+.4f}", f"{change.test.low:+.4f} to {change.test.high:+.4f}")
                    if change
                    else ("", "")
                ),
                seconds(row.values(epoch_seconds)),
            )
        )
    if shipped.method:
        others = [row for row in found if row is shipped or row.method not in ("", shipped.method)]
        lines.append(f"\nMethod of {'; of '.join(f'{row.name}: {row.method}' for row in others)}.")
    lines += notes_on(odd, shipped)
    return "\n".join(lines)


def difference(row: Row, shipped: Row) -> Difference | None:
    """How far a variant lies above the shipped settings; None where they have no seed in common."""
    ours, theirs = ({result.content["card"]["seed"]: result for result in each.results} for each in (row, shipped))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    valid = mean(_valid(ours[seed]) - _valid(theirs[seed]) for seed in seeds)
    users = np.unique(theirs[seeds[0]].ranks["user"])
    means = [mean_over_seeds([results[seed].ranks for seed in seeds], users) for results in (ours, theirs)]
    return Difference(valid, compare(*means))


def draw(folder: Path, variants: Sequence) -> Path:
    """Horizontal bars of the differences on validation, with those on test and their intervals; ``ablation.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shipped, *others = ordered_rows(folder, variants)
    changes = {row.name: change for row in others if (change := difference(row, shipped))}
    figure, axes = pyplot.subplots(figsize=(7, 1.6 + 0.28 * len(changes)), layout="constrained")
    _draw_bars(axes, changes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    counts, card = [len(row.results) for row in others if row.name in changes], shipped.results[0].content["card"]
    axes.set_xlabel("NDCG@10 minus that of the shipped settings")
    axes.set_title(
        f"{card['dataset']}: what each part is worth ({same(counts)} seed{'s' * (max(counts) > 1)})", fontsize=10
    )
    figure.savefig(folder / "ablation.png", dpi=120)
    pyplot.close(figure)
    return folder / "ablation.png"


def _draw_bars(axes, changes: dict[str, Difference]):
    valid, test = [change.valid for change in changes.values()], [change.test for change in changes.values()]
    colors = ["tab:red" if value < 0 else "tab:blue" for value in valid]
    axes.barh(range(len(changes)), valid, color=colors, alpha=0.6, label="validation")
    margins = [[found.difference - found.low for found in test], [found.high - found.difference for found in test]]
    axes.errorbar(
        [found.difference for found in test],
        range(len(changes)),
        xerr=margins,
        fmt="ko",
        ms=3,
        lw=1,
        label="test, 95 % interval over users",
    )
    axes.set_yticks(range(len(changes)), changes)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _valid(result):
    return result.content["best_valid_result"]["ndcg@10"]
