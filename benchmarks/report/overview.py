"""
benchmarks.report.overview
##########################
All models on all data sets in one table: who is ours, a control, a paper's recipe or RecBole's own.
"""

from itertools import chain

from benchmarks.lib.runs import WITH_BIAS
from benchmarks.report.cells import head, line, spread
from benchmarks.report.rows import (
    Row,
    is_baseline,
    is_control,
    is_registered,
    masked_alone,
    odd_beside_masking,
    recbole_name,
)
from benchmarks.report.tables import MASKED_ALONE, MASKED_NOTE
from recbole_contrec.settings.recipe import PAPER

OURS, CONTROLS, RECIPES, RECBOLE = GROUPS = "ours", "controls", "papers", "RecBole"
MEANING = {
    OURS: "*our variants*",
    CONTROLS: "*RecBole's SASRec network in our training*",
    RECIPES: "*recipes of the papers, on compact models*",
    RECBOLE: "*RecBole's own models*",
}
DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def overview_table(tables: dict[str, list[Row]], all_variants: bool = True) -> str:
    """Test NDCG@10 of every model on several data sets, one line a model; tables by name of the data set, in their
    order. The models stand in groups, and within a group in the order of the first data set that has them. Rows that
    are no model with its own settings, or such a one with a repeat bias afterwards, are left out. The method of a line
    is that of its first data set; where another one has more or less of it, a mark says what. A row that leaves seen
    items out, alone among others, is marked.

    Args:
        all_variants: whether all variants of a model of RecBole, with other histories or a repeat bias, have a line;
            else that one alone that validates best on the first data set that has any.

    Raises:
        ValueError: the rows of a data set that have a line were not measured alike.
    """
    tables = {dataset: [row for row in table if _is_a_line(row)] for dataset, table in tables.items()}
    if odd := {dataset: found for dataset, table in tables.items() if (found := odd_beside_masking(table))}:
        raise ValueError(f"not comparable: {odd}")
    found = [{row.name: row for row in table} for table in tables.values()]
    alone = [masked_alone(table) for table in tables.values()]
    first = {row.name: row for row in reversed([*chain(*tables.values())])}
    names = list(dict.fromkeys(chain(*found)))
    if not all_variants:
        names = _best_variants(names, first)
    marks: dict[str, str] = {}
    lines = head("model", "method", *(f"{dataset} NDCG@10" for dataset in tables))
    for group in GROUPS:
        members = [name for name in names if group_of(first[name]) == group]
        lines += [line(f"**{group}**", MEANING[group], *[""] * len(tables))] * bool(members)
        for name in members:
            method = first[name].method
            cells = (_cell(rows_of.get(name), method, name in masked, marks) for rows_of, masked in zip(found, alone))
            lines.append(line(name, method, *cells))
    notes = [f"\n{mark} {text}" for text, mark in marks.items()]
    return "\n".join(lines + notes + [MASKED_NOTE] * any(alone))


def group_of(row: Row) -> str:
    """Whose method a row is."""
    if row.name.endswith(PAPER):
        return RECIPES
    if is_control(row):
        return CONTROLS
    return RECBOLE if is_baseline(row) else OURS


def told_apart(method: str, other: str) -> str:
    """What a method has that another one has not, and the other way round; both in a few words between commas."""
    ours, theirs = method.split(", "), other.split(", ")
    more = [part for part in ours if part not in theirs]
    less = [part for part in theirs if part not in ours]
    return "; ".join(f"{word} {', '.join(parts)}" for word, parts in (("with", more), ("without", less)) if parts)


def _is_a_line(row: Row) -> bool:
    """Whether a row has the name of a model that can be run here, with a repeat bias afterwards or not."""
    return is_registered(row.name.removesuffix(f",{WITH_BIAS}"))


def _best_variants(names: list[str], first: dict[str, Row]) -> list[str]:
    """Without those variants of RecBole's models that are not the first of their model; names are in the order of
    validation."""
    kept, seen = [], set()
    for name in names:
        own = recbole_name(first[name]) if group_of(first[name]) == RECBOLE else name
        if name == own or own not in seen:
            kept.append(name)
        if name != own:
            seen.add(own)
    return kept


def _mark(number: int) -> str:
    return "".join(DIGITS[int(digit)] for digit in str(number))


def _cell(row: Row | None, method: str, masked: bool, marks: dict[str, str]) -> str:
    """Accuracy of a row; ``marks`` gets a new mark where its method differs from that of the line in another way."""
    if row is None:
        return ""
    shown = spread(row.metric("ndcg@10"))
    if different := told_apart(row.method, method):
        shown += f" {marks.setdefault(different, _mark(1 + len(marks)))}"
    return shown + f" {MASKED_ALONE}" * masked
