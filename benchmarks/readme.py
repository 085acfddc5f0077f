"""
benchmarks.readme
#################
Writes the tables of the README anew from the result files:

    python benchmarks/readme.py

A table stands between ``<!-- accuracy: ml-100k -->`` (or ``cost``, ``test``, ``speed``, ...) and ``<!-- end -->``.
"""

import json
import re
from pathlib import Path

from runs import RESULTS
from speed_summary import summary
from tables import accuracy_table, cost_table, rows, test_table

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(?P<head><!-- (?P<kind>\w+): (?P<name>[\w.-]+) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL)
TABLES = {"accuracy": accuracy_table, "test": test_table, "cost": cost_table}


def with_tables(text: str, results: Path = RESULTS) -> str:
    """A text with every marked table written anew.

    Raises:
        ValueError: a mark of an unknown kind, or one whose results are missing.
    """
    return BLOCK.sub(lambda block: block["head"] + _table(block["kind"], block["name"], results) + "\n" + block["tail"], text)


def _table(kind: str, name: str, results: Path) -> str:
    if kind == "speed":
        return summary(json.loads((results / f"{name}.json").read_text()))
    if kind not in TABLES:
        raise ValueError(f"<!-- {kind}: {name} -->: choose one of {', '.join([*TABLES, 'speed'])}")
    return TABLES[kind](rows(results / name))


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
