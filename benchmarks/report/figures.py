"""
benchmarks.report.figures
#########################
The pictures of ``report.html``: accuracy against cost, validation by epoch, differences user by user. Rows differ in
mark and dash, not in color alone.
"""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.lib.significance import interval_over_seeds
from benchmarks.report.rows import Row, has_fitted_bias
from benchmarks.report.tables import seconds_to_best, stage_seconds
from recbole_contrec.report_page import line_style

SHOWN_FIRST = 6  # lines that are there before the reader asks for more
QUANTILES = 201

# What a model costs: title -> seconds, users or parameters of a run; None where a run does not tell.
COSTS: dict[str, Callable[[dict], float | None]] = {
    "core-seconds until the best epoch": seconds_to_best,
    "seconds of training": lambda content: content["seconds"]["training"],
    "test users ranked a second": lambda content: content["card"]["test_users_per_second"],
    "parameters": lambda content: content["card"]["parameters"],
}


def accuracy_against_cost(table: Sequence[Row]) -> Any:
    """Test NDCG@10 of every row over what it costs, with 95 % intervals over seeds; buttons choose the cost. Seconds
    are means over the runs on the device of the first one."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    of_rows = [[_mean(row.timed.values(cost)) for cost in COSTS.values()] for row in table]
    for number, (row, costs) in enumerate(zip(table, of_rows)):
        scores = row.metric("ndcg@10")
        low, high = interval_over_seeds(scores) or (mean(scores), mean(scores))
        figure.add_scatter(
            x=[costs[0]],
            y=[mean(scores)],
            error_y={"type": "data", "array": [high - mean(scores)], "arrayminus": [mean(scores) - low], "width": 3},
            name=row.name,
            mode="markers",
            **{**line_style(number), "line": None},
            hovertemplate="NDCG@10 %{y:.4f}<br>%{x:,.4~g}",
        )
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [{"x": [[costs[place]] for costs in of_rows]}, {"xaxis.title.text": name}],
        }
        for place, name in enumerate(COSTS)
    ]
    figure.update_layout(updatemenus=[_menu(buttons)])
    figure.update_xaxes(type="log", title_text=next(iter(COSTS)), **_grid())
    figure.update_yaxes(title_text="NDCG@10 on test", rangemode="tozero", tickformat=".2f", **_grid())
    return figure


def training_curves(table: Sequence[Row]) -> Any:
    """Validation by epoch or by core-seconds, one line a seed; the best epoch of each is a large mark. None where no
    run has a curve, as with RecBole's own training loops."""
    from plotly import graph_objects

    figure, by_time = graph_objects.Figure(), []
    for number, row in enumerate(table):
        curves = [result.content for result in row.timed.results if result.content["curve"]]
        for seed, content in enumerate(content for content in curves if not has_fitted_bias(content)):
            curve = content["curve"]
            best = [point["epoch"] == content["best_epoch"] for point in curve]
            style = line_style(number)
            style["marker"] |= {"size": [11 if largest else 4 for largest in best], "opacity": 1}
            figure.add_scatter(
                x=[point["epoch"] for point in curve],
                y=[point["score"] for point in curve],
                name=row.name,
                legendgroup=row.name,
                showlegend=not seed,
                opacity=0.5 if seed else 1,
                mode="lines+markers",
                visible=True if number < SHOWN_FIRST else "legendonly",
                **style,
                hovertemplate=f"seed {content['card'].get('seed', '')}: %{{y:.4f}} at %{{x:,}}",
            )
            before = stage_seconds(content)
            by_time.append([round(before + point["core_seconds"], 1) for point in curve])
    if not by_time:
        return None
    by_epoch = [list(trace.x) for trace in figure.data]
    ways = {
        "epoch": (by_epoch, {"xaxis.type": "linear"}),
        "core-seconds, tokenizers included": (by_time, {"xaxis.type": "log"}),
    }
    buttons = [
        {"label": name, "method": "update", "args": [{"x": places}, {**axis, "xaxis.title.text": name}]}
        for name, (places, axis) in ways.items()
    ]
    figure.update_layout(updatemenus=[_menu(buttons)])
    figure.update_xaxes(title_text="epoch", **_grid())
    metric = table[0].results[0].content["card"]["valid_metric"]
    figure.update_yaxes(title_text=f"{metric} on validation", tickformat=".2f", **_grid())
    return figure


def differences(names: Sequence[str], of_rows: Sequence[np.ndarray], baseline: str) -> Any:
    """Users in order of their difference to the baseline in NDCG@10: how many a row serves better, and by how much.

    Args:
        names: of the rows.
        of_rows: difference of every user [n], a row each.
        baseline: its name.
    """
    from plotly import graph_objects

    figure, shares = graph_objects.Figure(), np.linspace(0, 1, QUANTILES)
    for number, (name, found) in enumerate(zip(names, of_rows)):
        style = line_style(number)
        figure.add_scatter(
            x=(100 * shares).round(1).tolist(),
            y=np.quantile(-found, shares).__neg__().round(4).tolist(),
            name=name,
            mode="lines+markers",
            visible=True if number < SHOWN_FIRST else "legendonly",
            **{**style, "marker": {**style["marker"], "size": 7, "maxdisplayed": 12}},
            hovertemplate="%{y:+.4f} at %{x} % of users",
        )
    figure.update_xaxes(title_text="% of users, greatest gain first", range=[0, 100], **_grid())
    figure.update_yaxes(title_text=f"NDCG@10 − {baseline}", zeroline=True, zerolinecolor="#000", **_grid())
    return figure


def by_group(names: Sequence[str], groups: Sequence[str], of_rows: Sequence[Sequence[float]]) -> Any:
    """NDCG@10 of every row on every group of targets.

    Args:
        names: of the rows.
        groups: their names.
        of_rows: a value a group, a row each.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for number, (name, values) in enumerate(zip(names, of_rows)):
        figure.add_scatter(
            x=list(groups),
            y=[round(value, 4) for value in values],
            name=name,
            mode="markers",
            visible=True if number < SHOWN_FIRST else "legendonly",
            **{**line_style(number), "line": None},
            hovertemplate="%{x}: %{y:.4f}",
        )
    figure.update_layout(scattermode="group", scattergap=0.3)
    figure.update_xaxes(type="category", showgrid=True, gridcolor="#ddd", automargin=True)
    figure.update_yaxes(title_text="NDCG@10 on test", rangemode="tozero", tickformat=".2f", **_grid())
    return figure


def _menu(buttons: list[dict[str, Any]]) -> dict[str, Any]:
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "direction": "down"}


def _grid() -> dict[str, Any]:
    return {"gridcolor": "#ddd", "automargin": True}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(mean(known), 1) if len(known) == len(values) else None
