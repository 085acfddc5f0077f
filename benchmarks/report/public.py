"""
benchmarks.report.public
########################
Rows that other people published (``public.yaml``), as a table to stand beside ours.
"""

from pathlib import Path

import yaml

from benchmarks.report.cells import four, head, line

PUBLIC = Path(__file__).parents[1] / "public.yaml"
SEEN = {True: "masked", False: "ranked", None: "not stated"}


def table(dataset: str) -> str:
    """The rows of a data set, in the order of the file.

    Raises:
        ValueError: it has none.
    """
    rows = yaml.safe_load(PUBLIC.read_text())
    if dataset not in rows:
        raise ValueError(f"{PUBLIC.name} has no rows of {dataset}; it knows {', '.join(rows)}")
    lines = head("published by others", "L", "NDCG@10", "HR@10", "seen items", "source")
    lines += [
        line(
            row["model"],
            row.get("length", ""),
            four(row["ndcg"]),
            four(row["hr"]),
            SEEN[row.get("masked")],
            row["source"],
        )
        for row in rows[dataset]
    ]
    return "\n".join(lines)
