"""
recbole_contrec.report_page
###########################
Reports to look at: one HTML file that needs no network, with tables that a click on a heading sorts, and pictures that
the reader can enlarge. It reads well on a phone, and in black and white as far as its pictures do.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from numbers import Real
from typing import Any, NamedTuple

MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hourglass")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Okabe and Ito's colors but for yellow, which is too light on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#7f7f7f")

_STYLE = """
body{font-family:sans-serif;line-height:1.4;color:#111;background:#fff;max-width:75rem;margin:0 auto;
padding:0 .8rem 3rem}
h1{font-size:1.4rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #bbb}
.box{overflow-x:auto;max-width:100%;border:1px solid #ddd}
.tall{max-height:34rem;overflow-y:auto}
table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.25rem .6rem;text-align:right;white-space:nowrap;vertical-align:top}
thead th{position:sticky;top:0;z-index:1;background:#fff;border-bottom:2px solid #444}
tbody tr:nth-child(even)>*{background:#f3f3f3}
tbody th{font-weight:normal}
tr>:first-child{position:sticky;left:0;z-index:1;text-align:left;background:#fff;min-width:8.5rem;max-width:11rem;
white-space:normal;overflow-wrap:anywhere}
thead tr>:first-child{z-index:2}
th.text{text-align:left}td.text{text-align:left;white-space:normal;min-width:9rem}
th button{font:inherit;font-weight:bold;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit;color:inherit}
th button::after{content:" \\2195";color:#888}
th[aria-sort=ascending] button::after{content:" \\2191";color:#000}
th[aria-sort=descending] button::after{content:" \\2193";color:#000}
summary{cursor:pointer;padding:.3rem 0}
td.differs{font-weight:bold;text-decoration:underline}
pre{overflow-x:auto;background:#f3f3f3;padding:.5rem}
.picture{max-width:100%;overflow-x:auto}
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const heading = button.parentElement, body = heading.closest("table").tBodies[0], place = heading.cellIndex;
  const order = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const key = row => row.cells[place].dataset.key ?? "", number = text => text === "" ? NaN : Number(text);
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)], sign = order === "descending" ? -1 : 1;
    if (a === "" || b === "") return (a === "") - (b === "");  // what is not known comes last, in either order
    const difference = number(a) - number(b);
    return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
  });
  body.append(...rows);
});
const fit = () => {  // a legend stands below its picture, in as many lines as there is no room beside each other
  for (const box of document.querySelectorAll(".picture[data-legend]")) {
    const picture = box.querySelector(".plotly-graph-div"), columns = Math.max(1, Math.floor(box.clientWidth / 250));
    const legend = 20 * Math.ceil(Number(box.dataset.legend) / columns), height = 450 + legend;
    if (picture && picture.layout && picture.layout.height !== height)
      Plotly.relayout(picture, {height, "margin.b": 60 + legend});
  }
};
window.addEventListener("resize", fit);
window.addEventListener("load", fit);
"""


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: as it is shown.
        key: what the table is sorted by: a number, or a text; None where nothing is known. Such cells come last.
        kind: class of the style sheet: ``text`` for a longer one, ``differs`` for what stands out.
    """

    text: str
    key: float | str | None = None
    kind: str = ""


class Section(NamedTuple):
    """A part of a page under a heading of its own; ``html`` is markup, the title is text."""

    title: str
    html: str


def cell(value: Any, shown: str | None = None) -> Cell:
    """A cell that is sorted by its value, and shows it otherwise where ``shown`` is given; numbers that are not finite
    count as unknown."""
    if value is None or isinstance(value, Real) and not math.isfinite(value):
        return Cell(shown or "")
    if isinstance(value, Real) and not isinstance(value, bool):
        return Cell(f"{value:,.5g}" if shown is None else shown, float(value))
    return Cell(str(value) if shown is None else shown, str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], tall: bool = False, sortable: bool = True) -> str:
    """A table in a box of its own, which scrolls where it is wider than the page.

    Args:
        columns: headings. A click sorts by a column, the greatest first, another one the other way.
        rows: as many cells each; the first one names the row and stays where it is.
        tall: whether many rows scroll as well.
    """
    button = "<button type=button>{}</button>" if sortable else "{}"
    rows = [[*row] for row in rows]
    kinds = [one.kind.partition(" ")[0] for one in rows[0]] if rows else [""] * len(columns)
    heads = "".join(
        f"<th scope=col{_kind(kind)}>{button.format(escape(name))}</th>" for name, kind in zip(columns, kinds)
    )
    body = "\n".join(f"<tr>{''.join(_markup(one, not place) for place, one in enumerate(row))}</tr>" for row in rows)
    return (
        f"<div{_kind('box tall' if tall else 'box')} tabindex=0><table>"
        f"<thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _markup(one: Cell, first: bool) -> str:
    tag, scope = ("th", " scope=row") if first else ("td", "")
    key = "" if one.key is None else f' data-key="{escape(str(one.key))}"'
    return f"<{tag}{scope}{_kind(one.kind)}{key}>{escape(one.text)}</{tag}>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def paragraph(text: str) -> str:
    """A text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def picture(figure: Any, legend: int | None = None) -> str:
    """A figure of plotly that follows the width of the page; :func:`page` brings the program that draws it.

    Args:
        figure: ``plotly.graph_objects.Figure``.
        legend: entries of a legend below the picture, for which the page makes room; None where the figure keeps its
            own.
    """
    figure.update_layout(title=None, template="plotly_white", autosize=True)
    room = ""
    if legend is not None:
        figure.update_layout(
            margin={"l": 10, "r": 10, "t": 80},
            legend={
                "orientation": "h",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "x": 0,
                "font": {"size": 11},
                "itemwidth": 36,
            },
        )
        room = f' data-legend="{legend}"'
    buttons = ["select2d", "lasso2d", "autoScale2d"]
    config = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": buttons}
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return f'<div class="picture"{room}>{drawn}</div>'


def line_style(number: int) -> dict[str, Any]:
    """Mark, dash and color of a line of plotly: of the first sixty, no two have both mark and dash in common."""
    return {
        "marker": {"symbol": MARKS[number % len(MARKS)], "size": 9, "color": COLORS[number % len(COLORS)]},
        "line": {
            "dash": DASHES[(number + number // len(MARKS)) % len(DASHES)],
            "color": COLORS[number % len(COLORS)],
            "width": 1.7,
        },
    }


def page(title: str, sections: Sequence[Section], opening: str = "") -> str:
    """One file that needs no network; with the program that draws, where there is something to draw.

    Args:
        title: text.
        sections: in their order; those without content are left out.
        opening: markup below the title.
    """
    body = "\n".join(f"<section><h2>{escape(part.title)}</h2>{part.html}</section>" for part in sections if part.html)
    plotly = ""
    if 'class="plotly-graph-div"' in body:
        from plotly.offline import get_plotlyjs  # reads several megabytes

        plotly = f"<script>{get_plotlyjs()}</script>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style>{plotly}</head><body>'
        f"<h1>{escape(title)}</h1>{opening}\n{body}\n<script>{_SCRIPT}</script></body></html>\n"
    )
