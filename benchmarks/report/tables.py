"""
benchmarks.report.tables
########################
From result files to Markdown: the table of one folder, its paired tests, and what its cards do not share.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.lib.significance import compare_all, holm, mean_over_seeds
from benchmarks.report.cells import four, head, line, same, seconds, spread
from benchmarks.report.rows import (
    Row,
    has_fitted_bias,
    is_baseline,
    is_recbole,
    masked_alone,
    mismatches,
    notes_on,
    odd_beside_masking,
    rows,
    shown_name,
)

FIRST_METRICS = ("ndcg@10", "hit@10", "mrr@10")
FURTHER_METRICS = ("ndcg@5", "hit@5", "mrr@5", "ndcg@20", "hit@20", "mrr@20")
METRICS = FIRST_METRICS + FURTHER_METRICS

# What lists of ten are like: shares first.
SHARES = ("itemcoverage", "giniindex", "tailpercentage", "diversity")
BEYOND = {
    "itemcoverage": "coverage@10",
    "giniindex": "Gini@10",
    "tailpercentage": "tail share@10",
    "diversity": "diversity@10",
    "averagepopularity": "average popularity@10",
    "novelty": "novelty@10, bits",
}
BEYOND_NOTE = (
    "Coverage, Gini index, average popularity and tail share as RecBole has them; novelty is the mean of -log2 p, the "
    "share of an item among training interactions; diversity is 1 minus the mean cosine of two items of a list."
)

MASKED_ALONE = "‡"
MASKED_NOTE = (
    f"\n{MASKED_ALONE} ranks no item of the history, as RecBole has it for general models: compare with "
    "others where seen items are masked"
)

GOAL = "SASRec"  # the model whose best validation score, of its worst seed, every other one has to reach

FIRST_TRIED = (
    "ContRec",
    "DeftRec",
    "TokenRec",
    "TIGER",
    "SIIT",
    "SIIT-states",
    "SASRecAll-texts",
    "SASRecAll-svd",
    "SASRec",
)


def best_baseline(table: list[Row], counts: Callable[[Row], bool] = is_baseline) -> Row | None:
    """The baseline with the highest validation score, among those measured like the first row.

    Args:
        counts: which rows are baselines.
    """
    odd = mismatches(table)
    return next((row for row in table if counts(row) and row.name not in odd), None)


def accuracy_table(table: list[Row]) -> str:
    """Accuracy of every row: mean and deviation over seeds, metrics at 10 first, those at 5 and 20 in a table of their
    own. A row that leaves seen items out, alone among others, has the last column of the first table only."""
    odd, alone = odd_beside_masking(table), masked_alone(table)
    names = {row.name: shown_name(row, odd) + (f" {MASKED_ALONE}" if row.name in alone else "") for row in table}
    titles = ("model", "method", "seeds", "L", "valid NDCG@10", *map(metric_title, FIRST_METRICS))
    lines = head(*titles, "NDCG@10 / HR@10, seen masked")
    for row in table:
        lines.append(
            line(
                names[row.name],
                row.method,
                len(row.results),
                same(row.values(history_read)),
                *([""] * (1 + len(FIRST_METRICS)) if row.name in alone else _ranked_cells(row)),
                " / ".join(
                    four(mean(row.metric(metric, "test_result_seen_masked"))) for metric in ("ndcg@10", "hit@10")
                ),
            )
        )
    lines += ["", *head("model", *map(metric_title, FURTHER_METRICS))]
    for row in table:
        if row.name not in alone:
            lines.append(line(names[row.name], *(spread(row.metric(metric)) for metric in FURTHER_METRICS)))
    lines += notes_on(odd, table[0])
    return "\n".join(lines + [MASKED_NOTE] * bool(alone))


def durations_table(tables: dict[str, list[Row]]) -> str:
    """Minutes of a whole run, training and test, of the models that people try first; tables by name of the data set.

    Means over the seeds that ran on the device of the first one. SASRec stands for RecBole's own models."""
    lines = head("model", *tables)
    found = [{row.name: row.timed for row in table} for table in tables.values()]
    for name in FIRST_TRIED:
        lines.append(line(name, *(_minutes(rows_of.get(name)) for rows_of in found)))
    return "\n".join(lines)


def cost_table(table: list[Row]) -> str:
    """Time and memory of every row, means over the seeds that ran on the device of the first one; core-seconds are
    processor time of training and validation."""
    goal = min(
        (result.content["best_valid_score"] for row in table if row.name == GOAL for result in row.results),
        default=None,
    )
    alone = masked_alone(table)
    reaching = [f"core-s to {GOAL}'s best, {four(goal)}"] if goal else []
    lines = head(
        "model",
        "method",
        "core-s an epoch",
        "core-s to best epoch",
        *reaching,
        "epochs",
        "s a run",
        "test users/s",
        "peak MiB",
        "parameters",
        "device",
        "commit",
    )
    for whole in table:
        row = whole.timed
        card, part = row.values(lambda content: content["card"]), len(row.results) < len(whole.results)
        reached = [_reached(row, None if row.name in alone else goal)] if goal else []
        lines.append(
            line(
                row.name,
                row.method,
                seconds(row.values(epoch_seconds)),
                seconds(row.values(seconds_to_best)),
                *reached,
                same(row.values(lambda content: content["epochs"])),
                seconds(row.values(lambda content: content["seconds"]["training"])),
                f"{mean([c['test_users_per_second'] for c in card]):,.0f}",
                f"{max(c['peak_memory_mib'] for c in card):,}",
                f"{card[0]['parameters']:,}",
                card[0]["device"] + (f" ({len(row.results)} of {len(whole.results)} runs)" if part else ""),
                same([c["commit"] for c in card]),
            )
        )
    return "\n".join(lines)


def test_table(table: list[Row], k: int = 10, counts: Callable[[Row], bool] = is_baseline) -> str:
    """Every other row that was measured alike against the best baseline, user by user; ``counts`` says which rows are
    baselines."""
    baseline, odd = best_baseline(table, counts), mismatches(table)
    others = [row for row in table if row is not baseline and row.name not in odd]
    if baseline is None or not others:
        return ""
    users = np.unique(baseline.results[0].ranks["user"])
    reference = mean_over_seeds([result.ranks for result in baseline.results], users, k)
    compared = compare_all(
        [mean_over_seeds([result.ranks for result in row.results], users, k) for row in others], reference
    )
    lines = head(f"against {baseline.name}", f"NDCG@{k} difference", "95 % interval", "relative", "p (Wilcoxon, Holm)")
    for row, found, p_value in zip(others, compared, holm([found.p_value for found in compared])):
        lines.append(
            line(
                row.shown,
                f"{found.difference:+.4f}",
                f"{found.low:+.4f} to {found.high:+.4f}",
                f"{found.difference / reference.mean():+.1%}" if reference.any() else "-",
                f"{p_value:.2g}",
            )
        )
    note = several_targets_note(baseline)
    return "\n".join([*lines, f"\n{note}"] if note else lines)


def several_targets_note(row: Row) -> str:
    """Why differences between users are not those of the metrics, where a split gives a user several targets; else
    empty."""
    users = row.results[0].ranks["user"]
    if len(np.unique(users)) == len(users):
        return ""
    return (
        "Users have several targets. Here every user counts once, with the mean over the own targets; the metrics of a "
        "model are means over all targets, so their differences are others."
    )


def beyond_table(table: list[Row]) -> str:
    """What the first ten items of the rankings are like, means over seeds; a dash where a run of an earlier version
    does not tell."""
    lines = head("model", *BEYOND.values())
    for row in table:
        found = [beyond(content) for content in row.values(lambda content: content)]
        cells = [spread([own[metric] for own in found]) if all(found) else "-" for metric in BEYOND if metric in SHARES]
        cells += [_two(found, metric) for metric in BEYOND if metric not in SHARES]
        lines.append(line(row.name, *cells))
    return "\n".join([*lines, f"\n{beyond_note(table)}"])


def beyond(content: dict) -> dict[str, float]:
    """Metrics of lists that a result holds; empty for one of an earlier version."""
    return (content.get("test_lists") or {}).get("beyond") or {}


def beyond_note(table: list[Row]) -> str:
    """What the metrics of lists are."""
    vectors = {
        card["diversity_vectors"]
        for row in table
        for card in row.values(lambda content: content["card"])
        if "diversity_vectors" in card
    }
    return f"{BEYOND_NOTE}{f' Vectors: {same(sorted(vectors))}.' if vectors else ''}"


def _two(found: list[dict[str, float]], metric: str) -> str:
    return f"{mean(own[metric] for own in found):.2f}" if all(found) else "-"


def codes_table(table: list[Row]) -> str:
    """Health of the tokenizers with codebooks, the worst of all seeds and codebooks; rows with the very tokenizers of
    an earlier row are left out."""
    lines = head(
        "model",
        "tokens of",
        "seeds",
        "rows",
        "codebooks",
        "in use, lowest",
        "perplexity, lowest",
        "share a tuple, nearest codes",
        "as used",
        "unexplained, held out",
        "neighbours kept",
    )
    shown = []
    for row in table:
        for stage in row.results[0].content["stages"]:
            reports = row.values(lambda content, stage=stage: content["stages"].get(stage, {}).get("report", {}))
            if all(report in shown or "collisions_left" not in report for report in reports):
                continue
            shown += reports
            first, of_all = reports[0], {key: [report[key] for report in reports] for key in reports[0]}
            lines.append(
                line(
                    row.name,
                    stage.removesuffix(" tokenizer") + "s",
                    len(reports),
                    first["rows"],
                    f"{len(first['perplexity'])} of {first['codebook_size']}",
                    *(four(min(map(min, of_all[key]))) for key in ("codes_in_use", "perplexity")),
                    *(f"{max(of_all[key]):.1%}" for key in ("collisions", "collisions_left")),
                    *(four(mean(of_all[key])) for key in ("unexplained_held_out", "neighbour_overlap")),
                )
            )
    return "\n".join(lines)


def seconds_to_best(content: dict) -> float | None:
    """Core-seconds until the best epoch was over, the stages before training included; None for RecBole's own training
    loops. What comes later is left out: further epochs, and the validations that choose the weight of similar texts."""
    return next(
        (
            stage_seconds(content) + point["core_seconds"]
            for point in content["curve"]
            if point["epoch"] == content["best_epoch"]
        ),
        None,
    )


def seconds_to_reach(content: dict, score: float) -> float | None:
    """Core-seconds until validation first gave ``score``, the stages before training included; None if it never did, or
    if a repeat bias came after all these validations."""
    if has_fitted_bias(content):
        return None
    return next(
        (stage_seconds(content) + point["core_seconds"] for point in content["curve"] if point["score"] >= score), None
    )


def report(folder: Path, names: Iterable[str] | None = None) -> str:
    """All tables of a folder.

    Raises:
        ValueError: there is no finished run.
    """
    table = rows(folder, names)
    tests = [test_table(table)]
    if best_baseline(table) is not best_baseline(table, is_recbole):  # else the two would be one
        tests.append(test_table(table, counts=is_recbole))
    parts = [split_line(table), accuracy_table(table), *tests, cost_table(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def split_line(table: list[Row]) -> str:
    """How the rows that compare were split, where that is not leave-one-out, and what training knows little about."""
    card = table[0].results[0].content["card"]
    if not card.get("split") or "LS" in card["split"] or "files" in card["split"]:
        return ""
    [(name, values)] = card["split"].items()
    by = f", group_by {card['group_by']}" if card.get("group_by") else ""
    parts = [
        f"{title}: {facts['targets']:,} targets, {facts['cold_items']:,} of cold items, {facts['cold_users']:,} of "
        "cold users"
        for part, title in (("valid", "validation"), ("test", "test"))
        if (facts := (card.get("held_out") or {}).get(part))
    ]
    return "; ".join([f"Split {name} {', '.join(f'{value:.9g}' for value in values)}{by}", *parts]) + "."


def stage_seconds(content: dict) -> float:
    """Seconds of vectors and tokenizers, which use one core."""
    return sum(stage["seconds"] for stage in content["stages"].values())


def epoch_seconds(content: dict) -> float | None:
    """Core-seconds of an epoch with its validation; None for RecBole's own training loops."""
    curve = content["curve"]
    return curve[-1]["core_seconds"] / (curve[-1]["epoch"] + 1) if curve else None  # not every epoch need be validated


def metric_title(metric):
    return metric.upper().replace("HIT", "HR")


def _ranked_cells(row):
    best, *others = FIRST_METRICS
    return four(row.validation), spread(row.metric(best), bold=True), *(spread(row.metric(m)) for m in others)


def _reached(row, goal):
    """Core-seconds until a validation score; nothing where there is none to compare with."""
    return "" if goal is None else seconds(row.values(lambda content: seconds_to_reach(content, goal)))


def _minutes(row):
    if row is None:
        return ""
    seconds_of_run = row.values(lambda content: content["seconds"]["training"] + content["seconds"]["test"])
    return f"{mean(seconds_of_run) / 60:.0f}{row.clock}"


def history_read(content):
    """Items that a model reads of a history, at most; marked where its prompt has no room for so many."""
    card = content["card"]
    return f"{card['max_history']}, cut" if card.get("histories_cut_to") else card["max_history"] or "all"
