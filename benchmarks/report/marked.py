"""
benchmarks.report.marked
########################
Tables within texts, written anew from the result files.

A table stands between ``<!-- KIND: NAME -->`` and ``<!-- end -->``; NAME is a folder or file of ``results/``,
or ``.`` for all data sets.
"""

import json
import re
from pathlib import Path

from benchmarks.lib import grids
from benchmarks.lib.checkout import ROOT
from benchmarks.lib.runs import load
from benchmarks.lib.variants import ABLATIONS
from benchmarks.report import ablate, answers, beam, dial, grid, peers, public, refine, scale, unseen
from benchmarks.report.overview import overview_table
from benchmarks.report.rows import Row, is_recbole, rows
from benchmarks.report.speed import summary
from benchmarks.report.tables import (
    accuracy_table,
    codes_table,
    cost_table,
    durations_table,
    test_table,
)

RECORDED = ROOT / "benchmarks" / "results"  # of this repository, as its texts are
TIMED = "ml-100k", "ml-1m", "amazon-beauty"  # whose runs had a core of their own
DATASETS = *TIMED, "lastfm"
BLOCK = re.compile(r"(?P<head><!-- (?P<kind>\w+): (?P<name>[\w./-]+) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL)


def _ablation(folder: Path) -> str:
    variants = ABLATIONS[folder.name.rpartition("-")[2]]
    found = ablate.ordered_rows(folder, variants)
    return ablate.table(found, {variant.name: variant.meaning for variant in variants})


def _answers(folder: Path) -> str:
    return answers.tables(answers.read_rows(folder))


def _beam(folder: Path) -> str:
    record = json.loads((folder / beam.RECORD).read_text())
    return beam.report({**record, "accuracy": beam.accuracy(folder)})


def _dial(folder: Path) -> str:
    return dial.pivot(json.loads((folder / dial.RECORD).read_text())["points"])


def _durations(folder: Path) -> str:
    return durations_table({name: table for name, table in _tables_of(folder).items() if name in TIMED})


def _grid(folder: Path) -> str:
    dataset = folder.parent.name.removesuffix("-grid")
    return grid.table(grids.read_points(grids.GRIDS / f"{folder.name}_on_{dataset}.yaml"), load(folder))


def _overview(folder: Path) -> str:
    return overview_table(_tables_of(folder), all_variants=False)


def _all_models(folder: Path) -> str:
    return overview_table(_tables_of(folder))


def _tables_of(folder: Path) -> dict[str, list[Row]]:
    return {name: rows(folder / name) for name in DATASETS if (folder / name).is_dir()}


def _refinement(folder: Path) -> str:
    found = refine.ordered_rows(folder)
    parts = refine.accuracy(found), refine.gains(found), refine.refinements(found)
    return "\n\n".join(part for part in parts if part)


def _unseen(folder: Path) -> str:
    dataset, _, hold = folder.name.rpartition("-unseen-")
    return unseen.TABLES[hold](load(folder), load(folder.parent / dataset))


TABLES = {
    "accuracy": lambda path: accuracy_table(rows(path)),
    "test": lambda path: test_table(rows(path)),
    "recbole": lambda path: test_table(rows(path), counts=is_recbole),
    "sasrecall": lambda path: test_table(rows(path), counts=lambda row: row.name == "SASRecAll"),
    "cost": lambda path: cost_table(rows(path)),
    "codes": lambda path: codes_table(rows(path)),
    "ablation": _ablation,
    "answers": _answers,
    "beam": _beam,
    "dial": _dial,
    "durations": _durations,
    "grid": _grid,
    "overview": _overview,
    "all_models": _all_models,
    "peers": lambda path: peers.tables(path).rstrip(),
    "public": lambda path: public.table(path.name),
    "refinement": _refinement,
    "improvement": lambda path: refine.gains_by_dataset(_tables_of(path)),
    "unseen": _unseen,
    "scale": lambda path: scale.summary(json.loads(path.with_suffix(".json").read_text())),
    "speed": lambda path: summary(json.loads(path.with_suffix(".json").read_text())),
}


def with_tables(text: str, results: Path = RECORDED) -> str:
    """A text with every marked table written anew.

    Raises:
        ValueError: a mark of an unknown kind, or one whose results are missing.
    """
    return BLOCK.sub(
        lambda block: block["head"] + _table(block["kind"], block["name"], results) + "\n" + block["tail"], text
    )


def _table(kind: str, name: str, results: Path) -> str:
    if kind not in TABLES:
        raise ValueError(f"<!-- {kind}: {name} -->: choose one of {', '.join(TABLES)}")
    return TABLES[kind](results / name)
