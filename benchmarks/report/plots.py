"""
benchmarks.report.plots
#######################
Pictures of a results folder: accuracy against time, and accuracy against evaluation speed.
"""

from pathlib import Path

from benchmarks.report.rows import Row, has_fitted_bias, is_baseline, masked_alone
from benchmarks.report.tables import seconds_to_best, stage_seconds


def draw(table: list[Row], folder: Path) -> list[Path]:
    """Write ``training.png`` and ``evaluation.png`` into the folder. Rows that leave seen items out, alone among
    others, are not in them: neither axis compares them.

    Returns:
        list: their paths.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    alone = masked_alone(table)
    table = [row for row in table if row.name not in alone]
    written = []
    for name, draw_into in (("training.png", _training), ("evaluation.png", _evaluation)):
        figure, axes = pyplot.subplots(figsize=(8.5, 4.5), layout="constrained")
        draw_into(axes, table)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / name, dpi=120)
        pyplot.close(figure)
        written.append(folder / name)
    return written


def _training(axes, table):
    """Validation curves over core-seconds, one line a seed on the device of the first; the best epoch of each is
    marked."""
    for number, row in enumerate(table):
        color = _color(number)
        for seed, result in enumerate(row.timed.results):
            curve = result.content["curve"]
            if not curve or has_fitted_bias(result.content):
                continue  # RecBole's own training loops leave none; that of a model without the bias is there already
            before = stage_seconds(result.content)
            axes.plot(
                [before + point["core_seconds"] for point in curve],
                [point["score"] for point in curve],
                color=color,
                lw=1.2,
                ls="--" if is_baseline(row) else "-",
                label=None if seed else row.name + row.clock,
                alpha=0.8,
            )
            best = seconds_to_best(result.content)
            axes.plot(best, result.content["best_valid_score"], "o", color=color, ms=4)
    metric = table[0].results[0].content["card"]["valid_metric"]
    axes.set(
        xscale="log",
        xlabel="core-seconds of training and validation, tokenizers included",
        ylabel=f"{metric} on validation",
    )
    axes.set_title(f"{_data(table)}: accuracy against training time (dashed: baselines)", fontsize=10)
    number_log_axis(axes.xaxis)


def _evaluation(axes, table):
    """Test NDCG@10 over users a second, a point a model."""
    for number, row in enumerate(table):
        speed = _mean(row.timed.values(lambda content: content["card"]["test_users_per_second"]))
        score = _mean(row.metric("ndcg@10"))
        axes.plot(speed, score, "s" if is_baseline(row) else "o", color=_color(number), label=row.name + row.clock)
    axes.set(xscale="log", xlabel="users ranked a second (test, whole catalogue)", ylabel="NDCG@10 on test")
    axes.set_title(f"{_data(table)}: accuracy against evaluation speed (squares: baselines)", fontsize=10)
    axes.set_ylim(0, 1.15 * max(_mean(row.metric("ndcg@10")) for row in table))
    axes.margins(x=0.2)
    number_log_axis(axes.xaxis)


def number_log_axis(axis) -> None:
    """Plain numbers at 1, 2 and 5 of every power of ten: few plots span more than two."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_tick_params(labelsize=9)  # neighbours of five digits would touch
    axis.set_minor_formatter("")


def _color(number):
    """One of twenty colors: the usual ten, then their lighter sisters."""
    from matplotlib import colormaps

    return colormaps["tab20"](2 * number % 20 + number // 10 % 2)


def _mean(values):
    return sum(values) / len(values)


def _data(table):
    return table[0].results[0].content["card"]["dataset"]
