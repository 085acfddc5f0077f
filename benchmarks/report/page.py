"""
benchmarks.report.page
######################
``report.html`` of a folder of results: tables that a click sorts, pictures that can be enlarged, and the protocol cards
side by side, in one file that needs no network.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from benchmarks.lib.significance import Comparison, compare_all, holm, interval_over_seeds, mean_over_seeds
from benchmarks.report import figures
from benchmarks.report.cells import four, same, spread
from benchmarks.report.groups import LACKING, OfGroup, of_groups
from benchmarks.report.groups import NOTE as GROUPS_NOTE
from benchmarks.report.rows import SHARED, Row, masked_alone, mismatches, odd_beside_masking, shown_name
from benchmarks.report.tables import (
    BEYOND,
    MASKED_ALONE,
    MASKED_NOTE,
    SHARES,
    best_baseline,
    beyond,
    beyond_note,
    epoch_seconds,
    history_read,
    seconds_to_best,
    several_targets_note,
)
from recbole_contrec.files import write_whole
from recbole_contrec.report_page import Cell, Section, cell, page, paragraph, picture
from recbole_contrec.report_page import table as html_table

REPORT = "report.html"
DIFFERS = "≠"
NO_CARD = ("differs_from_the_paper", "metrics", "topk", "data_notes")  # long, and no reason why numbers differ
CURVES = (
    "One line a seed. The large mark is the epoch that was tested. Only RecBole's models with a training loop of their "
    "own have no line. A click on a name hides its lines or brings them back."
)
COSTS = (
    "Bars are 95 % intervals over seeds (Student's t), for rows with several seeds. Seconds are those of one device; "
    "core-seconds are processor time of training and validation, so on a GPU they say little."
)


class Against(NamedTuple):
    """A row against a baseline, over test users.

    Attributes:
        row: of the table.
        differences: in NDCG@10, every user [n] with the mean over seeds.
        comparison: paired test.
        p_value: of it, corrected for the number of rows.
    """

    row: Row
    differences: np.ndarray
    comparison: Comparison
    p_value: float


def write_page(folder: Path, table: Sequence[Row]) -> Path:
    """Write ``report.html`` into a folder, from its rows.

    Returns:
        Path: the file.
    """
    path = folder / REPORT
    text = compare_page(list(table))
    write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return path


def compare_page(table: list[Row]) -> str:
    """The whole page."""
    alone = masked_alone(table)
    ranked = [row for row in table if row.name not in alone]
    card = table[0].results[0].content["card"]
    curves = figures.training_curves(ranked)
    sections = [
        Section("Models", models(table) + _notes(table)),
        Section(
            "Accuracy against cost",
            picture(figures.accuracy_against_cost(ranked), len(ranked)) + paragraph(COSTS),
        ),
        Section("Validation by epoch", picture(curves, _entries(curves)) + paragraph(CURVES) if curves else ""),
        _user_by_user(table),
        Section("By group of users and items", by_group(table)),
        Section("Beyond accuracy", beyond_accuracy(table)),
        Section("What some users get", example_users(table)),
        Section("Protocol cards", cards(table)),
    ]
    return page(f"{card['dataset']}: {len(table)} models", sections, paragraph(_about(card)))


def models(table: list[Row]) -> str:
    """One line a row: accuracy with intervals over seeds, and cost."""
    odd, alone = odd_beside_masking(table), masked_alone(table)
    columns = [
        "model",
        "method",
        "seeds",
        "L",
        "valid NDCG@10",
        "NDCG@10",
        "95 % interval over seeds",
        "HR@10",
        "MRR@10",
        "NDCG@10, seen masked",
        "HR@10, seen masked",
        "best epoch",
        "core-s an epoch",
        "core-s to best epoch",
        "s of training",
        "test users/s",
        "peak MiB",
        "parameters",
        "device",
    ]
    return html_table(columns, [_model(row, shown_name(row, odd), row.name in alone) for row in table])


def _model(row: Row, name: str, alone: bool) -> list[Cell]:
    timed = row.timed
    found = timed.values(lambda content: content["card"])
    nothing = [Cell("")] * 5
    return [
        cell(f"{name} {MASKED_ALONE}" if alone else name),
        cell(row.method)._replace(kind="text"),
        cell(len(row.results)),
        cell(same(row.values(history_read))),
        *(nothing if alone else _ranked(row)),
        *(_shares(row.metric(metric, "test_result_seen_masked")) for metric in ("ndcg@10", "hit@10")),
        _mean(row.values(lambda content: content["best_epoch"])),
        *(_mean(timed.values(value)) for value in (epoch_seconds, seconds_to_best)),
        _mean(timed.values(lambda content: content["seconds"]["training"])),
        *(_mean([card[fact] for card in found]) for fact in ("test_users_per_second", "peak_memory_mib", "parameters")),
        cell(found[0]["device"]),
    ]


def _ranked(row: Row) -> list[Cell]:
    scores = row.metric("ndcg@10")
    interval = interval_over_seeds(scores)
    return [
        cell(row.validation, four(row.validation)),
        cell(mean(scores), spread(scores)),
        cell(interval[0], f"{four(interval[0])} to {four(interval[1])}") if interval else Cell("one seed"),
        *(_shares(row.metric(metric)) for metric in ("hit@10", "mrr@10")),
    ]


def _shares(values: Sequence[float]) -> Cell:
    return cell(mean(values), spread(values))


def _mean(values: Sequence[float | None]) -> Cell:
    if None in values:
        return Cell("")
    found = mean(values)
    return cell(found, f"{found:,.0f}" if found >= 100 or found == int(found) else f"{found:.1f}")


def against_best(table: list[Row]) -> tuple[Row, np.ndarray, list[Against]] | None:
    """Every other row that was measured alike against the best baseline; None where there is none, or nothing to
    compare.

    Returns:
        tuple: the baseline, its NDCG@10 of every user [n], and the others.
    """
    baseline, odd = best_baseline(table), mismatches(table)
    others = [row for row in table if row is not baseline and row.name not in odd]
    if baseline is None or not others:
        return None
    users = np.unique(baseline.results[0].ranks["user"])
    reference, *found = (mean_over_seeds([each.ranks for each in row.results], users) for row in (baseline, *others))
    compared = compare_all(found, reference)
    p_values = holm([comparison.p_value for comparison in compared])
    return baseline, reference, [*map(Against, others, (own - reference for own in found), compared, p_values)]


def _user_by_user(table: list[Row]) -> Section:
    if not all(result.ranks for row in table for result in row.results) or not (found := against_best(table)):
        return Section("User by user", "")
    baseline, reference, others = found
    columns = ["model", "NDCG@10 difference", "95 % interval", "relative", "p (Wilcoxon, Holm)"]
    lines = [
        [
            cell(each.row.name),
            cell(each.comparison.difference, f"{each.comparison.difference:+.4f}"),
            cell(each.comparison.low, f"{each.comparison.low:+.4f} to {each.comparison.high:+.4f}"),
            _percent(each.comparison.difference / reference.mean() if reference.any() else None, "+.1%"),
            cell(each.p_value, f"{each.p_value:.2g}"),
            *(
                _percent(float(part.mean()), ".1%")
                for part in (each.differences > 0, each.differences == 0, each.differences < 0)
            ),
        ]
        for each in others
    ]
    drawn = figures.differences(
        [each.row.name for each in others], [each.differences for each in others], baseline.name
    )
    text = (
        f"Against {baseline.name}, the baseline that validates best. Every line has all {len(reference):,} test users, "
        "each with the mean over seeds, in order of their own difference. Intervals are a paired bootstrap over users. "
        f"{several_targets_note(baseline)}"
    )
    return Section(
        "User by user",
        picture(drawn, len(others))
        + paragraph(text)
        + html_table([*columns, "users with more", "the same", "less"], lines),
    )


def by_group(table: list[Row]) -> str:
    """Accuracy by group of targets, and differences to the best baseline."""
    rows, groups = of_groups(table)
    if not rows:
        return paragraph(LACKING)
    names = [row.name for row in rows]
    drawn = figures.by_group(
        names,
        [f"{group.short} ({group.users:,})" for group in groups],
        [[group.ndcg[place] for group in groups] for place in range(len(rows))],
    )
    heads = [f"{group.name}, {group.users:,} users" for group in groups]
    values = [
        [
            cell(row.name),
            *(cell(group.ndcg[place], f"{four(group.ndcg[place])} / {four(group.hit[place])}") for group in groups),
        ]
        for place, row in enumerate(rows)
    ]
    text = picture(drawn, len(rows)) + html_table(["model", *heads], values)
    baseline = best_baseline(rows)
    others = [place for place, row in enumerate(rows) if row is not baseline]
    if baseline is not None and others:
        against = [[cell(rows[place].name), *(_against_cell(group, place) for group in groups)] for place in others]
        text += paragraph(f"NDCG@10 against {baseline.name}; underlined where the interval does not hold 0:")
        text += html_table(["model", *heads], against)
    left_out = [row.name for row in table if row.name not in names]
    return text + paragraph(" ".join([GROUPS_NOTE, f"Not here: {', '.join(left_out)}." if left_out else ""]))


def _against_cell(group: OfGroup, place: int) -> Cell:
    found = group.against[place]
    if found is None:
        return Cell("-")
    shown = cell(found.difference, f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})")
    return shown._replace(kind="differs") if found.low > 0 or found.high < 0 else shown


def beyond_accuracy(table: list[Row]) -> str:
    """Coverage, popularity, novelty and diversity; empty where no row tells."""
    if not any(beyond(content) for row in table for content in row.values(lambda content: content)):
        return ""
    lines = []
    for row in table:
        found = row.values(beyond)
        lines.append([cell(row.name), *(_of_lists(found, metric) for metric in BEYOND)])
    return html_table(["model", *BEYOND.values()], lines) + paragraph(beyond_note(table))


def _of_lists(found: list[dict[str, float]], metric: str) -> Cell:
    if not all(found):
        return Cell("-")
    values = [own[metric] for own in found]
    return _shares(values) if metric in SHARES else cell(mean(values), f"{mean(values):.2f}")


def example_users(table: list[Row]) -> str:
    """For a few users, the same for all rows: the end of the history, the target, and the list of every row by its
    first seed; empty where no row tells."""
    lists = {row.name: row.values(lambda content: content.get("test_lists"))[0] for row in table}
    known = {name: found["examples"] for name, found in lists.items() if found}
    if not known:
        return ""
    titles = {item: title for found in known.values() for item, title in found["titles"].items()}
    first = next(iter(known.values()))["users"]
    parts = [
        _example(user, {name: _of_user(found["users"], user) for name, found in known.items()}, titles)
        for user in first
    ]
    text = (
        f"{len(parts)} test users, drawn at random, the same for every model; lists of its first seed. ✓ marks the "
        "target."
    )
    if any("answer" in user for found in known.values() for user in found["users"]):
        text += " Models that answer in words have their answer below their list."
    return paragraph(text) + "".join(parts)


def _of_user(users: list[dict[str, Any]], wanted: dict[str, Any]) -> dict[str, Any]:
    """What another row has about a user; nothing where that has another target, or another user."""
    return next((own for own in users if (own["user"], own["target"]) == (wanted["user"], wanted["target"])), {})


def _example(user: dict[str, Any], of_rows: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    """Markup of one user: closed until the reader opens it."""
    lists = {name: found.get("top", []) for name, found in of_rows.items()}

    def shown(item: str) -> str:
        return titles.get(item) or item

    target, names = user["target"], [name for name, found in lists.items() if found]
    hits = sum(target in lists[name] for name in names)
    longest = max((len(lists[name]) for name in names), default=0)
    lines = [
        [Cell(str(place + 1)), *(_listed(lists[name][place : place + 1], target, shown) for name in names)]
        for place in range(longest)
    ]
    if any("answer" in of_rows[name] for name in names):
        answers = (of_rows[name].get("answer", "") for name in names)
        lines.append([Cell("in words"), *(Cell(answer, None, "text") for answer in answers)])
    summary = f"User {user['user']}: target {shown(target)}, in {hits} of {len(names)} lists"
    history = f"History, the latest last: {'; '.join(map(shown, user['history']))}"
    return (
        f"<details><summary>{escape(summary)}</summary>{paragraph(history)}"
        f"{html_table(['', *names], lines, sortable=False)}</details>"
    )


def _listed(item: list[str], target: str, shown: Callable[[str], str]) -> Cell:
    """The item at a place of a list, where there is one."""
    if not item:
        return Cell("")
    return Cell(f"✓ {shown(target)}", None, "text differs") if item == [target] else Cell(shown(*item), None, "text")


def _percent(value: float | None, form: str) -> Cell:
    return Cell("") if value is None else cell(value, format(value, form))


def cards(table: list[Row]) -> str:
    """The facts of all cards, a column a row of the table. Where not all agree, the fact is marked, and so is each
    value that is not the most frequent one."""
    of_rows = [[_facts(result.content["card"]) for result in row.results] for row in table]
    names = dict.fromkeys(name for facts in of_rows for own in facts for name in own)
    first = [name for name in names if name.partition(":")[0] in SHARED]
    lines = []
    for name in [*first, *(name for name in names if name not in first)]:
        values = [same([own.get(name, "") for own in facts]) for facts in of_rows]
        usual, times = Counter(values).most_common(1)[0]
        marks = times > 1  # else every row has its own, as names
        differs = len({*values}) > 1
        lines.append(
            [
                Cell(f"{DIFFERS} {name}" if differs else name),
                *(Cell(value, None, "text differs" if marks and value != usual else "text") for value in values),
            ]
        )
    text = f"{DIFFERS} marks what not all cards have alike; bold and underlined is what few of them have."
    heads = ["", *(row.name for row in table)]
    return html_table(heads, lines, tall=True, sortable=False) + paragraph(text)


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Facts as texts; parts of a fact by name, ``versions: torch``."""
    found = {}
    for name, value in card.items():
        if name in NO_CARD:
            continue
        if isinstance(value, dict):
            found.update({f"{name}: {part}": _plain(own) for part, own in value.items()})
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _about(card: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{card[fact]:,} {fact}" for fact in ("users", "items", "interactions") if isinstance(card.get(fact), int)
    )
    return (
        f"{f'{counts}. ' if counts else ''}Models in order of validation ({card['valid_metric']}); a click on a "
        "heading sorts anew. Numbers behind ± are deviations over seeds. How each was measured is in the protocol "
        "cards below."
    )


def _notes(table: list[Row]) -> str:
    found = [
        f"† {name} differs from {table[0].name} in {', '.join(keys)}: not comparable."
        for name, keys in odd_beside_masking(table).items()
    ]
    return "".join(map(paragraph, [*found, *([f"{MASKED_NOTE.strip()}."] if masked_alone(table) else [])]))


def _entries(figure: Any) -> int:
    return sum(trace.showlegend is not False for trace in figure.data)
