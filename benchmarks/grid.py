"""
benchmarks.grid
###############
Tunes a model on validation: one run for every line of ``grids/MODEL_on_DATASET.yaml``, and a table of what they
reached.

    python benchmarks/grid.py --model=SASRec --dataset=ml-100k

A line of the grid is a mapping from settings to values; all others come from the model's YAML. Finished runs are kept
and not repeated, a killed one goes on after its last epoch, and of other settings or data they are only replaced with
``--again``. Started several times at once, the command shares the lines. Test results are not kept: a grid is there to
choose, and only validation may choose. Results and table go to ``OUTPUT/DATASET-grid/MODEL/``; its folder ``study``
has what ``tune`` writes: ``trials.csv``, ``report.html`` and the best line as ``MODEL_on_DATASET.yaml``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.lib import running
from benchmarks.lib.asked import missing
from benchmarks.lib.command_line import name_of_a_folder, told
from benchmarks.lib.grids import GRIDS, read_points
from benchmarks.lib.running import common_parser, one_by_one, seeds_of, write_report
from benchmarks.lib.runs import Run, load, read
from benchmarks.report.grid import name_of, table

STUDY = "study"  # folder of what belongs to the search


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the table; 0, 1 if a run failed, 2 if there is no such grid, model or data
    set."""
    given = _parse(arguments)
    try:
        points = read_points(given.grid or GRIDS / f"{given.model}_on_{given.dataset}.yaml")
    except FileNotFoundError as error:
        known = ", ".join(sorted(path.stem for path in GRIDS.glob("*.yaml")))
        print(
            f"error: there is no grid {error.filename}; there are {known}. Write one and give it by --grid",
            file=sys.stderr,
        )
        return 2
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    folder = given.output / f"{given.dataset}-grid" / given.model
    failed = [] if given.tables_only else _search(given, points, folder)
    found = load(folder)
    if found:
        write_report(folder, f"# {given.model} on {given.dataset}, validation\n\n{table(points, found)}\n")
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


def settings_of(point: dict) -> tuple[str, ...]:
    """Arguments of a line's run."""
    return tuple(f"--{key}={'~' if value is None else value}" for key, value in point.items())


def values_of(point: dict) -> dict[str, Any]:
    """Settings of a line's run, as its arguments are read."""
    from recbole_contrec.settings.schema import parse_arguments, parse_value

    return {key: parse_value(text) for key, text in parse_arguments(settings_of(point)).items()}


def _search(given: Namespace, points: Sequence[dict], folder: Path) -> list[str]:
    """Try every line: a search of :mod:`recbole_contrec.tuning` whose points are given. Results lie beside it, one file
    a run, so that it begins anew each time.

    Returns:
        list: messages of the lines that failed.

    Raises:
        UserError: something is wrong with a line, or is there with other settings or data; nothing has been started.
    """
    from recbole_contrec.packages import require

    require("optuna", "benchmarks.grid")
    from recbole_contrec.showing import show
    from recbole_contrec.tuning.report import search_and_report
    from recbole_contrec.tuning.space import Choice
    from recbole_contrec.tuning.study import ERROR, Search, begin_anew

    points = list({name_of(point): point for point in points}.values())
    runs = [
        [
            Run(given.model, given.dataset, seed, folder, name_of(point), settings_of(point), tested=False)
            for seed in seeds_of(given)
        ]
        for point in points
    ]
    _make_room([run for of_point in runs for run in of_point], given)
    values = [values_of(point) for point in points]
    of_key = {key: {show(point[key]): point[key] for point in values} for key in values[0]}
    first = Run(given.model, given.dataset, seeds_of(given)[0], folder)
    search = Search(
        given.model,
        given.dataset,
        {key: Choice(tuple(found.values())) for key, found in of_key.items()},
        folder / STUDY,
        f"{given.model}_on_{given.dataset}",
        prunes=False,
        arguments=[each for each in first.arguments(given.data_path) if not each.startswith("--show_progress=")],
        points=values,
        train=lambda chosen, report: _train(runs[values.index(chosen)], given, report),
        seeds=list(seeds_of(given)) if given.seeds > 1 else (),
    )
    begin_anew(search)
    study = search_and_report(search, len(values))
    return [f"trial {trial.number}: {trial.user_attrs[ERROR]}" for trial in study.trials if ERROR in trial.user_attrs]


def _make_room(runs: list[Run], given: Namespace) -> None:
    """Look at all runs that are there; with ``--again``, those of other settings or data go."""
    there = {run.result for run in runs if run.result.is_file()}
    for run in missing(runs, given.data_path, given.again):
        if run.result in there:
            run.result.unlink()


def _train(runs: list[Run], given: Namespace, report: Callable[[int, float], None]) -> dict[str, Any]:
    """Execute those runs of a line that are missing, a seed each.

    Returns:
        dict: means over the seeds, as the result of a run.

    Raises:
        UserError: one of them failed.
    """
    from recbole_contrec import UserError

    todo = [run for run in runs if not run.finished]
    if failed := one_by_one(todo, lambda run, show: running.execute(run, given.data_path, show)):
        raise UserError("\n".join(failed))
    contents = [read(run.result, "best_valid_result", "curve") for run in runs]
    for epoch in contents[0]["curve"]:
        if epoch.get("score") is not None:
            report(epoch["epoch"], epoch["score"])
    results = [content["best_valid_result"] for content in contents]
    return {
        "best_valid_score": mean(content["best_valid_score"] for content in contents),
        "best_valid_result": {metric: mean(result[metric] for result in results) for metric in results[0]},
        "best_epoch": round(mean(content["best_epoch"] for content in contents), 1),
        "epochs": round(mean(content["epochs"] for content in contents), 1),
        "seconds": {"training": sum(content["seconds"]["training"] for content in contents)},
    }


def _parse(arguments):
    parser = common_parser(__doc__, seeds=1)
    parser.add_argument("--model", required=True, type=name_of_a_folder)
    parser.add_argument("--grid", type=Path, help="another file of settings (benchmarks/grids/MODEL_on_DATASET.yaml)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
