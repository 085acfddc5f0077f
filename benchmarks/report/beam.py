"""
benchmarks.report.beam
######################
From the record of :mod:`benchmarks.beam`, and the finished runs beside it, to a Markdown table.
"""

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.lib.runs import load
from benchmarks.report.cells import four, head, line
from benchmarks.report.rows import Row

RECORD = "beam.json"
BASE, BEAM = "TokenRec", "TokenRec-beam"
UNBIASED = f"{BASE},repeat_bias=False"  # as fast as TokenRec; the beam cannot have the bias
METRICS = ("ndcg@10", "hit@10")
PARTS = {"valid": "best_valid_result", "test": "test_result"}


def accuracy(folder: Path) -> dict[str, dict[str, Any]]:
    """Means over the seeds of finished runs, by row; empty where one of the two models has none."""
    found = load(folder)
    if not {BASE, BEAM} <= found.keys():
        return {}
    rows = [Row(name, found[name]) for name in (BASE, UNBIASED, BEAM) if name in found]
    return {
        row.name: {
            "method": row.method,
            "seeds": len(row.results),
            **{part: {metric: mean(row.metric(metric, key)) for metric in METRICS} for part, key in PARTS.items()},
        }
        for row in rows
    }


def report(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    known = record["accuracy"]
    lines = head(
        "model",
        "test users/s",
        "times slower",
        *(["seeds", "valid NDCG@10", "valid HR@10", "NDCG@10", "HR@10"] if known else []),
    )
    for row in record["rows"]:
        low, high = row["times_slower_range"]
        fewer = f" ({row['users']} users)" if "users" in row else ""
        span = f" ({low:.3g} to {high:.3g})" if low < high else ""
        cells = [row["name"] + fewer, _speed(row["users_a_second"]), f"{row['times_slower']:.3g}{span}"]
        if own := known.get(row["name"]):
            cells += [own["seeds"], *(four(own[part][metric]) for part in PARTS for metric in METRICS)]
        lines.append(line(*cells, *[""] * (8 - len(cells) if known else 0)))
    if own := known.get(UNBIASED):
        lines.append(
            line(UNBIASED, "", "", own["seeds"], *(four(own[part][metric]) for part in PARTS for metric in METRICS))
        )
    methods = [f"{name}: {own['method']}" for name, own in known.items() if own.get("method")]
    threads = record["machine"]["threads"]
    lines.append(
        f"\n{record['dataset']}: {record['users']:,} users, batches of {record['batch_size']}, L = "
        f"{record['history']}, {record['items']:,} items of {record['num_codebooks']} codes of "
        f"{record['codebook_size']}, "
        f"beam {record['beam_size']}; {record['machine']['cpu']}, {threads} thread{'s' * (threads > 1)}, median "
        f"of {len(record['rows'][0]['seconds'])} rounds, commit {record['machine']['commit']}."
        + (f" Methods: {'; '.join(methods)}." if methods else "")
    )
    return "\n".join(lines)


def _speed(users_a_second: float) -> str:
    return f"{users_a_second:,.0f}" if users_a_second >= 10 else f"{users_a_second:.2g}"
