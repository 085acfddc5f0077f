"""
benchmarks.report.refine
########################
From the runs of :mod:`benchmarks.refine` to Markdown tables and a picture of validation with the refinements in it.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lib.runs import Result
from benchmarks.lib.significance import Comparison, compare, mean_over_seeds
from benchmarks.report.cells import four, head, line, same, seconds, spread
from benchmarks.report.rows import Row, mismatches, notes_on, rows, shown_name
from benchmarks.report.tables import epoch_seconds

OWN_START, REFINED = "TIGER", "SIIT-states"
ORDER = (OWN_START, "aligned", REFINED, "written", "random")
REFINING = ORDER[2:]

NOTES = f"""\
All runs have the same epochs and updates, and each is tested at the epoch that validated best. A gain is that of
{REFINED} over another row with the same tokenizer and seeds. The interval is a paired bootstrap over test users, each
with the mean over the seeds (and of the tokenizers, in the last lines): it does not hold what other seeds would have
given. A refinement is taken back where it costs more than `refine_tolerance` at once, and where no validation after
it reached the best before; the last one of a run may end unjudged. Different beginnings: first codes, first two and
so on, as shares of the items."""


class Gain(NamedTuple):
    """A row against another in NDCG@10, over common seeds."""

    valid: float  # relative, of the means
    test: float  # relative, of the means
    ours: np.ndarray  # of every test user [n]
    theirs: np.ndarray  # [n]

    @property
    def comparison(self) -> Comparison:
        return compare(self.ours, self.theirs)


def report(folder: Path) -> str:
    """The README of a folder.

    Raises:
        ValueError: no finished run.
    """
    found = ordered_rows(folder)
    card = found[0].results[0].content["card"]
    parts = [
        f"# {card['dataset']}: what improving identifiers is worth",
        accuracy(found),
        gains(found),
        NOTES,
        "## Refinements",
        refinements(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ordered_rows(folder: Path) -> list[Row]:
    """The finished rows by tokenizer, the kinds of each in their order.

    Raises:
        ValueError: no finished run.
    """
    return sorted(rows(folder), key=lambda row: (tokenizer(row), ORDER.index(kind(row))))


def tokenizer(row: Row) -> str:
    """The way to the initial identifiers."""
    return row.name.partition("-")[0]


def kind(row: Row) -> str:
    """Which of the runs."""
    return row.name.partition("-")[2]


def accuracy(found: list[Row]) -> str:
    """A line a row."""
    odd = mismatches(found)
    lines = head(
        "row",
        "method",
        "seeds",
        "valid NDCG@10",
        "valid HR@10",
        "test NDCG@10",
        "test HR@10",
        "best epoch",
        "epochs",
        "core-s an epoch",
    )
    for row in found:
        lines.append(
            line(
                shown_name(row, odd),
                row.method,
                len(row.results),
                *(
                    spread(row.metric(metric, part), bold=metric == "ndcg@10")
                    for part in ("best_valid_result", "test_result")
                    for metric in ("ndcg@10", "hit@10")
                ),
                same(row.values(lambda content: content["best_epoch"])),
                same(row.values(lambda content: content["epochs"])),
                seconds(row.timed.values(epoch_seconds)),
            )
        )
    lines += notes_on(odd, found[0])
    return "\n".join(lines)


def gains(found: list[Row]) -> str:
    """A line for each row that SIIT-states stands against, and means over tokenizers; empty where there is no pair."""
    by_name = {row.name: row for row in found}
    lines = head(f"gain of {REFINED}", "over", "seeds", "valid", "test", "test difference", "95 % interval")
    for other in (other for other in ORDER if other != REFINED):
        pairs = {
            name: gain
            for name in dict.fromkeys(map(tokenizer, found))
            if (gain := gain_of(by_name.get(f"{name}-{REFINED}"), by_name.get(f"{name}-{other}")))
        }
        for name, gain in pairs.items():
            seeds = len(common(by_name[f"{name}-{REFINED}"], by_name[f"{name}-{other}"]))
            lines.append(_gain_line(name, other, seeds, gain))
        if len(pairs) > 1:
            lines.append(_gain_line("mean over tokenizers", other, "", mean_gain(list(pairs.values()))))
    return "\n".join(lines) if len(lines) > 2 else ""


def gains_by_dataset(tables: dict[str, list[Row]]) -> str:
    """What SIIT-states gains over TIGER in the tables of accuracy, where both are there with a seed in common."""
    lines = head(f"gain of {REFINED}", "over", "seeds", "valid", "test", "test difference", "95 % interval")
    for dataset, found in tables.items():
        pair = [next((row for row in found if row.name == name), None) for name in (REFINED, OWN_START)]
        if gain := gain_of(*pair):
            lines.append(_gain_line(dataset, OWN_START, len(common(*pair)), gain))
    return "\n".join(lines)


def gain_of(row: Row | None, other: Row | None) -> Gain | None:
    """None where a row is missing or the two have no seed in common."""
    if row is None or other is None or not (pairs := common(row, other)):
        return None
    users = np.unique(pairs[0][0].ranks["user"])
    ours, theirs = (mean_over_seeds([result.ranks for result in results], users) for results in zip(*pairs))
    valid = [mean(result.content["best_valid_result"]["ndcg@10"] for result in results) for results in zip(*pairs)]
    return Gain(valid[0] / valid[1] - 1, ours.mean() / theirs.mean() - 1, ours, theirs)


def common(row: Row, other: Row) -> list[tuple[Result, Result]]:
    """The results of both, seed by seed."""
    theirs = {result.content["card"]["seed"]: result for result in other.results}
    return [(result, theirs[seed]) for result in row.results if (seed := result.content["card"]["seed"]) in theirs]


def mean_gain(found: Sequence[Gain]) -> Gain:
    """Over tokenizers: the mean of the relative gains, and of every user's values."""
    return Gain(*(np.mean(values, axis=0) for values in zip(*found)))


def _gain_line(name, other, seeds, gain):
    test = gain.comparison
    return line(
        name,
        other,
        seeds,
        f"{gain.valid:+.1%}",
        f"**{gain.test:+.1%}**",
        f"{test.difference:+.4f}",
        f"{test.low:+.4f} to {test.high:+.4f}",
    )


# refinements


def refinements(found: list[Row]) -> str:
    """A line a round, means over seeds; the identifiers that a row starts with come first."""
    lines = head(
        "row",
        "round",
        "before epoch",
        "seeds",
        "changed",
        "would change",
        "collisions",
        "codes in use by level",
        "different beginnings",
        "valid before",
        "at once",
        "valid after",
        "kept",
    )
    for row in found:
        if kind(row) not in REFINING:
            continue
        starts = row.values(lambda content: content["stages"]["identifiers"]["report"])
        lines.append(line(row.name, "start", "", len(starts), "", "", *_use(starts), "", "", "", ""))
        rounds = row.values(rounds_of)
        for number in range(max(map(len, rounds))):
            lines.append(_round_line(row.name, number + 1, [each[number] for each in rounds if number < len(each)]))
    return "\n".join(lines)


def rounds_of(content: dict) -> list[dict[str, Any]]:
    """The refinements of a run with the best validation before and after each, also of one that was not judged."""
    found = []
    for refinement in content["refinements"]:
        before, after = (
            [point["score"] for point in content["curve"] if (point["epoch"] >= refinement["epoch"]) == later]
            for later in (False, True)
        )
        found.append(
            {
                "valid_before": max(before, default=None),
                "valid_after": max(after, default=None),
                "kept": None,
                **refinement,
            }
        )
    return found


def _round_line(name, number, records):
    kept = ["failed" if "failed" in record else record["kept"] for record in records]
    verdicts = [
        f"{kept.count(verdict)} {word}"
        for verdict, word in ((True, "kept"), (False, "taken back"), (None, "unjudged"), ("failed", "failed"))
        if verdict in kept
    ]
    records = [record for record in records if "failed" not in record] or records
    return line(
        name,
        number,
        same([record["epoch"] for record in records]),
        len(records),
        *(
            f"{value:.1%}" if (value := _mean(records, key)) is not None else ""
            for key in ("share_changed", "share_wanting_change")
        ),
        *_use(records),
        *(
            four(value) if (value := _mean(records, key)) is not None else ""
            for key in ("valid_before", "valid_at_once", "valid_after")
        ),
        ", ".join(verdicts),
    )


def _use(records):
    """Collisions, and at every level the share of codes in use, and of different beginnings among the items."""
    used, begun = (
        ", ".join(f"{share:.2f}" for share in np.mean([record[key] for record in records], axis=0))
        if all(key in record for record in records)
        else ""
        for key in ("codes_in_use", "beginnings")
    )
    return f"{_mean(records, 'collisions'):.1%}", used, begun


def _mean(records, key):
    values = [record.get(key) for record in records]
    return None if None in values else mean(values)


# picture


def draw(folder: Path) -> Path:
    """Validation by epoch, a panel a tokenizer; ``refine.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = ordered_rows(folder)
    tokenizers = list(dict.fromkeys(map(tokenizer, found)))
    figure, panels = pyplot.subplots(
        1, len(tokenizers), figsize=(1.5 + 5 * len(tokenizers), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for name, axes in zip(tokenizers, panels[0]):
        _draw_panel(axes, [row for row in found if tokenizer(row) == name])
        axes.set(title=f"identifiers: {name}", xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    marks = [
        axes.plot([], [], marker, color="black", ms=8, ls="", label=label)[0]
        for marker, label in (("|", "refined"), ("x", "taken back"))
    ]
    entries = {label: line for axes in panels[0] for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(
        [*(entries[label] for label in ORDER if label in entries), *marks],
        [*(label for label in ORDER if label in entries), "refined", "refined, taken back"],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    card = found[0].results[0].content["card"]
    panels[0][0].set_ylabel(f"{card['valid_metric']} on validation")
    figure.suptitle(
        f"{card['dataset']}: validation while identifiers are improved (thick: mean over seeds)", fontsize=10
    )
    figure.savefig(folder / "refine.png", dpi=120)
    pyplot.close(figure)
    return folder / "refine.png"


def _draw_panel(axes, found):
    for row in found:
        color = f"C{ORDER.index(kind(row))}"
        curves = row.values(lambda content: [(point["epoch"], point["score"]) for point in content["curve"]])
        for curve, content in zip(curves, row.values(lambda content: content)):
            epochs, scores = zip(*curve)
            axes.plot(epochs, scores, color=color, lw=0.7, alpha=0.5)
            for refinement in content["refinements"]:
                place = refinement["epoch"] - (
                    0.6 if kind(row) == REFINED else 0.4
                )  # between two validations, side by side
                back = refinement.get("kept") is False
                axes.plot(
                    place,
                    np.interp(place, epochs, scores),
                    "x" if back else "|",
                    color=color,
                    ms=7 if back else 12,
                    mew=1.6,
                )
        shared = sorted(set.intersection(*({epoch for epoch, _ in curve} for curve in curves)))
        axes.plot(
            shared,
            [mean(dict(curve)[epoch] for curve in curves) for epoch in shared],
            color=color,
            lw=1.8,
            label=kind(row),
        )
