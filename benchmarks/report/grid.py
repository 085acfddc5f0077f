"""
benchmarks.report.grid
######################
From the runs of :mod:`benchmarks.grid` to a Markdown table.
"""

from statistics import mean

from benchmarks.lib.runs import Result
from benchmarks.report.cells import head, line, same, seconds, spread
from benchmarks.report.tables import epoch_seconds


def name_of(point: dict) -> str:
    """Folder of a line's run."""
    return ",".join(f"{key}={value}" for key, value in point.items())


def table(points: list[dict], found: dict[str, list[Result]]) -> str:
    """The finished lines, the best first; means over seeds."""
    rows = [
        (point, [result.content for result in results]) for point in points if (results := found.get(name_of(point)))
    ]
    rows.sort(key=lambda row: -mean(content["best_valid_result"]["ndcg@10"] for content in row[1]))
    lines = head(*points[0], "seeds", "valid NDCG@10", "HR@10", "best epoch", "epochs", "core-s an epoch")
    for point, contents in rows:
        lines.append(
            line(
                *point.values(),
                len(contents),
                *(
                    spread([content["best_valid_result"][metric] for content in contents])
                    for metric in ("ndcg@10", "hit@10")
                ),
                *(same([content[key] for content in contents]) for key in ("best_epoch", "epochs")),
                seconds([epoch_seconds(content) for content in contents]),
            )
        )
    commits = same([content["card"]["commit"] for _, contents in rows for content in contents])
    return "\n".join(lines) + f"\n\nCommit {commits}."
