"""
benchmarks.report.export
########################
The main table of a comparison for a paper or a spreadsheet: LaTeX with booktabs, CSV with plain numbers, Markdown.
"""

import csv
import io
from collections.abc import Callable
from statistics import mean, stdev

from benchmarks.lib.significance import interval_over_seeds
from benchmarks.report.cells import four
from benchmarks.report.rows import Row, masked_alone, odd_beside_masking
from benchmarks.report.tables import FIRST_METRICS, METRICS, accuracy_table, metric_title

MASKED = ("ndcg@10", "hit@10")
SHOWN = (
    *((metric, "test_result") for metric in FIRST_METRICS),
    *((name, "test_result_seen_masked") for name in MASKED),
)
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def latex(table: list[Row]) -> str:
    """A ``table`` of LaTeX, which needs booktabs and a T1 font encoding.

    Means over seeds with the half width of a 95 % interval (Student's t), where there are several. In every column the
    best mean is bold and the second best underlined, among rows that were measured alike.
    """
    odd, alone = odd_beside_masking(table), masked_alone(table)
    means = {
        (row.name, *column): mean(row.metric(*column))
        for row in table
        for column in SHOWN
        if column[1] == "test_result_seen_masked" or row.name not in alone
    }
    marks = {key: mark for column in SHOWN for key, mark in _marks(means, column, odd).items()}
    card = table[0].results[0].content["card"]
    dagger, double = r"\textsuperscript{\textdagger}", r"\textsuperscript{\textdaggerdbl}"
    lines = [
        r"% \usepackage[T1]{fontenc} \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(_caption(card, table))}}}",
        r"\begin{tabular}{lrccccc}",
        r"\toprule",
        r" & & \multicolumn{3}{c}{whole catalogue} & \multicolumn{2}{c}{seen items masked} \\",
        r"\cmidrule(lr){3-5}\cmidrule(lr){6-7}",
        " & ".join(["Model", "Seeds", *(escape(metric_title(metric)) for metric, _ in SHOWN)]) + r" \\",
        r"\midrule",
    ]
    for row in table:
        name = escape(row.name) + dagger * (row.name in odd) + double * (row.name in alone)
        cells = [_latex_cell(row, column, marks.get((row.name, *column))) for column in SHOWN]
        if row.name in alone:
            cells[: len(FIRST_METRICS)] = ["--"] * len(FIRST_METRICS)
        lines.append(" & ".join([name, str(len(row.results)), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if odd:
        differing = "; ".join(f"{name} differs in {', '.join(keys)}" for name, keys in odd.items())
        lines.append(rf"\par\footnotesize {dagger} not comparable: {escape(differing)}.")
    if alone:
        lines.append(rf"\par\footnotesize {double} ranks no item of the history.")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _marks(means: dict, column: tuple[str, str], odd: dict) -> dict:
    """The macro around the best value of a column and around the second best; equal ones share it."""
    values = {key: round(value, 4) for key, value in means.items() if key[1:] == column and key[0] not in odd}
    ranking = sorted(set(values.values()), reverse=True)[:2]
    return {key: (r"\textbf", r"\underline")[ranking.index(value)] for key, value in values.items() if value in ranking}


def _latex_cell(row: Row, column: tuple[str, str], mark: str | None) -> str:
    values = row.metric(*column)
    shown = four(mean(values))
    text = rf"{mark}{{{shown}}}" if mark else shown
    interval = interval_over_seeds(values)
    return text if interval is None else rf"{text} {{\scriptsize$\pm${four((interval[1] - interval[0]) / 2)}}}"


def _caption(card: dict, table: list[Row]) -> str:
    seeds = sorted({len(row.results) for row in table})
    several = "" if seeds == [1] else "; behind the sign, half a 95 % interval over seeds"
    return f"{card['dataset']}, test: means over seeds{several}. Best in bold, second best underlined."


def comma_separated(table: list[Row]) -> str:
    """CSV with all metrics as plain numbers: mean, deviation and interval over seeds; empty where there is none."""
    odd, alone = odd_beside_masking(table), masked_alone(table)
    parts = {"valid": "best_valid_result", "test": "test_result", "test_seen_masked": "test_result_seen_masked"}
    columns = [
        *(("valid", metric) for metric in ("ndcg@10", "hit@10")),
        *(("test", metric) for metric in METRICS),
        *(("test_seen_masked", metric) for metric in MASKED),
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    kinds = ("mean", "sd", "low", "high")
    heads = [f"{part} {metric} {kind}" for part, metric in columns for kind in kinds]
    writer.writerow(["model", "method", "seeds", "differs in", *heads])
    for row in table:
        cells: list[float | str] = []
        for part, metric in columns:
            known = part == "test_seen_masked" or row.name not in alone
            values = [own.get(parts[part], {}).get(metric) for own in row.values(lambda content: content)]
            cells += _numbers(values) if known and None not in values else [""] * len(kinds)
        writer.writerow([row.name, row.method, len(row.results), " ".join(odd.get(row.name, [])), *cells])
    return stream.getvalue()


def _numbers(values: list[float]) -> list[float | str]:
    interval = interval_over_seeds(values)
    more = [stdev(values), *interval] if interval else [""] * 3
    return [round(value, 6) if isinstance(value, float) else value for value in (mean(values), *more)]


FORMATS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {  # name -> ending of its file, and what writes it
    "latex": ("tex", latex),
    "csv": ("csv", comma_separated),
    "markdown": ("md", lambda table: accuracy_table(table) + "\n"),
}
