"""
benchmarks.grid
###############
Tunes a model on validation: one run for every line of ``grids/MODEL_on_DATASET.yaml``, and a table of what they
reached.

    python benchmarks/grid.py --model=SASRec --dataset=ml-100k

A line of the grid is a mapping from settings to values; all others come from the model's YAML. Finished runs are kept
and not repeated, and of other settings or data only replaced with ``--again``. Test results are not kept: a grid is
there to choose, and only validation may choose. Results and table go to ``OUTPUT/DATASET-grid/MODEL/``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import sys
from pathlib import Path

from benchmarks.lib.command_line import name_of_a_folder, told
from benchmarks.lib.grids import GRIDS, read_points
from benchmarks.lib.running import common_parser, run_all, seeds_of, write_report
from benchmarks.lib.runs import Run, load
from benchmarks.report.grid import name_of, table


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
    runs = [
        Run(given.model, given.dataset, seed, folder, name_of(point), settings_of(point), tested=False)
        for seed in seeds_of(given)
        for point in points
    ]
    failed = run_all([] if given.tables_only else runs, given.data_path, given.again)
    found = load(folder)
    if found:
        write_report(folder, f"# {given.model} on {given.dataset}, validation\n\n{table(points, found)}\n")
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


def settings_of(point: dict) -> tuple[str, ...]:
    """Arguments of a line's run."""
    return tuple(f"--{key}={'~' if value is None else value}" for key, value in point.items())


def _parse(arguments):
    parser = common_parser(__doc__, seeds=1)
    parser.add_argument("--model", required=True, type=name_of_a_folder)
    parser.add_argument("--grid", type=Path, help="another file of settings (benchmarks/grids/MODEL_on_DATASET.yaml)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
