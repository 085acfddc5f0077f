"""
benchmarks.report.dial
######################
From the record of :mod:`benchmarks.dial` to a Markdown table and a picture.
"""

from pathlib import Path
from typing import Any

from benchmarks.lib.trained import circumstances
from benchmarks.report.cells import four, head, line
from benchmarks.report.plots import number_log_axis

RECORD = "dial.json"
ORDER = ("guidance", "ddim_eta", "samples", "steps")


def report(content: dict[str, Any]) -> str:
    """The README of a record."""
    card, records = content["card"], content["points"]
    return (
        "\n".join(
            [
                f"# {card['dataset']}: speed and accuracy of the diffusion head",
                "",
                f"{card['model']}, seed {card['seed']}, trained once and ranked with every setting; "
                f"{circumstances(card, records)}",
                "",
                table(records),
                "",
                "Bold: no faster setting is as accurate on validation. One step draws no fresh noise, so it stands in "
                "the table once, under sampling noise 0. One step with one sample is the mean estimate.",
            ]
        )
        + "\n"
    )


def table(records: list[dict]) -> str:
    """A line a point; those of the front in bold."""
    best = front(records)
    lines = head(
        "guidance",
        "sampling noise",
        "samples",
        "steps",
        "valid NDCG@10",
        "test NDCG@10",
        "valid users/s",
        "test users/s",
    )
    for record in sorted(records, key=lambda record: [record[key] for key in ORDER]):
        where = [f"{record[key]:g}" for key in ORDER]
        if "valid" not in record:
            lines.append(line(*where, f"skipped: about {record['estimated_seconds']:,.0f} s", "", "", ""))
            continue
        valid, test = record["valid"], record["test"]
        accuracy = four(valid["ndcg@10"])
        lines.append(
            line(
                *where,
                f"**{accuracy}**" if record in best else accuracy,
                four(test["ndcg@10"]),
                f"{valid['users_per_second']:,.0f}",
                f"{test['users_per_second']:,.0f}",
            )
        )
    return "\n".join(lines)


def pivot(records: list[dict]) -> str:
    """NDCG@10 on validation: a line a guidance, sampling noise and number of samples, a column a number of steps. One
    step stands in the lines of every sampling noise."""
    measured = [record for record in records if "valid" in record]
    steps, noises = (sorted({record[key] for record in measured}) for key in ("steps", "ddim_eta"))
    cells = {tuple(record[key] for key in ORDER): four(record["valid"]["ndcg@10"]) for record in measured}
    lines = head("guidance", "sampling noise", "samples", *(f"{step} step{'s' * (step > 1)}" for step in steps))
    for guidance in sorted({record["guidance"] for record in measured}):
        for noise in noises:
            for samples in sorted({record["samples"] for record in measured}):
                found = [cells.get((guidance, noise if step > 1 else 0.0, samples, step), "") for step in steps]
                lines.append(line(f"{guidance:g}", f"{noise:g}", samples, *found))
    return "\n".join(lines)


def front(records: list[dict]) -> list[dict]:
    """Measured points than which no faster one is as accurate on validation, the fastest first."""
    found, highest = [], float("-inf")
    for record in sorted(
        (record for record in records if "valid" in record),
        key=lambda record: (-record["valid"]["users_per_second"], -record["valid"]["ndcg@10"]),
    ):
        if record["valid"]["ndcg@10"] > highest:
            found.append(record)
            highest = record["valid"]["ndcg@10"]
    return found


def draw(content: dict[str, Any], path: Path) -> Path:
    """Accuracy over speed, both on validation: a line a number of samples, a panel a guidance and sampling noise."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [record for record in content["points"] if "valid" in record]
    guidance = sorted({record["guidance"] for record in records}) or [0.0]
    # One step is recorded under noise 0 alone, but belongs to every panel.
    noises = sorted({record["ddim_eta"] for record in records if record["steps"] > 1}) or [0.0]
    size = 1 + 5 * len(noises), 0.5 + 3.8 * len(guidance)
    figure, panels = pyplot.subplots(
        len(guidance), len(noises), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for weight, row in zip(guidance, panels):
        for noise, axes in zip(noises, row):
            shown = [
                record
                for record in records
                if record["guidance"] == weight and (record["ddim_eta"] == noise or record["steps"] == 1)
            ]
            _draw_panel(axes, shown, sorted({record["samples"] for record in records}))
            axes.set_title(f"guidance {weight:g}, sampling noise {noise:g}", fontsize=9)
    panels[0][0].legend(frameon=False, fontsize=8)
    card = content["card"]
    figure.suptitle(f"{card['dataset']}: {card['model']} on validation, points labelled with steps", fontsize=10)
    figure.supxlabel("users ranked a second (whole catalogue)", fontsize=10)
    figure.supylabel("NDCG@10", fontsize=10)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _draw_panel(axes, records, samples):
    for number, count in enumerate(samples):
        line = sorted((record for record in records if record["samples"] == count), key=lambda record: record["steps"])
        speed = [record["valid"]["users_per_second"] for record in line]
        score = [record["valid"]["ndcg@10"] for record in line]
        axes.plot(speed, score, "o-", color=f"C{number}", ms=4, lw=1.2, label=f"{count} sample{'s' * (count > 1)}")
        for record, x, y in zip(line, speed, score):
            axes.annotate(str(record["steps"]), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    number_log_axis(axes.xaxis)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
